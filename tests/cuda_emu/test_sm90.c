/* SPDX-License-Identifier: MIT */
/*
 * The wrappers of sm_90a against the PTX ISA manual's pictures of operands, sums and swizzled
 * matrices, and against plain sums. With a driver other than the emulated one they need a device of
 * compute capability 9.0.
 */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda_emu/fixture.h"
#include "tests/cuda_emu/product_sm90.h"

/* Where the 16-byte parts of 8 rows of 128 bytes lie, swizzled by 128 bytes: the manual's picture.
 */
static const uint8_t swizzled[8][8] = {
    {0, 1, 2, 3, 4, 5, 6, 7}, {1, 0, 3, 2, 5, 4, 7, 6}, {2, 3, 0, 1, 6, 7, 4, 5},
    {3, 2, 1, 0, 7, 6, 5, 4}, {4, 5, 6, 7, 0, 1, 2, 3}, {5, 4, 7, 6, 1, 0, 3, 2},
    {6, 7, 4, 5, 2, 3, 0, 1}, {7, 6, 5, 4, 3, 2, 1, 0},
};

static const struct {
    const char *kernel;
    uint32_t n;
    bool bfloat;
} products[] = {{"wrap_wgmma_64_f16", 64, false},
                {"wrap_wgmma_64_bf16", 64, true},
                {"wrap_wgmma_128_f16", 128, false},
                {"wrap_wgmma_128_bf16", 128, true}};

static double value_of(uint16_t bits, bool bfloat)
{
    return bfloat ? fixture_bf16_value(bits) : fixture_f16_value(bits);
}

static uint16_t small(bool bfloat)
{
    return (uint16_t)((bfloat ? 0x3c00u : 0x3400u) | (fixture_random() & 0x83ffu));
}

/* Each kind, at each 16 of the 64 columns, adding to sums or not. */
START_TEST(wgmma)
{
    static uint16_t a[64][16], b[128][64], words[128][4][2], image[128][8][8];
    static float before[128 * 64], after[128 * 64];
    const uint32_t n = products[_i / 8].n;
    const bool bfloat = products[_i / 8].bfloat;
    uint32_t part = (uint32_t)_i / 2 % 4, accumulate = (uint32_t)_i % 2;

    for (uint32_t row = 0; row < 64; row++)
        for (uint32_t k = 0; k < 16; k++) {
            uint32_t lane, word;
            a[row][k] = small(bfloat);
            product_sm90_a_place(row % 16, k / 2, &lane, &word);
            words[row / 16 * 32 + lane][word][k % 2] = a[row][k];
        }
    for (uint32_t row = 0; row < n; row++)
        for (uint32_t k = 0; k < 64; k++) {
            b[row][k] = small(bfloat);
            image[row][swizzled[row % 8][k / 8]][k % 8] = b[row][k];
        }
    for (uint32_t i = 0; i < 64 * n; i++)
        before[i] = (float)(int)(fixture_random() % 64) / 64.0f;
    CUdeviceptr da = fixture_upload(words, sizeof words), db = fixture_upload(image, n * 128);
    CUdeviceptr dd = fixture_upload(before, 64 * n * 4);
    fixture_launch(products[_i / 8].kernel, 1, 128, 1024 + n * 128,
                   (void *[]){&da, &db, &dd, &part, &accumulate});
    fixture_download(after, dd, 64 * n * 4);
    for (uint32_t row = 0; row < 64; row++)
        for (uint32_t column = 0; column < n; column++) {
            uint32_t thread, place;
            product_sm90_d_place(row, column, &thread, &place);
            const size_t at = (size_t)thread * n / 2 + place;
            double sum = accumulate ? (double)before[at] : 0, scale = fabs(sum);
            for (uint32_t k = 0; k < 16; k++) {
                const double term =
                    value_of(a[row][k], bfloat) * value_of(b[column][part * 16 + k], bfloat);
                sum += term;
                scale += fabs(term);
            }
            if (!(fabs((double)after[at] - sum) <= scale * 0x1p-20))
                ck_abort_msg("row %u, column %u: %g instead of %g", row, column, (double)after[at],
                             sum);
        }
    fixture_free(da);
    fixture_free(db);
    fixture_free(dd);
}
END_TEST

/* Copies through two places, for several phases. */
START_TEST(barriers)
{
    uint32_t in[9 * 64], out[2 * 64], count = (uint32_t)_i;

    for (size_t i = 0; i < sizeof in / sizeof in[0]; i++)
        in[i] = fixture_random();
    CUdeviceptr din = fixture_upload(in, sizeof in), dout = fixture_upload(out, sizeof out);
    fixture_launch("wrap_mbarrier", 2, 96, 128 + 512, (void *[]){&din, &dout, &count});
    fixture_download(out, dout, sizeof out);
    for (uint32_t thread = 0; thread < 2 * 64; thread++) {
        uint32_t sum = 0;
        for (uint32_t i = 0; i < count; i++)
            sum = sum * 3 + in[i * 64 + (thread % 64 ^ 1)];
        ck_assert_uint_eq(out[thread], sum);
    }
    fixture_free(din);
    fixture_free(dout);
}
END_TEST

START_TEST(pipeline)
{
    ck_assert_double_le(product_sm90_error(0), 1e-6);
}
END_TEST

/* Copies and products run early, late, and at either time, threads in any order. */
START_TEST(schedules)
{
    char seed[16];

    if (cu.set == NULL)
        return;
    snprintf(seed, sizeof seed, "%d", _i);
    ck_assert_int_eq(cu.set("COPIES", _i == 0 ? "eager" : _i == 1 ? "lazy" : "random"), 0);
    ck_assert_int_eq(cu.set("SEED", seed), 0);
    ck_assert_double_le(product_sm90_error(0), 1e-6);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cuda_emu sm90");
    TCase *tcase = tcase_create("sm90");

    setenv("FERRUM_TEST_CUDA_EMU_SM", "90", 1);
    if (!fixture_open())
        return 77;
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, fixture_begin, fixture_end);
    tcase_add_loop_test(tcase, wgmma, 0, 8 * (int)(sizeof products / sizeof products[0]));
    tcase_add_loop_test(tcase, barriers, 1, 10);
    tcase_add_test(tcase, pipeline);
    tcase_add_loop_test(tcase, schedules, 0, 6);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
