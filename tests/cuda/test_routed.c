/* SPDX-License-Identifier: MIT */
/*
 * Routing and experts together: how many launches a layer takes, and that a plan which the routing
 * has made (plan_ahead.h) is the one that the experts make for themselves, and is used for nothing
 * else.
 */
#include "tests/cuda/layers.h"

#include <math.h>
#include <stdlib.h>

#define BOUND 2e-3
#define FAST_BOUND 3.2e-2

typedef struct routed {
    layer_t layer;
    layer_call_t call;
    ferrum_expert_ffn_t *ffn;
    ferrum_buffer_t *logits, *other_ids;
    uint32_t tokens; /**< of a step: at most those of the call */
} routed_t;

static void fill_logits(const routed_t *r, uint32_t seed)
{
    const uint64_t count = (uint64_t)r->call.tokens * r->layer.shape.experts;
    float *logits = calloc(count, sizeof *logits);

    ck_assert_ptr_nonnull(logits);
    for (uint64_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        logits[i] = (float)(seed >> 20) / 512.0f;
    }
    EXPECT_OK(cuda.be->buffer_write_f32(cuda.ctx, r->logits, 0, logits, count, &err));
    free(logits);
}

static void routed_open_as(routed_t *r, const layer_shape_t *shape, uint32_t tokens,
                           ferrum_precision_t precision)
{
    cuda_open();
    *r = (routed_t){.tokens = tokens};
    layer_make(&r->layer, shape);
    r->layer.desc.precision = precision;
    EXPECT_OK(cuda.mf->expert_ffn_create(cuda.device, &r->layer.desc, &r->ffn, &err));
    call_make(&r->call, &r->layer, tokens);
    call_fill(&r->call, &r->layer, 1, -1);
    r->logits = cuda_ramp((uint64_t)tokens * shape->experts, 0, 0);
    r->other_ids = cuda_i32(r->call.host_ids, (uint64_t)tokens * shape->top_k);
    fill_logits(r, 1);
}

static void routed_open(routed_t *r, const layer_shape_t *shape, uint32_t tokens)
{
    routed_open_as(r, shape, tokens, FERRUM_PRECISION_DEFAULT);
}

static void routed_close(routed_t *r)
{
    ck_assert_str_eq(cuda.fault(), "");
    cuda.be->buffer_release(r->logits);
    cuda.be->buffer_release(r->other_ids);
    cuda.mf->expert_ffn_release(r->ffn);
    call_free(&r->call);
    layer_free(&r->layer);
    cuda_close();
}

static void route(const routed_t *r)
{
    EXPECT_OK(cuda.mf->route_topk_softmax(cuda.ctx, r->logits, r->call.ids, r->call.weights,
                                          r->tokens, r->layer.shape.experts, r->layer.shape.top_k,
                                          1, NULL, &err));
}

static void forward_with(const routed_t *r, ferrum_expert_ffn_t *ffn, const ferrum_buffer_t *ids)
{
    const ferrum_expert_ffn_args_t args = {.head = FERRUM_HEAD(ferrum_expert_ffn_args_t),
                                           .x = r->call.x,
                                           .ids = ids,
                                           .weights = r->call.weights,
                                           .out = r->call.out,
                                           .tokens = r->tokens,
                                           .top_k = r->layer.shape.top_k};
    EXPECT_OK(cuda.mf->expert_ffn_forward(cuda.ctx, ffn, &args, &err));
}

static void forward(const routed_t *r)
{
    forward_with(r, r->ffn, r->call.ids);
}

static void step(void *arg)
{
    route(arg);
    forward(arg);
}

/** Launches of @p run. */
static uint64_t launches_of(void (*run)(const routed_t *r), const routed_t *r)
{
    const uint64_t before = cuda.count("cuLaunchKernel");

    run(r);
    return cuda.count("cuLaunchKernel") - before;
}

/** Ids and weights as the routing left them, for call_error. */
static void read_routing(routed_t *r)
{
    const uint64_t pairs = (uint64_t)r->call.tokens * r->layer.shape.top_k;

    EXPECT_OK(cuda.be->buffer_read(cuda.ctx, r->call.ids, 0, FERRUM_DTYPE_I32, r->call.host_ids,
                                   pairs, &err));
    EXPECT_OK(
        cuda.be->buffer_read_f32(cuda.ctx, r->call.weights, 0, r->call.host_weights, pairs, &err));
}

