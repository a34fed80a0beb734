/* SPDX-License-Identifier: MIT */
/*
 * The kernels over tiled 4-bit weights (w4.cu) against sums in double over the same codes, and
 * against each other: a row has the same bits whatever the
 * tile, and whatever address it lies at.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/moe_args.h"
#include "tests/cuda/w4_cases.h"
#include "tests/cuda_emu/fixture.h"

static const w4_shape_t shapes[] = {
    {16, 128, 32, false, false, false}, {80, 192, 64, true, false, false},
    {40, 448, 64, false, true, false},  {64, 256, 128, true, true, false},
    {24, 200, 0, false, false, false},  {16, 8, 0, true, true, false},
    {80, 192, 64, false, false, true},  {24, 160, 32, true, true, true},
    {16, 256, 128, false, true, true},
};

#define W4(rows, outputs)                                                                          \
    {                                                                                              \
        "w4", rows, outputs, outputs, 128, FERRUM_W4_SHARED_BYTES(rows, false),                    \
            FERRUM_W4_SHARED_BYTES(rows, true)                                                     \
    }
static const w4_kernel_t kernels[] = {W4(1, 16),  W4(8, 64),  W4(16, 64),
                                      W4(32, 64), W4(64, 64), W4(16, 64)};

static void check_shape(const w4_shape_t *shape, bool gate_up)
{
    enum {
        TOKENS = 40,
        LAUNCHES = sizeof kernels / sizeof kernels[0]
    };
    static unsigned char out[LAUNCHES][W4_MAX_BYTES];
    static w4_case_t c;

    w4_case_make(&c, shape, TOKENS, gate_up);
    for (size_t i = 0; i < LAUNCHES; i++) {
        w4_case_run(&c, &kernels[i], i + 1 == LAUNCHES, out[i]);
        ck_assert_msg(memcmp(out[i], out[0], c.out_bytes) == 0,
                      "launch %zu, tiles of %u rows, gives other bits than single rows (n %u, "
                      "k %u, group %u)",
                      i, kernels[i].rows, shape->n, shape->k, shape->group);
    }
    w4_case_check(&c, out[0]);
    w4_case_free(&c);
}

START_TEST(products)
{
    check_shape(&shapes[_i], false);
}
END_TEST

START_TEST(gate_and_up)
{
    check_shape(&shapes[_i], true);
}
END_TEST

int main(void)
{
    const char *build = getenv("FERRUM_TEST_BUILDDIR");
    char driver[1024];

    snprintf(driver, sizeof driver, "%s/tests/cuda_emu/.libs/libcuda-emu.so", build ? build : ".");
    setenv("FERRUM_CUDA_DRIVER", driver, 0);
    if (!fixture_open())
        return 1;
    Suite *suite = suite_create("w4");
    TCase *test = tcase_create("w4");
    tcase_set_timeout(test, 120);
    tcase_add_checked_fixture(test, fixture_begin, fixture_end);
    tcase_add_loop_test(test, products, 0, sizeof shapes / sizeof shapes[0]);
    tcase_add_loop_test(test, gate_and_up, 0, sizeof shapes / sizeof shapes[0]);
    suite_add_tcase(suite, test);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
