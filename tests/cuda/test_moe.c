/* SPDX-License-Identifier: MIT */
/* Layers of routed experts: what a steady step calls, what a graph of it gives, and sizes beyond
 * those at which others stop. */
#include "tests/cuda/layers.h"

#include <stdlib.h>

#define BOUND 2e-3

static const uint32_t token_counts[] = {1, 4, 8, 32, 128};
enum {
    TOKEN_COUNTS = sizeof token_counts / sizeof token_counts[0]
};

/** A layer in every form, and everything that its paths need. */
typedef struct moe {
    layer_t layer;
    layer_call_t call;
    ferrum_expert_ffn_t *ffn;
    ferrum_stacked_experts_t *stacked[3];
    ferrum_marlin_stack_t *marlin[3];
    ferrum_linear_t *linear; /**< gate of expert 0 */
    ferrum_buffer_t *logits, *gate, *up, *hidden, *slots;
    ferrum_moe_routing_t routing;
    uint32_t sorted_max;
} moe_t;

static ferrum_buffer_t *i32_new(uint64_t count)
{
    ferrum_buffer_t *buffer;
    EXPECT_OK(cuda.be->buffer_alloc(cuda.device, FERRUM_DTYPE_I32, count, &buffer, &err));
    return buffer;
}

static void moe_open(moe_t *moe, const layer_shape_t *shape, uint32_t tokens)
{
    const uint64_t pairs = (uint64_t)tokens * shape->top_k;
    layer_t *layer = &moe->layer;

    *moe = (moe_t){.sorted_max = (uint32_t)pairs + shape->experts * 8};
    cuda_open();
    layer_make(layer, shape);
    EXPECT_OK(cuda.mf->expert_ffn_create(cuda.device, &layer->desc, &moe->ffn, &err));
    for (int r = 0; r < 3; r++)
        if (shape->gptq)
            EXPECT_OK(cuda.ql->load_gptq_stacked(cuda.device, layer->list[r], shape->experts,
                                                 &moe->marlin[r], &err));
        else
            EXPECT_OK(
                cuda.ql->load_quant_experts(cuda.device, &layer->gguf[r], &moe->stacked[r], &err));
    if (shape->gptq) {
        EXPECT_OK(cuda.ql->load_gptq(cuda.device, layer->list[0][0], &moe->linear, &err));
    } else {
        ferrum_gguf_weights_t first = layer->gguf[0];
        first.experts = 1;
        first.bytes /= shape->experts;
        EXPECT_OK(cuda.ql->load_quant(cuda.device, &first, NULL, &moe->linear, &err));
    }
    call_make(&moe->call, layer, tokens);
    call_fill(&moe->call, layer, 1, -1);
    moe->logits = cuda_ramp((uint64_t)tokens * shape->experts, 0, 0.001f);
    moe->gate = cuda_ramp(pairs * shape->intermediate, 0, 0);
    moe->up = cuda_ramp(pairs * shape->intermediate, 0, 0);
    moe->hidden = cuda_ramp(pairs * shape->intermediate, 0, 0);
    moe->slots = cuda_ramp(pairs * shape->hidden, 0, 0);
    moe->routing = (ferrum_moe_routing_t){.head = FERRUM_HEAD(ferrum_moe_routing_t),
                                          .sorted_token_ids = i32_new(moe->sorted_max),
                                          .expert_ids = i32_new(moe->sorted_max / 8),
                                          .num_tokens_past_padded = i32_new(1)};
}

static void moe_close(moe_t *moe)
{
    ferrum_buffer_t *const buffers[] = {moe->logits,
                                        moe->gate,
                                        moe->up,
                                        moe->hidden,
                                        moe->slots,
                                        moe->routing.sorted_token_ids,
                                        moe->routing.expert_ids,
                                        moe->routing.num_tokens_past_padded};

    ck_assert_str_eq(cuda.fault(), "");
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        cuda.be->buffer_release(buffers[i]);
    for (int r = 0; r < 3; r++) {
        cuda.ql->stacked_experts->release(moe->stacked[r]);
        cuda.ql->marlin_stack->release(moe->marlin[r]);
    }
    cuda.ql->linear->release(moe->linear);
    cuda.mf->expert_ffn_release(moe->ffn);
    call_free(&moe->call);
    layer_free(&moe->layer);
    cuda_close();
}

