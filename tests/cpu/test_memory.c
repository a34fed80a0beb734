/* SPDX-License-Identifier: MIT */
/* What weights occupy once they are loaded: hardly more than in the file, and only once. Matrices
 * are those of Qwen3-30B-A3B; of its experts, two. */
#include "backends/cpu/matrix.h"
#include "tests/cpu/fixture.h"
#include "tests/cpu/weights.h"

#include <ferrum/util.h>

#include <stdlib.h>
#include <string.h>

enum {
    EXPERTS = 2,
    HIDDEN = 2048,
    INTERMEDIATE = 768,
    VIEW_BYTES = 4096 /* an object without weights is smaller */
};

#define MOST_PER_FILE_BYTE 1.03

static const ferrum_weight_format_t formats[] = {
    FERRUM_FORMAT_Q4_0, FERRUM_FORMAT_Q4_1, FERRUM_FORMAT_Q5_0,   FERRUM_FORMAT_Q5_1,
    FERRUM_FORMAT_Q8_0, FERRUM_FORMAT_Q2_K, FERRUM_FORMAT_Q3_K,   FERRUM_FORMAT_Q4_K,
    FERRUM_FORMAT_Q5_K, FERRUM_FORMAT_Q6_K, FERRUM_FORMAT_IQ4_NL, FERRUM_FORMAT_IQ4_XS,
    FERRUM_FORMAT_MXFP4};
enum {
    FORMATS = sizeof formats / sizeof formats[0]
};

/* Checkpoints store zero points, also symmetric ones. */
static const struct {
    uint32_t bits, group_size;
    bool act_order;
} gptq_kinds[] = {{4, 128, false}, {4, 32, false}, {4, 0, false},  {4, 128, true},
                  {8, 128, false}, {8, 32, false}, {8, 128, true}, {8, 0, true}};
enum {
    GPTQ_KINDS = sizeof gptq_kinds / sizeof gptq_kinds[0]
};

/* Weights of value zero: what they are does not matter here. */
typedef struct source {
    ferrum_gguf_weights_t blocks;
    ferrum_gptq_t gptq[EXPERTS];
    const ferrum_gptq_t *list[EXPERTS];
    void *memory;
    uint64_t bytes;
} source_t;

static void make_blocks(source_t *source, ferrum_weight_format_t format, uint32_t n, uint32_t k)
{
    const ferrum_format_traits_t *traits = ferrum_format_traits(format);
    const uint64_t blocks = (uint64_t)EXPERTS * n * k / traits->block_values;
    *source = (source_t){.bytes = blocks * traits->block_bytes};
    source->memory = calloc(blocks, traits->block_bytes);
    source->blocks = (ferrum_gguf_weights_t){.head = FERRUM_HEAD(ferrum_gguf_weights_t),
                                             .flags = FERRUM_WEIGHTS_MAPPED,
                                             .format = format,
                                             .experts = EXPERTS,
                                             .rows = n,
                                             .cols = k,
                                             .data = source->memory,
                                             .bytes = source->bytes};
}

static void make_gptq(source_t *source, int kind, uint32_t n, uint32_t k)
{
    const uint32_t bits = gptq_kinds[kind].bits, group = gptq_kinds[kind].group_size;
    const uint32_t groups = group ? k / group : 1;
    const uint64_t codes = (uint64_t)k * n * bits / 32, zeros = (uint64_t)groups * n * bits / 32;
    const uint64_t words = codes + zeros + (uint64_t)groups * n / 2 + k;
    int32_t *next = calloc(EXPERTS * words, sizeof *next);
    *source = (source_t){.memory = next, .bytes = EXPERTS * words * sizeof *next};
    for (int e = 0; e < EXPERTS; e++, next += words) {
        ferrum_gptq_t *gptq = &source->gptq[e];
        *gptq = (ferrum_gptq_t){.head = FERRUM_HEAD(ferrum_gptq_t),
                                .flags = FERRUM_WEIGHTS_MAPPED,
                                .bits = bits,
                                .group_size = group,
                                .k = k,
                                .n = n,
                                .qweight = next,
                                .qweight_count = codes,
                                .qzeros = next + codes,
                                .qzeros_count = zeros,
                                .scales = next + codes + zeros,
                                .scales_count = (uint64_t)groups * n,
                                .scales_dtype = FERRUM_DTYPE_F16,
                                .g_idx = next + words - k,
                                .g_idx_count = k};
        for (uint32_t i = 0; i < k; i++)
            next[words - k + i] =
                (int32_t)(gptq_kinds[kind].act_order ? i % groups : i / (k / groups));
        source->list[e] = gptq;
    }
}

static double per_byte(uint64_t held, uint64_t source_bytes)
{
    return (double)held / (double)source_bytes;
}

