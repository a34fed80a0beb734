/* SPDX-License-Identifier: MIT */
/* GPTQ layers out of safetensors: shapes, groups, act-order, zero codes, and refusals. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "host/formats/gptq_checkpoint.h"
#include "tests/support/expect.h"
#include "tests/support/files.h"
#include "tests/support/safetensors_writer.h"

enum {
    K = 64,
    N = 16,
    GROUP = 32,
    MOST_WORDS = K * N
};

/* What goes into the file; fields that are not set take the values of a sound layer. */
typedef struct layer {
    uint32_t bits;
    uint32_t group_size; /* of the file */
    bool desc_act;
    ferrum_zero_convention_t convention;
    uint32_t zero_word;
    const int32_t *g_idx;
    uint64_t g_idx_count;
    const char *scales_dtype;
    const char *qweight_dtype;
    const char *left_out; /* a part that is missing */
    uint64_t scale_rows;  /* 0: as it should be */
    uint64_t zero_columns;
    uint32_t config_group_size; /* 0: as the file; UINT32_MAX: per channel */
    uint64_t bias_count;
} layer_t;

static void add(ferrum_safetensors_writer_t *writer, const layer_t *layer, const char *part,
                const char *dtype, uint32_t dims_count, const uint64_t *dims, const void *data,
                size_t bytes)
{
    char name[64];
    if (layer->left_out && strcmp(layer->left_out, part) == 0)
        return;
    (void)snprintf(name, sizeof name, "m.0.%s", part);
    ferrum_safetensors_writer_add(writer, name, dtype, dims_count, dims, data, bytes);
}

static void build(const layer_t *layer, uint8_t **out_data, size_t *out_bytes)
{
    static uint32_t words[MOST_WORDS];
    ferrum_safetensors_writer_t *writer = ferrum_safetensors_writer_new();
    uint64_t per_word = 32 / layer->bits;
    uint64_t groups = layer->group_size ? K / layer->group_size : 1;
    uint64_t scale_rows = layer->scale_rows ? layer->scale_rows : groups;
    uint64_t columns = layer->zero_columns ? layer->zero_columns : N / per_word;
    const char *scales = layer->scales_dtype ? layer->scales_dtype : "F16";
    size_t scale_bytes = strcmp(scales, "F32") == 0 ? 4 : strcmp(scales, "F64") == 0 ? 8 : 2;
    for (size_t i = 0; i < MOST_WORDS; i++)
        words[i] = (uint32_t)i;
    add(writer, layer, "qweight", layer->qweight_dtype ? layer->qweight_dtype : "I32", 2,
        (uint64_t[]){K / per_word, N}, words, K / per_word * N * 4);
    add(writer, layer, "scales", scales, 2, (uint64_t[]){scale_rows, N}, words,
        scale_rows * N * scale_bytes);
    for (size_t i = 0; i < MOST_WORDS; i++)
        words[i] = layer->zero_word;
    add(writer, layer, "qzeros", "I32", 2, (uint64_t[]){groups, columns}, words,
        groups * columns * 4);
    if (layer->g_idx)
        add(writer, layer, "g_idx", "I32", 1, (uint64_t[]){layer->g_idx_count}, layer->g_idx,
            layer->g_idx_count * 4);
    if (layer->bias_count)
        add(writer, layer, "bias", "F16", 1, (uint64_t[]){layer->bias_count}, words,
            layer->bias_count * 2);
    ferrum_safetensors_writer_bytes(writer, out_data, out_bytes);
    ferrum_safetensors_writer_free(writer);
}

/* The opened checkpoint of the current test. */
static uint8_t *file_data;
static ferrum_safetensors_t *checkpoint;

static void release(void)
{
    ferrum_safetensors_close(checkpoint);
    free(file_data);
    checkpoint = NULL;
    file_data = NULL;
}

static ferrum_status_t load(const layer_t *layer, uint32_t k, uint32_t n,
                            ferrum_gptq_tensors_t *out, ferrum_error_t *err)
{
    size_t bytes;
    ferrum_gptq_config_t config = {true, layer->bits,      layer->group_size, layer->desc_act,
                                   true, layer->convention};
    if (layer->config_group_size)
        config.group_size = layer->config_group_size == UINT32_MAX ? 0 : layer->config_group_size;
    release();
    build(layer, &file_data, &bytes);
    ferrum_status_t status =
        ferrum_safetensors_open_memory(file_data, bytes, "layer", &checkpoint, err);
    if (status != FERRUM_OK)
        return status;
    return ferrum_gptq_checkpoint_load(checkpoint, &config, "m.0", k, n, out, err);
}

static const layer_t sound = {.bits = 4, .group_size = GROUP, .zero_word = 0x77777777};