static void route(const moe_t *moe)
{
    const layer_call_t *c = &moe->call;
    const layer_shape_t *s = &moe->layer.shape;

    EXPECT_OK(cuda.mf->route_topk_softmax(cuda.ctx, moe->logits, c->ids, c->weights, c->tokens,
                                          s->experts, s->top_k, 1, NULL, &err));
}

/* ---- the paths through a layer ---- */

static void forward(void *arg)
{
    const moe_t *moe = arg;
    const ferrum_expert_ffn_args_t args = {.head = FERRUM_HEAD(ferrum_expert_ffn_args_t),
                                           .x = moe->call.x,
                                           .ids = moe->call.ids,
                                           .weights = moe->call.weights,
                                           .out = moe->call.out,
                                           .tokens = moe->call.tokens,
                                           .top_k = moe->layer.shape.top_k};
    EXPECT_OK(cuda.mf->expert_ffn_forward(cuda.ctx, moe->ffn, &args, &err));
}

static void routed_forward(void *arg)
{
    route(arg);
    forward(arg);
}

static void combine(const moe_t *moe)
{
    const layer_call_t *c = &moe->call;
    const layer_shape_t *s = &moe->layer.shape;

    EXPECT_OK(cuda.mf->weighted_sum_batched(cuda.ctx, moe->slots, c->weights, c->out, c->tokens,
                                            s->top_k, s->hidden, &err));
}

/** The Linear alone; what the layer gives follows from another path. */
static void linear(void *arg)
{
    const moe_t *moe = arg;

    EXPECT_OK(cuda.ql->linear->forward(cuda.ctx, moe->linear, moe->call.x, 0, moe->gate, 0,
                                       moe->call.tokens, &err));
    forward(arg);
}

/** GGUF stacks: products per pair. */
static void stacked(void *arg)
{
    const moe_t *moe = arg;
    const layer_call_t *c = &moe->call;
    const layer_shape_t *s = &moe->layer.shape;
    const ferrum_stacked_experts_ops_t *ops = cuda.ql->stacked_experts;

    EXPECT_OK(ops->gemv_moe_id_gate_up_silu_batched(cuda.ctx, moe->stacked[0], moe->stacked[1],
                                                    c->x, c->ids, moe->hidden, c->tokens, s->top_k,
                                                    s->hidden, 0, &err));
    EXPECT_OK(ops->gemv_moe_id_batched(cuda.ctx, moe->stacked[2], moe->hidden, c->ids, moe->slots,
                                       c->tokens, s->top_k, (uint64_t)s->top_k * s->intermediate,
                                       s->intermediate, &err));
    combine(moe);
}

/** GPTQ stacks: products over blocks of pairs, planned on the device. */
static void vllm(void *arg)
{
    const moe_t *moe = arg;
    const layer_call_t *c = &moe->call;
    const layer_shape_t *s = &moe->layer.shape;
    const ferrum_marlin_stack_ops_t *ops = cuda.ql->marlin_stack;
    const uint32_t pairs = c->tokens * s->top_k;

    EXPECT_OK(cuda.mf->moe_align_block_size_pair_ids(
        cuda.ctx, c->ids, moe->routing.sorted_token_ids, moe->routing.expert_ids,
        moe->routing.num_tokens_past_padded, pairs, s->experts, 8, moe->sorted_max, &err));
    EXPECT_OK(ops->gemm_phase_vllm(cuda.ctx, moe->marlin[0], c->x, &moe->routing, moe->gate,
                                   c->tokens, 8, s->top_k, &err));
    EXPECT_OK(ops->gemm_phase_vllm(cuda.ctx, moe->marlin[1], c->x, &moe->routing, moe->up,
                                   c->tokens, 8, s->top_k, &err));
    EXPECT_OK(cuda.mf->silu_mul_batched(cuda.ctx, moe->gate, moe->up, moe->hidden, pairs,
                                        s->intermediate, &err));
    EXPECT_OK(ops->gemm_phase_vllm(cuda.ctx, moe->marlin[2], moe->hidden, &moe->routing, moe->slots,
                                   pairs, 8, 1, &err));
    combine(moe);
}