/* Memory that the host has given for an object, and what the object says of it. */
static void check_held(const cpu_fixture_t *f, uint64_t before, uint64_t said, uint64_t file_bytes)
{
    const uint64_t held = f->host.live_bytes - before;
    ck_assert_msg(per_byte(held, file_bytes) <= MOST_PER_FILE_BYTE, "%.4f bytes per byte of a file",
                  per_byte(held, file_bytes));
    ck_assert_uint_le(said, held);
    ck_assert_uint_le(held, said + VIEW_BYTES);
}

static void check_ffn(cpu_fixture_t *f, source_t roles[3], bool gptq)
{
    ferrum_expert_weights_t weights[3];
    ferrum_expert_ffn_t *ffn = NULL;
    ferrum_expert_ffn_info_t info = {.head = FERRUM_HEAD(ferrum_expert_ffn_info_t)};
    const uint64_t before = f->host.live_bytes;
    for (int role = 0; role < 3; role++)
        weights[role] = (ferrum_expert_weights_t){.head = FERRUM_HEAD(ferrum_expert_weights_t),
                                                  .gguf = gptq ? NULL : &roles[role].blocks,
                                                  .gptq = gptq ? roles[role].list : NULL};
    const ferrum_expert_ffn_desc_t desc = {.head = FERRUM_HEAD(ferrum_expert_ffn_desc_t),
                                           .hidden = HIDDEN,
                                           .intermediate = INTERMEDIATE,
                                           .num_experts = EXPERTS,
                                           .gate = &weights[0],
                                           .up = &weights[1],
                                           .down = &weights[2]};
    EXPECT_OK(MF->expert_ffn_create(f->device, &desc, &ffn, &err));
    EXPECT_OK(MF->expert_ffn_info(ffn, &info, &err));
    ck_assert_uint_eq(info.source_bytes, roles[0].bytes + roles[1].bytes + roles[2].bytes);
    check_held(f, before, info.bytes, info.source_bytes);
    MF->expert_ffn_release(ffn);
    ck_assert_uint_eq(f->host.live_bytes, before);
}

static void check_stack(cpu_fixture_t *f, const source_t *source)
{
    ferrum_stacked_experts_t *stack = NULL;
    ferrum_expert_stack_info_t info = {.head = FERRUM_HEAD(ferrum_expert_stack_info_t)};
    const uint64_t before = f->host.live_bytes;
    EXPECT_OK(QL->load_quant_experts(f->device, &source->blocks, &stack, &err));
    EXPECT_OK(QL->stacked_experts->info(stack, &info, &err));
    check_held(f, before, info.bytes, source->bytes);
    QL->stacked_experts->release(stack);
}

static void check_linear(cpu_fixture_t *f, const source_t *source, bool gptq)
{
    ferrum_linear_t *linear = NULL;
    ferrum_linear_info_t info = {.head = FERRUM_HEAD(ferrum_linear_info_t)};
    ferrum_gguf_weights_t one = source->blocks;
    const uint64_t before = f->host.live_bytes;
    one.experts = 1;
    one.bytes /= EXPERTS;
    if (gptq)
        EXPECT_OK(QL->load_gptq(f->device, source->list[0], &linear, &err));
    else
        EXPECT_OK(QL->load_quant(f->device, &one, NULL, &linear, &err));
    EXPECT_OK(QL->linear->info(linear, &info, &err));
    check_held(f, before, info.bytes, source->bytes / EXPERTS);
    QL->linear->release(linear);
}

/* A view multiplies with the stack's weights: it holds none. */
static void check_views(cpu_fixture_t *f, const source_t *source)
{
    ferrum_marlin_stack_t *stack = NULL;
    ferrum_linear_t *views[EXPERTS];
    ferrum_expert_stack_info_t info = {.head = FERRUM_HEAD(ferrum_expert_stack_info_t)};
    uint64_t before = f->host.live_bytes;
    EXPECT_OK(QL->load_gptq_stacked(f->device, source->list, EXPERTS, &stack, &err));
    EXPECT_OK(QL->marlin_stack->info(stack, &info, &err));
    check_held(f, before, info.bytes, source->bytes);
    before = f->host.live_bytes;
    for (uint32_t e = 0; e < EXPERTS; e++)
        EXPECT_OK(QL->marlin_stack->make_expert_linear(stack, (uint64_t)e * INTERMEDIATE,
                                                       INTERMEDIATE, NULL, &views[e], &err));
    ck_assert_uint_le(f->host.live_bytes, before + (uint64_t)EXPERTS * VIEW_BYTES);
    for (uint32_t e = 0; e < EXPERTS; e++)
        QL->linear->release(views[e]);
    QL->marlin_stack->release(stack);
}

