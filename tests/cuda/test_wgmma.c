/* SPDX-License-Identifier: MIT */
/*
 * The warpgroup kernels over tiled 4-bit weights (w4_wgmma.cu): many rows for some experts, none
 * for others, lists that end within a tile, outputs and inputs that end within a tile row; against
 * sums in double, and against w4.cu, whose bits they have on the emulated driver. On a GPU, which
 * must be of compute capability 9.0, that comparison is the measurement that w4_wgmma.cu speaks of.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/moe_args.h"
#include "tests/cuda/w4_cases.h"
#include "tests/cuda_emu/fixture.h"

/* More steps than stages; groups that end with a quarter and within it. */
static const w4_shape_t shapes[] = {
    {144, 128, 32, false, false, false}, {80, 192, 64, true, false, false},
    {40, 448, 64, false, true, false},   {64, 256, 128, true, true, false},
    {136, 200, 0, false, false, false},  {16, 8, 0, true, true, false},
    {24, 416, 32, true, true, false},    {72, 384, 128, false, false, false},
    {80, 192, 64, false, false, true},   {24, 160, 32, true, true, true},
};

#define W4_WGMMA(rows)                                                                             \
    {                                                                                              \
        "w4_wgmma", rows, 128, 64, 384, FERRUM_W4_WGMMA_SHARED_BYTES(rows),                        \
            FERRUM_W4_WGMMA_SHARED_BYTES(rows)                                                     \
    }
static const w4_kernel_t kernels[] = {
    {"w4", 64, 64, 64, 128, FERRUM_W4_SHARED_BYTES(64, false), FERRUM_W4_SHARED_BYTES(64, true)},
    W4_WGMMA(64),
    W4_WGMMA(128),
    W4_WGMMA(128),
};

static void check_shape(const w4_shape_t *shape, uint32_t tokens, bool gate_up)
{
    enum {
        LAUNCHES = sizeof kernels / sizeof kernels[0]
    };
    static unsigned char out[LAUNCHES][W4_MAX_BYTES];
    static w4_case_t c;

    w4_case_make(&c, shape, tokens, gate_up);
    for (size_t i = 0; i < LAUNCHES; i++) {
        w4_case_run(&c, &kernels[i], i + 1 == LAUNCHES, out[i]);
        w4_case_check(&c, out[i]);
        ck_assert_msg(memcmp(out[i], out[0], c.out_bytes) == 0,
                      "%s_%u gives other bits than mma.sync (n %u, k %u, group %u)",
                      kernels[i].family, kernels[i].rows, shape->n, shape->k, shape->group);
    }
    w4_case_free(&c);
}

START_TEST(products)
{
    check_shape(&shapes[_i], _i % 2 ? 40 : W4_MAX_TOKENS, false);
}
END_TEST

START_TEST(gate_and_up)
{
    check_shape(&shapes[_i], _i % 2 ? W4_MAX_TOKENS : 40, true);
}
END_TEST

/* For races.sh: little work, under options from the environment. */
START_TEST(small)
{
    static const w4_shape_t shape = {16, 448, 64, false, false, false};

    check_shape(&shape, 4, false);
}
END_TEST

int main(void)
{
    const char *build = getenv("FERRUM_TEST_BUILDDIR");
    char driver[1024];

    snprintf(driver, sizeof driver, "%s/tests/cuda_emu/.libs/libcuda-emu.so", build ? build : ".");
    setenv("FERRUM_CUDA_DRIVER", driver, 0);
    setenv("FERRUM_TEST_CUDA_EMU_SM", "90", 1);
    if (!fixture_open())
        return 1;
    Suite *suite = suite_create("wgmma");
    TCase *test = tcase_create("wgmma"), *races = tcase_create("small");
    const int count = sizeof shapes / sizeof shapes[0];
    tcase_set_timeout(test, 120);
    tcase_set_timeout(races, 300);
    tcase_add_checked_fixture(test, fixture_begin, fixture_end);
    tcase_add_checked_fixture(races, fixture_begin, fixture_end);
    tcase_add_loop_test(test, products, 0, count);
    tcase_add_loop_test(test, gate_and_up, 0, count);
    tcase_add_test(races, small);
    suite_add_tcase(suite, test);
    suite_add_tcase(suite, races);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