/** GPTQ stacks: one dispatch per pair; x stands for every slot when top_k is 1. */
static void batched(void *arg)
{
    moe_t *moe = arg;
    const layer_call_t *c = &moe->call;
    const layer_shape_t *s = &moe->layer.shape;
    const ferrum_marlin_stack_ops_t *ops = cuda.ql->marlin_stack;
    ferrum_moe_dispatch_t *list = calloc(c->tokens, sizeof *list);

    ck_assert_ptr_nonnull(list);
    for (uint32_t t = 0; t < c->tokens; t++)
        list[t] = (ferrum_moe_dispatch_t){(uint32_t)c->host_ids[t], t, t, 1};
    EXPECT_OK(ops->gemm_phase_batched(cuda.ctx, moe->marlin[0], c->x, list, c->tokens, moe->gate,
                                      s->hidden, &err));
    EXPECT_OK(ops->gemm_phase_batched(cuda.ctx, moe->marlin[1], c->x, list, c->tokens, moe->up,
                                      s->hidden, &err));
    EXPECT_OK(cuda.mf->silu_mul_batched(cuda.ctx, moe->gate, moe->up, moe->hidden, c->tokens,
                                        s->intermediate, &err));
    EXPECT_OK(ops->gemm_phase_batched(cuda.ctx, moe->marlin[2], moe->hidden, list, c->tokens,
                                      moe->slots, s->intermediate, &err));
    combine(moe);
    memset(list, 0xff, c->tokens * sizeof *list);
    free(list);
}

static const struct {
    cuda_step_fn *step;
    bool gptq, routed; /**< the path finds ids and weights itself */
    bool host_ids;     /**< the path depends on ids that are on the host */
    uint32_t top_k;
    uint64_t most_launches;
} paths[] = {
    {forward, false, false, false, 2, 4},       {forward, true, false, false, 2, 4},
    {routed_forward, false, true, false, 2, 5}, {routed_forward, true, true, false, 2, 5},
    {stacked, false, false, false, 2, 3},       {vllm, true, false, false, 2, 6},
    {batched, true, false, true, 1, 5},
};
enum {
    PATHS = sizeof paths / sizeof paths[0]
};

static const struct {
    cuda_step_fn *step;
    bool gptq;
    uint32_t top_k;
} small_paths[] = {{forward, false, 2}, {forward, true, 2}, {stacked, false, 2}, {vllm, true, 2},
                   {batched, true, 1},  {linear, false, 1}, {linear, true, 1}};
enum {
    SMALL_PATHS = sizeof small_paths / sizeof small_paths[0]
};

/** One path at one number of tokens: cheap in a steady state, right, and a graph of it gives the
 * same bits, from inputs that have changed, too. */
START_TEST(steady_and_captured)
{
    const layer_shape_t shape = {paths[_i % PATHS].gptq, 6, 64, 96, paths[_i % PATHS].top_k};
    moe_t moe;

    moe_open(&moe, &shape, token_counts[_i / PATHS]);
    cuda_steady(paths[_i % PATHS].step, &moe, paths[_i % PATHS].most_launches);
    if (!paths[_i % PATHS].routed)
        ck_assert(call_error(&moe.call, &moe.layer) <= BOUND);
    cuda_capture(paths[_i % PATHS].step, &moe, 1);
    for (uint32_t seed = 1; seed < 4; seed++) {
        if (!paths[_i % PATHS].host_ids)
            call_fill(&moe.call, &moe.layer, seed, -1);
        paths[_i % PATHS].step(&moe);
        uint16_t *eager = call_read(&moe.call, &moe.layer);
        EXPECT_OK(cuda.be->buffer_zero(cuda.ctx, moe.call.out, 0, 1, &err));
        cuda_replay(1);
        uint16_t *replayed = call_read(&moe.call, &moe.layer);
        ck_assert_mem_eq(replayed, eager, (size_t)moe.call.tokens * shape.hidden * sizeof *eager);
        free(eager);
        free(replayed);
    }
    moe_close(&moe);
}
END_TEST

/** Every path at sizes that are cheap enough for a race detector and for many schedules; see
 * races.sh. Three tokens: no plan; twenty: one. */