START_TEST(blocks_are_held_once)
{
    cpu_fixture_t f;
    source_t roles[3];
    cpu_open(&f, NULL, 1);
    for (int role = 0; role < 3; role++)
        make_blocks(&roles[role], formats[_i], role < 2 ? INTERMEDIATE : HIDDEN,
                    role < 2 ? HIDDEN : INTERMEDIATE);
    check_ffn(&f, roles, false);
    for (int role = 1; role < 3; role++) {
        check_stack(&f, &roles[role]);
        check_linear(&f, &roles[role], false);
    }
    for (int role = 0; role < 3; role++)
        free(roles[role].memory);
    cpu_close(&f);
}
END_TEST

START_TEST(gptq_is_held_once)
{
    cpu_fixture_t f;
    source_t roles[3];
    cpu_open(&f, NULL, 1);
    for (int role = 0; role < 3; role++)
        make_gptq(&roles[role], _i, role < 2 ? INTERMEDIATE : HIDDEN,
                  role < 2 ? HIDDEN : INTERMEDIATE);
    check_ffn(&f, roles, true);
    for (int role = 1; role < 3; role++) {
        if (role == 1)
            check_views(&f, &roles[role]);
        check_linear(&f, &roles[role], true);
    }
    for (int role = 0; role < 3; role++)
        free(roles[role].memory);
    cpu_close(&f);
}
END_TEST

/* ---- packing by several threads ---- */

enum {
    MANY = 8,
    WORKERS = 3
};

static test_executor_t *workers;

static void spread(void *self, ferrum_task_fn *fn, void *arg)
{
    const ferrum_executor_t *executor = test_executor_get(workers);
    (void)self;
    executor->run(executor->self, fn, arg);
}

static void fill(void *data, uint64_t bytes)
{
    uint64_t state = 11;
    for (uint64_t i = 0; i + 8 <= bytes; i += 8) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        memcpy((char *)data + i, &state, 8);
    }
}

static void load_many(const cpu_fixture_t *f, bool gptq, ferrum_cpu_weights_t *out_weights)
{
    static const test_gptq_shape_t shape = {
        .bits = 4, .group_size = 128, .k = HIDDEN, .n = INTERMEDIATE, .act_order = true};
    const ferrum_cpu_loading_t loading = {.precision = FERRUM_PACKED_ACCURATE};
    test_gptq_t matrices[MANY];
    const ferrum_gptq_t *list[MANY];
    if (!gptq) {
        source_t source;
        make_blocks(&source, FERRUM_FORMAT_Q4_K, INTERMEDIATE * MANY / EXPERTS, HIDDEN);
        fill(source.memory, source.bytes);
        EXPECT_OK(
            ferrum_cpu_weights_from_gguf(f->device, &source.blocks, &loading, out_weights, &err));
        free(source.memory);
        return;
    }
    for (uint32_t e = 0; e < MANY; e++) {
        matrices[e] = test_gptq_new(&shape, e / 2); /* some share an order, some do not */
        list[e] = &matrices[e].desc;
    }
    EXPECT_OK(ferrum_cpu_weights_from_gptq(f->device, list, MANY, &loading, out_weights, &err));
    for (uint32_t e = 0; e < MANY; e++)
        test_gptq_free(&matrices[e]);
}

START_TEST(threads_pack_the_same)
{
    ferrum_cpu_weights_t alone, together;
    cpu_fixture_t f;
    cpu_open(&f, NULL, 1);
    load_many(&f, _i != 0, &alone);
    workers = test_executor_new(WORKERS);
    f.host.host.spread = spread;
    load_many(&f, _i != 0, &together);
    if (f.device->packed)
        ck_assert_uint_eq(test_executor_regions(workers), 1);
    ck_assert_uint_eq(alone.data.bytes, together.data.bytes);
    ck_assert_mem_eq(alone.data.ptr, together.data.ptr, alone.data.bytes);
    ck_assert_uint_eq(alone.perms.bytes, together.perms.bytes);
    if (alone.perms.bytes > 0)
        ck_assert_mem_eq(alone.perms.ptr, together.perms.ptr, alone.perms.bytes);
    ck_assert(alone.permuted == together.permuted && alone.common_perm == together.common_perm);
    ferrum_cpu_weights_free(f.device, &alone);
    ferrum_cpu_weights_free(f.device, &together);
    test_executor_free(workers);
    cpu_close(&f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("memory");
    TCase *tcase = tcase_create("all");
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, blocks_are_held_once, 0, FORMATS);
    tcase_add_loop_test(tcase, threads_pack_the_same, 0, 2);
    tcase_add_loop_test(tcase, gptq_is_held_once, 0, GPTQ_KINDS);
    suite_add_tcase(suite, tcase);
    return expect_run(suite);
}