/** What the layer gives when something between its two calls keeps the plans apart. */
static uint16_t *apart(routed_t *r)
{
    route(r);
    EXPECT_OK(cuda.be->context_sync(cuda.ctx, &err));
    forward(r);
    return call_read(&r->call, &r->layer);
}

/** Weights and activations: GPTQ has no int8 and takes no notice. */
typedef enum layer_kind {
    GPTQ,
    BLOCKS,
    INT8
} layer_kind_t;

static const struct {
    layer_kind_t kind;
    uint32_t experts, top_k, tokens;
    uint64_t launches;
} layers[] = {
    {GPTQ, 128, 8, 1, 4},
    {GPTQ, 128, 8, 8, 4},
    {GPTQ, 128, 8, 64, 4},
    {GPTQ, 128, 8, 512, 5},
    {BLOCKS, 128, 8, 1, 4},
    {BLOCKS, 128, 8, 8, 4},
    {BLOCKS, 128, 8, 64, 4},
    {BLOCKS, 128, 8, 512, 5},
    {GPTQ, 128, 8, 9, 4},
    {GPTQ, 8, 2, 128, 4},
    {GPTQ, 8, 2, 129, 5},
    {GPTQ, 200, 40, 26, 5},
    {GPTQ, 200, 40, 25, 4},
    /* x is quantised in a launch of its own, or in that of the plan. */
    {INT8, 128, 8, 1, 5},
    {INT8, 128, 8, 8, 5},
    {INT8, 128, 8, 64, 5},
    {INT8, 128, 8, 512, 5},
    {INT8, 8, 2, 128, 5},
    {INT8, 8, 2, 129, 5},
};
enum {
    LAYERS = sizeof layers / sizeof layers[0]
};

/** At most five launches with the routing, in the steady state and in a graph, and nothing else;
 *  one less where the plan is made with the routing, but for int8 activations. */
START_TEST(launches_of_a_layer)
{
    const layer_shape_t shape = {layers[_i].kind == GPTQ, layers[_i].experts, 32, 32,
                                 layers[_i].top_k};
    routed_t r;

    routed_open_as(&r, &shape, layers[_i].tokens,
                   layers[_i].kind == BLOCKS ? FERRUM_PRECISION_DEFAULT : FERRUM_PRECISION_FAST);
    const uint64_t launches = cuda_steady(step, &r, 5);
    ck_assert_uint_eq(launches, layers[_i].launches);
    uint16_t *together = call_read(&r.call, &r.layer), *alone = apart(&r);
    const size_t bytes = (size_t)r.tokens * shape.hidden * sizeof *alone;
    ck_assert_mem_eq(together, alone, bytes);
    free(together);
    free(alone);
    read_routing(&r);
    ck_assert(call_error(&r.call, &r.layer) <= (layers[_i].kind == INT8 ? FAST_BOUND : BOUND));
    cuda_capture(step, &r, 1);
    fill_logits(&r, 2);
    alone = apart(&r);
    cuda_replay(1);
    together = call_read(&r.call, &r.layer);
    ck_assert_mem_eq(together, alone, bytes);
    free(together);
    free(alone);
    routed_close(&r);
}
END_TEST