START_TEST(small)
{
    const int path = _i / 2;
    const layer_shape_t shape = {small_paths[path].gptq, 4, 64, 32, small_paths[path].top_k};
    moe_t moe;

    moe_open(&moe, &shape, _i % 2 ? 20 : 3);
    small_paths[path].step(&moe);
    small_paths[path].step(&moe);
    ck_assert(call_error(&moe.call, &moe.layer) <= BOUND);
    moe_close(&moe);
}
END_TEST

/** Rows of one expert beyond 64, experts beyond 256, experts per token beyond 32, more dispatches
 * than one launch takes. */
START_TEST(no_hidden_limits)
{
    static const struct {
        layer_shape_t shape;
        cuda_step_fn *step;
        uint32_t tokens;
        int32_t only;
    } cases[] = {
        {{true, 4, 32, 32, 1}, forward, 300, 2},    {{false, 4, 32, 32, 1}, forward, 300, 2},
        {{true, 4, 32, 32, 1}, vllm, 300, 2},       {{true, 512, 32, 32, 2}, forward, 70, -1},
        {{false, 512, 32, 32, 2}, forward, 70, -1}, {{true, 512, 32, 32, 2}, vllm, 70, -1},
        {{true, 64, 32, 32, 40}, forward, 3, -1},   {{false, 64, 32, 32, 40}, stacked, 3, -1},
        {{true, 512, 32, 32, 1}, batched, 300, -1},
    };
    moe_t moe;

    ck_assert_int_lt(_i, (int)(sizeof cases / sizeof cases[0]));
    moe_open(&moe, &cases[_i].shape, cases[_i].tokens);
    call_fill(&moe.call, &moe.layer, 5, cases[_i].only);
    cases[_i].step(&moe);
    ck_assert(call_error(&moe.call, &moe.layer) <= BOUND);
    moe_close(&moe);
}
END_TEST
enum {
    LIMIT_CASES = 9
};

/** A number of experts that shared memory does not hold is refused by its name. */
START_TEST(refuses_experts_by_number)
{
    const ferrum_problem_t route_problem = {.head = FERRUM_HEAD(ferrum_problem_t),
                                            .kind = FERRUM_PROBLEM_ROUTE,
                                            .activation_dtype = FERRUM_DTYPE_F16,
                                            .experts = 5000,
                                            .top_k = 4};
    const ferrum_problem_t align_problem = {.head = FERRUM_HEAD(ferrum_problem_t),
                                            .kind = FERRUM_PROBLEM_ALIGN,
                                            .activation_dtype = FERRUM_DTYPE_F16,
                                            .experts = 9000};
    cuda_open();
    EXPECT_FAILS(cuda.ql->supports(cuda.device, &route_problem, &err), FERRUM_UNSUPPORTED,
                 "routes among at most 4096 experts, not 5000");
    EXPECT_FAILS(cuda.ql->supports(cuda.device, &align_problem, &err), FERRUM_UNSUPPORTED,
                 "groups pairs by at most 8192 experts, not 9000");
    ferrum_buffer_t *ids = i32_new(1), *sorted = i32_new(9001), *blocks = i32_new(9001),
                    *total = i32_new(1);
    EXPECT_FAILS(
        cuda.mf->moe_align_block_size(cuda.ctx, ids, sorted, blocks, total, 1, 9000, 1, 9001, &err),
        FERRUM_UNSUPPORTED, "at most 8192 experts, not 9000");
    ferrum_buffer_t *const buffers[] = {ids, sorted, blocks, total};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        cuda.be->buffer_release(buffers[i]);
    cuda_close();
}
END_TEST

int main(void)
{
    if (!cuda_built())
        return 77;
    Suite *suite = suite_create("cuda moe");
    TCase *cases = tcase_create("moe");
    tcase_set_timeout(cases, 120);
    tcase_add_loop_test(cases, steady_and_captured, 0, PATHS * TOKEN_COUNTS);
    tcase_add_loop_test(cases, no_hidden_limits, 0, LIMIT_CASES);
    tcase_add_test(cases, refuses_experts_by_number);
    suite_add_tcase(suite, cases);
    TCase *races = tcase_create("small");
    tcase_set_timeout(races, 300);
    tcase_add_loop_test(races, small, 0, 2 * SMALL_PATHS);
    suite_add_tcase(suite, races);
    return expect_run(suite);
}
