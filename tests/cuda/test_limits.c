/* SPDX-License-Identifier: MIT */
/* What the device reaches: measured, without a trace, and refused where it cannot be. */
#include "tests/cuda/fixture.h"

#include <ferrum/limits.h>

static const ferrum_limits_ops_t *limits_of(void)
{
    const ferrum_limits_ops_t *ops = cuda.plugin.get_interface(FERRUM_INTERFACE_LIMITS, 0);

    ck_assert(ops != NULL && ops->head.size >= FERRUM_LIMITS_OPS_MIN_SIZE && ops->measure != NULL);
    return ops;
}

START_TEST(measured_without_a_trace)
{
    ferrum_limits_t limits = {.head = FERRUM_HEAD(ferrum_limits_t)};

    cuda_open();
    EXPECT_OK(limits_of()->measure(cuda.ctx, &limits, &err));
    ck_assert_uint_gt(limits.read_bytes, 1 << 20);
    ck_assert_double_gt(limits.read_gbps, 0);
    ck_assert_double_gt(limits.act_gops, 0);
    ck_assert_double_gt(limits.int8_gops, 0);
    ck_assert_str_eq(cuda.fault(), "");
    cuda_close();
}
END_TEST

START_TEST(refused_in_a_capture_and_without_memory)
{
    const ferrum_graph_key_t key = {1, 1};
    ferrum_limits_t limits = {.head = FERRUM_HEAD(ferrum_limits_t)};
    ferrum_limits_t small = {.head = {8, 0}};

    cuda_open();
    EXPECT_FAILS(limits_of()->measure(NULL, &limits, &err), FERRUM_INVALID_ARGUMENT, "ctx is NULL");
    EXPECT_FAILS(limits_of()->measure(cuda.ctx, &small, &err), FERRUM_INVALID_ARGUMENT,
                 "out_limits");
    EXPECT_OK(cuda.ql->graph_begin(cuda.ctx, &err));
    EXPECT_FAILS(limits_of()->measure(cuda.ctx, &limits, &err), FERRUM_BUSY, "capture");
    EXPECT_OK(cuda.ql->graph_end(cuda.ctx, &key, &err));
    cuda.set("FAIL", "cuMemAlloc_v2:0:2");
    EXPECT_FAILS(limits_of()->measure(cuda.ctx, &limits, &err), FERRUM_OUT_OF_MEMORY, "measuring");
    cuda.set("FAIL", "");
    cuda.set("FAIL", "cuLaunchKernel:3:701");
    EXPECT_FAILS(limits_of()->measure(cuda.ctx, &limits, &err), FERRUM_DEVICE_ERROR,
                 "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES");
    cuda.set("FAIL", "");
    ck_assert_double_eq(limits.read_gbps, 0);
    cuda_close();
}
END_TEST

int main(void)
{
    if (!cuda_built())
        return 77;
    Suite *suite = suite_create("cuda limits");
    TCase *tc = tcase_create("limits");

    tcase_add_test(tc, measured_without_a_trace);
    tcase_add_test(tc, refused_in_a_capture_and_without_memory);
    suite_add_tcase(suite, tc);
    return expect_run(suite);
}
