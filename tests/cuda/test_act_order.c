/* SPDX-License-Identifier: MIT */
/*
 * Tiled GPTQ experts end to end: groups in order and in any order, with biases, shapes that do not
 * fill tiles, against sums in double over the matrices as the file has them. What runs is what info
 * says.
 */
#include "tests/cuda/layers.h"

#include <stdlib.h>

#define BOUND 2e-3

static const struct {
    layer_shape_t shape;
    layer_gptq_t how; /* f16 scales, act-order, apart, biases */
    const char *kernel;
} layers[] = {
    {{true, 6, 64, 96, 2}, {true, false, false, false}, "mma gptq4/gptq4"},
    {{true, 6, 64, 96, 2}, {true, true, false, false}, "mma gptq4/gptq4, act-order"},
    {{true, 5, 192, 160, 3}, {true, true, false, true}, "mma gptq4/gptq4, act-order"},
    {{true, 8, 256, 32, 2}, {true, true, false, true}, "mma gptq4/gptq4, act-order"},
    {{true, 6, 64, 96, 2},
     {true, true, true, true},
     "fma gptq4/gptq4, act-order of gate and up differs"},
    {{true, 6, 64, 96, 2}, {false, true, false, true}, "fma gptq4/gptq4"},
    {{true, 6, 64, 96, 2}, {true, false, false, true}, "mma gptq4/gptq4"},
};
static const uint32_t token_counts[] = {1, 5, 40, 130};
enum {
    LAYERS = sizeof layers / sizeof layers[0],
    TOKEN_COUNTS = sizeof token_counts / sizeof token_counts[0]
};

typedef struct test {
    layer_t layer;
    layer_call_t call;
    ferrum_expert_ffn_t *ffn;
} test_t;

static void forward(void *arg)
{
    const test_t *t = arg;
    const ferrum_expert_ffn_args_t args = {.head = FERRUM_HEAD(ferrum_expert_ffn_args_t),
                                           .x = t->call.x,
                                           .ids = t->call.ids,
                                           .weights = t->call.weights,
                                           .out = t->call.out,
                                           .tokens = t->call.tokens,
                                           .top_k = t->layer.shape.top_k};
    EXPECT_OK(cuda.mf->expert_ffn_forward(cuda.ctx, t->ffn, &args, &err));
}

START_TEST(against_the_file)
{
    ferrum_expert_ffn_info_t info = {.head = FERRUM_HEAD(ferrum_expert_ffn_info_t)};
    test_t t;

    cuda_open();
    layer_make_gptq(&t.layer, &layers[_i].shape, &layers[_i].how);
    EXPECT_OK(cuda.mf->expert_ffn_create(cuda.device, &t.layer.desc, &t.ffn, &err));
    EXPECT_OK(cuda.mf->expert_ffn_info(t.ffn, &info, &err));
    ck_assert_str_eq(info.kernel, layers[_i].kernel);
    for (int i = 0; i < TOKEN_COUNTS; i++) {
        call_make(&t.call, &t.layer, token_counts[i]);
        call_fill(&t.call, &t.layer, (uint32_t)i + 1, -1);
        (void)cuda_steady(forward, &t, 4);
        const double error = call_error(&t.call, &t.layer);
        ck_assert_msg(error <= BOUND, "%u tokens: error %g", token_counts[i], error);
        call_free(&t.call);
    }
    ck_assert_str_eq(cuda.fault(), "");
    cuda.mf->expert_ffn_release(t.ffn);
    layer_free(&t.layer);
    cuda_close();
}
END_TEST

/** A group with too many inputs has no place in tiles; rows take it as it is. */
START_TEST(groups_that_are_not_whole)
{
    const layer_shape_t shape = {true, 2, 64, 64, 1};
    const layer_gptq_t how = {true, true, false, false};
    ferrum_expert_ffn_info_t info = {.head = FERRUM_HEAD(ferrum_expert_ffn_info_t)};
    ferrum_expert_ffn_t *ffn;
    layer_t layer;

    cuda_open();
    layer_make_gptq(&layer, &shape, &how);
    layer.groups[2][0] = 1 - layer.groups[2][0];
    EXPECT_OK(cuda.mf->expert_ffn_create(cuda.device, &layer.desc, &ffn, &err));
    EXPECT_OK(cuda.mf->expert_ffn_info(ffn, &info, &err));
    ck_assert_str_eq(info.kernel, "fma gptq4/gptq4, act-order");
    cuda.mf->expert_ffn_release(ffn);
    layer_free(&layer);
    cuda_close();
}
END_TEST

int main(void)
{
    if (!cuda_built())
        return 77;
    Suite *suite = suite_create("cuda act-order");
    TCase *cases = tcase_create("act-order");
    tcase_set_timeout(cases, 120);
    tcase_add_loop_test(cases, against_the_file, 0, LAYERS);
    tcase_add_test(cases, groups_that_are_not_whole);
    suite_add_tcase(suite, cases);
    return expect_run(suite);
}
