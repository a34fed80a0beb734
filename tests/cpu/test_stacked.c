/* SPDX-License-Identifier: MIT */
/* StackedExperts by expert id: offsets, strides, broadcasts, skipped and bad ids. */
#include "tests/cpu/layer.h"

#include <stdlib.h>

START_TEST(gemv_by_expert_id)
{
    cpu_fixture_t f;
    cpu_open_config(&f, _i);
    test_blocks_t w = test_blocks_new(FERRUM_FORMAT_Q5_K, E, 70, H, 1);
    ferrum_stacked_experts_t *stack = NULL;
    EXPECT_OK(QL->load_quant_experts(f.device, &w.desc, &stack, &err));
    const ferrum_stacked_experts_ops_t *ops = QL->stacked_experts;
    ferrum_expert_stack_info_t info = {.head = FERRUM_HEAD(ferrum_expert_stack_info_t)};
    EXPECT_OK(ops->info(stack, &info, &err));
    ck_assert(info.num_experts == E && info.n == 70 && info.k == H && !info.requires_vllm);
    ck_assert_uint_eq(info.bytes, w.desc.bytes);

    ferrum_buffer_t *a = cpu_random_f32(&f, 2, 1 + P * H), *ids = layer_ids(&f);
    ferrum_buffer_t *out = cpu_output(&f, 2 + P * 70);
    double *wanted = malloc(P * 70 * sizeof *wanted);
    /* stride H from offset 1, ids from 4, output from 2 */
    EXPECT_OK(ops->gemv_moe_id(f.ctx, stack, a, 1, ids, 4, out, 2, P - 4, H, &err));
    for (int p = 4; p < P; p++) {
        const float *row = cpu_floats(out) + 2 + (p - 4) * 70;
        if (layer_id(p) < 0) {
            ck_assert_int_eq(cpu_ints(out)[2 + (p - 4) * 70], 0x4b1d4b1d);
            continue;
        }
        test_product(w.values + layer_id(p) * 70 * H, 70, H, cpu_floats(a) + 1 + (p - 4) * H, NULL,
                     wanted);
        cpu_check_rows(row, wanted, 1, 70, f.tolerance);
    }
    cpu_check_guard(out, 2 + P * 70);
    /* stride 0 broadcasts */
    EXPECT_OK(ops->gemv_moe_id(f.ctx, stack, a, 0, ids, 0, out, 0, 2, 0, &err));
    test_product(w.values + layer_id(1) * 70 * H, 70, H, cpu_floats(a), NULL, wanted);
    cpu_check_rows(cpu_floats(out) + 70, wanted, 1, 70, f.tolerance);
    /* one row per token, and one per pair */
    for (uint64_t inner = 0; inner <= H; inner += H) {
        EXPECT_OK(ops->gemv_moe_id_batched(f.ctx, stack, a, ids, out, T, K, inner ? K * H : H,
                                           inner, &err));
        for (int p = 0; p < P; p++) {
            if (layer_id(p) < 0)
                continue;
            test_product(w.values + layer_id(p) * 70 * H, 70, H,
                         cpu_floats(a) + (inner ? p : p / K) * H, NULL, wanted);
            cpu_check_rows(cpu_floats(out) + p * 70, wanted, 1, 70, f.tolerance);
        }
    }
    ferrum_buffer_t *clean = cpu_output(&f, P * 70);
    EXPECT_FAILS(ops->gemv_moe_id_batched(f.ctx, stack, a, ids, clean, T, K, K * H, H + 1, &err),
                 FERRUM_INVALID_ARGUMENT, "a has");
    EXPECT_FAILS(ops->gemv_moe_id_batched(f.ctx, stack, a, ids, clean, T, K, UINT64_MAX, 0, &err),
                 FERRUM_INVALID_ARGUMENT, "overflows");
    cpu_ints(ids)[8] = E;
    EXPECT_FAILS(ops->gemv_moe_id_batched(f.ctx, stack, a, ids, clean, T, K, H, 0, &err),
                 FERRUM_INVALID_INPUT, "ids[8] is 6");
    cpu_ints(ids)[8] = -2;
    EXPECT_FAILS(ops->gemv_moe_id_batched(f.ctx, stack, a, ids, clean, T, K, H, 0, &err),
                 FERRUM_INVALID_INPUT, "-2");
    cpu_check_untouched(clean, P * 70);
    free(wanted);
    ops->retain(stack);
    ops->release(stack);
    ops->release(stack);
    cpu_release(a, ids, out, clean, NULL);
    test_blocks_free(&w);
    cpu_close(&f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu stacked experts");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, gemv_by_expert_id, 0, CPU_CONFIGS);
    suite_add_tcase(suite, tc);
    return expect_run(suite);
}
