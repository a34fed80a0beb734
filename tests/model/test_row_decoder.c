/* SPDX-License-Identifier: MIT */
/* Rows of embeddings, against blocks that the gguf package decoded, and tables of rotation. */
#include <check.h>
#include <ferrum/util.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/model/rope.h"
#include "host/model/row_decoder.h"
#include "tests/support/files.h"

enum {
    GOLDEN_BLOCKS = 24
};

static const struct {
    ferrum_weight_format_t format;
    uint32_t values; /* of one golden block */
} formats[] = {
    {FERRUM_FORMAT_F16, 32},   {FERRUM_FORMAT_BF16, 32},  {FERRUM_FORMAT_Q4_0, 32},
    {FERRUM_FORMAT_Q4_1, 32},  {FERRUM_FORMAT_Q5_0, 32},  {FERRUM_FORMAT_Q5_1, 32},
    {FERRUM_FORMAT_Q8_0, 32},  {FERRUM_FORMAT_Q2_K, 256}, {FERRUM_FORMAT_Q3_K, 256},
    {FERRUM_FORMAT_Q4_K, 256}, {FERRUM_FORMAT_Q5_K, 256}, {FERRUM_FORMAT_Q6_K, 256},
};

static void *golden(const char *kind, const char *type, size_t *out_bytes)
{
    ferrum_test_path_t path;
    char name[64];
    (void)snprintf(name, sizeof name, "tests/golden/%s_%s.bin", kind, type);
    ferrum_test_source_path(name, path);
    void *data = ferrum_test_read_file(path, out_bytes);
    ck_assert_msg(data != NULL, "%s is missing", path);
    return data;
}

START_TEST(rows_match_the_gguf_package)
{
    ferrum_weight_format_t format = formats[_i].format;
    const ferrum_format_traits_t *traits = ferrum_format_traits(format);
    uint32_t values = formats[_i].values;
    size_t block_bytes, value_bytes;
    uint8_t *blocks = golden("blocks", traits->name, &block_bytes);
    float *expected = golden("values", traits->name, &value_bytes);
    ck_assert_uint_eq(value_bytes, (size_t)GOLDEN_BLOCKS * values * sizeof(float));
    ck_assert(ferrum_row_decodable(format));

    /* Three rows of eight blocks each, at an odd address. */
    uint32_t cols = values * 8;
    uint8_t *moved = malloc(block_bytes + 1);
    float *row = malloc((cols + 1) * sizeof *row);
    memcpy(moved + 1, blocks, block_bytes);
    for (uint64_t r = 3; r-- > 0;) {
        row[cols] = 77.0f;
        ferrum_row_decode(format, moved + 1, r, cols, row);
        for (uint32_t i = 0; i < cols; i++) {
            float want = expected[r * cols + i];
            ck_assert_msg(row[i] == want, "%s row %d value %u: %g, not %g", traits->name, (int)r, i,
                          (double)row[i], (double)want);
        }
        ck_assert(row[cols] == 77.0f);
    }
    free(row);
    free(moved);
    free(expected);
    free(blocks);
}
END_TEST

START_TEST(plain_values)
{
    const uint16_t half[4] = {0x3C00, 0xC000, 0x0001, 0x7C00};
    const uint16_t brain[2] = {0x3F80, 0xC040};
    const float plain[2] = {1.5f, -2.25f};
    float out[4];
    ck_assert(ferrum_values_to_f32(FERRUM_DTYPE_F16, half, 4, out));
    ck_assert(out[0] == 1.0f && out[1] == -2.0f && out[2] == 0x1p-24f && isinf(out[3]));
    ck_assert(ferrum_values_to_f32(FERRUM_DTYPE_BF16, brain, 2, out));
    ck_assert(out[0] == 1.0f && out[1] == -3.0f);
    ck_assert(ferrum_values_to_f32(FERRUM_DTYPE_F32, plain, 2, out));
    ck_assert(out[0] == 1.5f && out[1] == -2.25f);
    ck_assert(!ferrum_values_to_f32(FERRUM_DTYPE_I32, plain, 1, out));
    ck_assert(!ferrum_row_decodable(FERRUM_FORMAT_MXFP4));
    ck_assert(!ferrum_row_decodable(FERRUM_FORMAT_GPTQ));
}
END_TEST

START_TEST(rotation)
{
    enum {
        POSITIONS = 40,
        HEAD = 16
    };
    float cosines[POSITIONS * HEAD / 2], sines[POSITIONS * HEAD / 2];
    ferrum_rope_fill(POSITIONS, HEAD, 1e6, cosines, sines);
    for (int p = 0; p < POSITIONS; p++) {
        for (int i = 0; i < HEAD / 2; i++) {
            long double angle = (long double)p / powl(1e6L, (long double)(2 * i) / HEAD);
            ck_assert(fabsl((long double)cosines[p * HEAD / 2 + i] - cosl(angle)) < 6e-8L);
            ck_assert(fabsl((long double)sines[p * HEAD / 2 + i] - sinl(angle)) < 6e-8L);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("row_decoder");
    TCase *tests = tcase_create("all");
    tcase_add_loop_test(tests, rows_match_the_gguf_package, 0,
                        (int)(sizeof formats / sizeof formats[0]));
    tcase_add_test(tests, plain_values);
    tcase_add_test(tests, rotation);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