START_TEST(loads_every_kind)
{
    static const uint32_t group_sizes[] = {0, 32, 64};
    static const char *const dtypes[] = {"F16", "BF16", "F32"};
    static const ferrum_dtype_t abi[] = {FERRUM_DTYPE_F16, FERRUM_DTYPE_BF16, FERRUM_DTYPE_F32};
    for (uint32_t bits = 4; bits <= 8; bits += 4)
        for (size_t g = 0; g < 3; g++)
            for (size_t d = 0; d < 3; d++) {
                ferrum_gptq_tensors_t t;
                layer_t layer = {
                    .bits = bits, .group_size = group_sizes[g], .scales_dtype = dtypes[d]};
                EXPECT_OK(load(&layer, K, N, &t, &err));
                ck_assert(ferrum_gptq_checkpoint_has(checkpoint, "m.0"));
                ck_assert(!ferrum_gptq_checkpoint_has(checkpoint, "m.1"));
                ck_assert_uint_eq(t.k, K);
                ck_assert_uint_eq(t.n, N);
                ck_assert_uint_eq(t.bits, bits);
                ck_assert_uint_eq(t.group_size, group_sizes[g] ? group_sizes[g] : K);
                ck_assert_uint_eq(t.groups, K / t.group_size);
                ck_assert_uint_eq(t.scales_dtype, abi[d]);
                ck_assert_int_eq(t.qweight[5], 5);
                ck_assert_ptr_null(t.g_idx);
                ck_assert(t.g_idx_trivial);
                ck_assert_ptr_null(t.bias);
                EXPECT_OK(load(&layer, 0, 0, &t, &err));
            }
    release();
}
END_TEST

