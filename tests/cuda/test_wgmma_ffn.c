/* SPDX-License-Identifier: MIT */
/*
 * FERRUM_CUDA_WGMMA: who asks for the warpgroup kernels gets them where experts have many rows, and
 * only there; everybody else gets none; and a device that lacks them is refused.
 */
#include "tests/cuda/layers.h"

#include <stdlib.h>

enum {
    EXPERTS = 2,
    HIDDEN = 160,
    INTERMEDIATE = 96,
    TOP_K = 2,
    MOST_TOKENS = 130
};

static const char *choice;

static const char *option(void *self, const char *name)
{
    (void)self;
    return strcmp(name, "FERRUM_CUDA_WGMMA") == 0    ? choice
           : strcmp(name, "FERRUM_CUDA_DRIVER") == 0 ? cuda.driver
                                                     : NULL;
}

static void load(const char *wgmma, const char *capability)
{
    choice = wgmma;
    cuda_load();
    cuda.reset();
    ck_assert_int_eq(cuda.set("SM", capability), 0);
    cuda.host.host.option = option;
    cuda.act = FERRUM_DTYPE_F16;
}

/* The bits of a layer for so many tokens, and which kernels made them. */
static uint16_t *run_layer(const char *wgmma, uint32_t tokens, uint32_t rows)
{
    static const char *const kernels[][2] = {
        {"ferrum_w4_wgmma_gate_up_64_f16", "ferrum_w4_wgmma_64_f16"},
        {"ferrum_w4_wgmma_gate_up_128_f16", "ferrum_w4_wgmma_128_f16"}};
    const layer_shape_t shape = {true, EXPERTS, HIDDEN, INTERMEDIATE, TOP_K};
    const layer_gptq_t gptq = {.f16_scales = true};
    ferrum_expert_ffn_t *ffn;
    layer_call_t call;
    layer_t layer;

    load(wgmma, "90");
    EXPECT_OK(cuda.be->device_open(&cuda.host.host, NULL, &cuda.device, &err));
    EXPECT_OK(cuda.be->context_new(cuda.device, NULL, &cuda.ctx, &err));
    layer_make_gptq(&layer, &shape, &gptq);
    EXPECT_OK(cuda.mf->expert_ffn_create(cuda.device, &layer.desc, &ffn, &err));
    call_make(&call, &layer, tokens);
    call_fill(&call, &layer, 1, -1);
    ferrum_expert_ffn_args_t args = {.head = FERRUM_HEAD(ferrum_expert_ffn_args_t),
                                     .x = call.x,
                                     .ids = call.ids,
                                     .weights = call.weights,
                                     .out = call.out,
                                     .tokens = tokens,
                                     .top_k = TOP_K};
    EXPECT_OK(cuda.mf->expert_ffn_forward(cuda.ctx, ffn, &args, &err));
    EXPECT_OK(cuda.be->context_sync(cuda.ctx, &err));
    for (uint32_t i = 0; i < 2; i++)
        for (uint32_t j = 0; j < 2; j++)
            ck_assert_uint_eq(cuda.count(kernels[i][j]), (rows == 64u << i) ? 1u : 0u);
    ck_assert_double_le(call_error(&call, &layer), 2e-3);
    uint16_t *bits = call_read(&call, &layer);
    cuda.mf->expert_ffn_release(ffn);
    call_free(&call);
    layer_free(&layer);
    cuda_close();
    return bits;
}

/* 63, 64, 127 and 128 pairs per expert. */
START_TEST(chosen)
{
    static const struct {
        uint32_t tokens, rows;
    } cases[] = {{63, 0}, {64, 64}, {127, 64}, {128, 128}, {MOST_TOKENS, 128}};
    const uint32_t tokens = cases[_i].tokens;
    uint16_t *with = run_layer("1", tokens, cases[_i].rows);
    uint16_t *without = run_layer(_i % 2 ? "0" : NULL, tokens, 0);

    ck_assert_msg(memcmp(with, without, (size_t)tokens * HIDDEN * sizeof *with) == 0,
                  "the emulated sums differ for %u tokens", tokens);
    free(with);
    free(without);
}
END_TEST

START_TEST(refused)
{
    static const char *const others[] = {"80", "89", "120"};

    load("1", others[_i]);
    EXPECT_FAILS(cuda.be->device_open(&cuda.host.host, NULL, &cuda.device, &err),
                 FERRUM_UNSUPPORTED, "FERRUM_CUDA_WGMMA is 1, but CUDA device 0 has compute");
    choice = "0";
    EXPECT_OK(cuda.be->device_open(&cuda.host.host, NULL, &cuda.device, &err));
    cuda.be->device_release(cuda.device);
}
END_TEST

START_TEST(told)
{
    ferrum_device_info_t info = {.head = FERRUM_HEAD(ferrum_device_info_t)};

    load(_i ? "1" : NULL, "90");
    EXPECT_OK(cuda.be->device_open(&cuda.host.host, NULL, &cuda.device, &err));
    EXPECT_OK(cuda.be->device_info(cuda.device, &info, &err));
    ck_assert_msg((strstr(info.detail, "wgmma") != NULL) == (_i != 0), "%s", info.detail);
    cuda.be->device_release(cuda.device);
}
END_TEST

int main(void)
{
    if (!cuda_built())
        return 77;
    Suite *suite = suite_create("cuda wgmma ffn");
    TCase *cases = tcase_create("selection");
    tcase_set_timeout(cases, 120);
    tcase_add_loop_test(cases, chosen, 0, 5);
    tcase_add_loop_test(cases, refused, 0, 3);
    tcase_add_loop_test(cases, told, 0, 2);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