/** A plan is used for the ids it was made of, at once, and for the experts it was made for. */
START_TEST(a_plan_is_used_once_and_for_its_ids)
{
    const layer_shape_t shape = {true, 16, 32, 32, 4};
    ferrum_expert_ffn_desc_t half;
    ferrum_expert_ffn_t *upper;
    routed_t r;

    routed_open(&r, &shape, 20);
    step(&r);
    ck_assert_uint_eq(launches_of(route, &r), 1);
    ck_assert_uint_eq(launches_of(forward, &r), 3);
    ck_assert_uint_eq(launches_of(forward, &r), 4); /* the plan is gone */
    uint16_t *routed = call_read(&r.call, &r.layer);
    const size_t bytes = (size_t)r.tokens * shape.hidden * sizeof *routed;

    route(&r); /* other ids: a plan of their own */
    uint64_t before = cuda.count("cuLaunchKernel");
    forward_with(&r, r.ffn, r.other_ids);
    ck_assert_uint_eq(cuda.count("cuLaunchKernel") - before, 4);
    uint16_t *other = call_read(&r.call, &r.layer);
    ck_assert_int_ne(memcmp(other, routed, bytes), 0);

    route(&r); /* the same buffer, written in between */
    EXPECT_OK(cuda.be->buffer_write(cuda.ctx, r.call.ids, 0, FERRUM_DTYPE_I32, r.call.host_ids,
                                    (uint64_t)r.tokens * shape.top_k, &err));
    forward(&r);
    uint16_t *written = call_read(&r.call, &r.layer);
    ck_assert_mem_eq(written, other, bytes);

    half = r.layer.desc; /* other experts: the upper half of them */
    half.first_expert = 8;
    half.local_experts = 8;
    ferrum_expert_weights_t roles[3];
    for (int i = 0; i < 3; i++) {
        roles[i] = r.layer.role[i];
        roles[i].gptq += 8;
    }
    half.gate = &roles[0];
    half.up = &roles[1];
    half.down = &roles[2];
    EXPECT_OK(cuda.mf->expert_ffn_create(cuda.device, &half, &upper, &err));
    for (int i = 0; i < 2; i++) { /* at first planned for all, then for the half */
        route(&r);
        before = cuda.count("cuLaunchKernel");
        forward_with(&r, upper, r.call.ids);
        ck_assert_uint_eq(cuda.count("cuLaunchKernel") - before, i == 0 ? 4 : 3);
        uint16_t *part = call_read(&r.call, &r.layer);
        if (i == 0)
            memcpy(other, part, bytes);
        ck_assert_mem_eq(part, other, bytes);
        free(part);
    }
    step(&r);
    uint16_t *again = call_read(&r.call, &r.layer);
    ck_assert_mem_eq(again, routed, bytes);
    free(again);
    free(routed);
    free(other);
    free(written);
    cuda.mf->expert_ffn_release(upper);
    routed_close(&r);
}
END_TEST

/** A row that cannot be routed takes no part, and is named. */
START_TEST(a_row_without_numbers)
{
    const layer_shape_t shape = {true, 16, 32, 32, 4};
    const float nan = (float)NAN;
    int32_t ids[4];
    routed_t r;

    routed_open(&r, &shape, 20);
    step(&r);
    EXPECT_OK(cuda.be->buffer_write_f32(cuda.ctx, r.logits, 7 * 16 + 3, &nan, 1, &err));
    ck_assert_uint_eq(launches_of(route, &r), 1);
    ck_assert_uint_eq(launches_of(forward, &r), 3);
    EXPECT_FAILS(cuda.be->context_sync(cuda.ctx, &err), FERRUM_INVALID_INPUT, "row 7");
    EXPECT_OK(cuda.be->buffer_read(cuda.ctx, r.call.ids, 7 * 4, FERRUM_DTYPE_I32, ids, 4, &err));
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(ids[i], -1);
    uint16_t *out = call_read(&r.call, &r.layer);
    for (uint32_t i = 0; i < shape.hidden; i++)
        ck_assert_uint_eq(out[7 * shape.hidden + i] & 0x7fffu, 0);
    free(out);
    routed_close(&r);
}
END_TEST

/** Small enough for a race detector and many schedules: see races.sh. */
START_TEST(small)
{
    const layer_shape_t shape = {_i == 0, 4, 32, 32, 2};
    routed_t r;

    routed_open_as(&r, &shape, 20, FERRUM_PRECISION_FAST);
    for (int i = 0; i < 3; i++)
        step(&r);
    read_routing(&r);
    ck_assert(call_error(&r.call, &r.layer) <= (_i ? FAST_BOUND : BOUND));
    routed_close(&r);
}
END_TEST

int main(void)
{
    if (!cuda_built())
        return 77;
    Suite *suite = suite_create("cuda routed");
    TCase *cases = tcase_create("routed");
    tcase_set_timeout(cases, 120);
    tcase_add_loop_test(cases, launches_of_a_layer, 0, LAYERS);
    tcase_add_test(cases, a_plan_is_used_once_and_for_its_ids);
    tcase_add_test(cases, a_row_without_numbers);
    suite_add_tcase(suite, cases);
    TCase *races = tcase_create("small");
    tcase_set_timeout(races, 300);
    tcase_add_loop_test(races, small, 0, 2);
    suite_add_tcase(suite, races);
    return expect_run(suite);
}