/* The zero words come out as stored; symmetric is what means 2^(bits-1) in the convention. */
START_TEST(zero_codes_are_reported_not_changed)
{
    static const struct {
        uint32_t bits;
        ferrum_zero_convention_t convention;
        uint32_t word;
        bool symmetric;
    } cases[] = {
        {4, FERRUM_ZERO_STORED_MINUS_ONE, 0x77777777, true},
        {4, FERRUM_ZERO_STORED_MINUS_ONE, 0x88888888, false},
        {4, FERRUM_ZERO_STORED, 0x88888888, true},
        {4, FERRUM_ZERO_STORED, 0x77777777, false},
        {4, FERRUM_ZERO_STORED, 0x88888878, false},
        {8, FERRUM_ZERO_STORED_MINUS_ONE, 0x7f7f7f7f, true},
        {8, FERRUM_ZERO_STORED_MINUS_ONE, 0x77777777, false},
        {8, FERRUM_ZERO_STORED, 0x80808080, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ferrum_gptq_tensors_t t;
        layer_t layer = {.bits = cases[i].bits,
                         .group_size = GROUP,
                         .convention = cases[i].convention,
                         .zero_word = cases[i].word};
        EXPECT_OK(load(&layer, K, N, &t, &err));
        ck_assert_int_eq(t.zeros_symmetric, cases[i].symmetric);
        ck_assert_uint_eq(t.zero_convention, cases[i].convention);
        ck_assert_uint_eq((uint32_t)t.qzeros[0], cases[i].word);
    }
    release();
}
END_TEST

START_TEST(act_order_is_recognised)
{
    int32_t g_idx[K];
    ferrum_gptq_tensors_t t;
    layer_t layer = sound;
    layer.g_idx = g_idx;
    layer.g_idx_count = K;
    for (int r = 0; r < K; r++)
        g_idx[r] = r / GROUP;
    EXPECT_OK(load(&layer, K, N, &t, &err));
    ck_assert_ptr_nonnull(t.g_idx);
    ck_assert(t.g_idx_trivial);
    /* Groups need not be full. */
    g_idx[0] = 1;
    for (int desc_act = 0; desc_act < 2; desc_act++) {
        layer.desc_act = desc_act;
        EXPECT_OK(load(&layer, K, N, &t, &err));
        ck_assert(!t.g_idx_trivial);
        ck_assert_int_eq(t.g_idx[0], 1);
    }
    g_idx[7] = K / GROUP;
    EXPECT_FAILS(load(&layer, K, N, &t, &err), FERRUM_CORRUPT, "row 7 names group 2 of 2");
    g_idx[7] = -1;
    EXPECT_FAILS(load(&layer, K, N, &t, &err), FERRUM_CORRUPT, "group -1");
    layer.g_idx_count = K - 1;
    EXPECT_FAILS(load(&layer, K, N, &t, &err), FERRUM_CORRUPT, "shape [64]");
    layer.g_idx = NULL;
    layer.desc_act = true;
    EXPECT_FAILS(load(&layer, K, N, &t, &err), FERRUM_NOT_FOUND, "m.0.g_idx is missing");
    release();
}
END_TEST

START_TEST(refusals)
{
    static const char *const parts[] = {"qweight", "scales", "qzeros"};
    ferrum_gptq_tensors_t t;
    for (int i = 0; i < 3; i++) {
        layer_t layer = sound;
        layer.left_out = parts[i];
        EXPECT_FAILS(load(&layer, K, N, &t, &err), FERRUM_NOT_FOUND, parts[i]);
    }
    layer_t layer = sound;
    EXPECT_FAILS(load(&layer, K + 8, N, &t, &err), FERRUM_INVALID_INPUT,
                 "K (input features) is 64, the model needs 72");
    EXPECT_FAILS(load(&layer, K, N + 8, &t, &err), FERRUM_INVALID_INPUT,
                 "N (output features) is 16, the model needs 24");
    layer.config_group_size = 48;
    EXPECT_FAILS(load(&layer, K, N, &t, &err), FERRUM_INVALID_INPUT,
                 "group size 48 does not divide K = 64");
    layer.config_group_size = 128;
    EXPECT_FAILS(load(&layer, K, N, &t, &err), FERRUM_INVALID_INPUT,
                 "group size 128 does not divide K = 64");
    layer.config_group_size = 16;
    EXPECT_FAILS(load(&layer, K, N, &t, &err), FERRUM_CORRUPT, "[4, 16]");
    layer.config_group_size = UINT32_MAX;
    EXPECT_FAILS(load(&layer, K, N, &t, &err), FERRUM_CORRUPT, "[1, 16]");
    layer = sound;
    layer.scales_dtype = "F64";
    EXPECT_FAILS(load(&layer, K, N, &t, &err), FERRUM_CORRUPT, "m.0.scales has dtype F64");
    layer.scales_dtype = "I16";
    EXPECT_FAILS(load(&layer, K, N, &t, &err), FERRUM_CORRUPT, "m.0.scales has dtype I16");
    layer = sound;
    layer.scale_rows = 3;
    EXPECT_FAILS(load(&layer, K, N, &t, &err), FERRUM_CORRUPT, "m.0.scales");
    layer = sound;
    layer.zero_columns = 3;
    EXPECT_FAILS(load(&layer, K, N, &t, &err), FERRUM_CORRUPT, "m.0.qzeros");
    layer = sound;
    layer.qweight_dtype = "U32";
    EXPECT_FAILS(load(&layer, K, N, &t, &err), FERRUM_CORRUPT, "m.0.qweight has dtype U32");
    layer = sound;
    layer.bias_count = N - 1;
    EXPECT_FAILS(load(&layer, K, N, &t, &err), FERRUM_CORRUPT, "m.0.bias");
    layer.bias_count = N;
    EXPECT_OK(load(&layer, K, N, &t, &err));
    ck_assert_uint_eq(t.bias_dtype, FERRUM_DTYPE_F16);
    ck_assert_ptr_nonnull(t.bias);
    ferrum_gptq_config_t three_bits = {.present = true, .bits = 3};
    EXPECT_FAILS(ferrum_gptq_checkpoint_load(checkpoint, &three_bits, "m.0", K, N, &t, &err),
                 FERRUM_UNSUPPORTED, "3 bits");
    release();
}
END_TEST

/* Data that a careless writer put at an odd offset. */
START_TEST(unaligned_data_is_refused)
{
    static const char header[] =
        "{\"m.0.qweight\":{\"dtype\":\"I32\",\"shape\":[1,8],\"data_offsets\":[2,34]}}    ";
    static const uint8_t data[40];
    ferrum_gptq_config_t config = {.present = true, .bits = 4};
    ferrum_gptq_tensors_t t;
    size_t bytes;
    release();
    ferrum_safetensors_assemble(header, data, sizeof data, &file_data, &bytes);
    EXPECT_OK(ferrum_safetensors_open_memory(file_data, bytes, "odd", &checkpoint, &err));
    EXPECT_FAILS(ferrum_gptq_checkpoint_load(checkpoint, &config, "m.0", 0, 0, &t, &err),
                 FERRUM_UNSUPPORTED, "not aligned to 4");
    release();
}
END_TEST

/* Models written by other software: each expert projection of each layer is sound. */
START_TEST(loads_real_checkpoints)
{
    static const char *const models[] = {"models/tiny-qwen3moe-gptq", "tests/golden/rand_gptq",
                                         "tests/golden/rand_gptq_sharded",
                                         "tests/golden/rand_gptq_v2"};
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        ferrum_test_path_t path;
        ferrum_model_config_t config;
        ferrum_safetensors_t *st;
        ferrum_test_source_path(models[m], path);
        EXPECT_OK(ferrum_model_config_from_directory(path, &config, &err));
        EXPECT_OK(ferrum_safetensors_open(path, &st, &err));
        for (uint32_t i = 0; i < config.layers; i++)
            for (uint32_t e = 0; e < config.experts; e++) {
                ferrum_gptq_tensors_t t;
                char prefix[96];
                (void)snprintf(prefix, sizeof prefix, "model.layers.%u.mlp.experts.%u.down_proj", i,
                               e);
                EXPECT_OK(ferrum_gptq_checkpoint_load(
                    st, &config.gptq, prefix, config.expert_intermediate, config.hidden, &t, &err));
            }
        ferrum_safetensors_close(st);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gptq checkpoint");
    TCase *tests = tcase_create("layers");
    tcase_add_test(tests, loads_every_kind);
    tcase_add_test(tests, zero_codes_are_reported_not_changed);
    tcase_add_test(tests, act_order_is_recognised);
    tcase_add_test(tests, refusals);
    tcase_add_test(tests, unaligned_data_is_refused);
    tcase_add_test(tests, loads_real_checkpoints);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
