/* SPDX-License-Identifier: MIT */
#include "host/moe/moe_run.h"

#include "host/moe/moe_forward.h"
#include "host/moe/moe_forward_bucketed.h"
#include "host/moe/stacked.h"

#include <ferrum/util.h>

#include <stdlib.h>

/* Device buffers by use. A path reserves only its own. */
struct ferrum_moe_scratch {
    const ferrum_ops_t *ops;
    ferrum_moe_plan_t plan;
    uint32_t tokens; /* room for this many */
    ferrum_moe_profile_t profile;
    ferrum_moe_route_scratch_t host;
    ferrum_device_route_scratch_t device;
    ferrum_device_array_t x;                       /* [P, h] gathered, or [h] */
    ferrum_device_array_t gate_up;                 /* [P, 2I], or [2I]; the gate alone in STACKED */
    ferrum_device_array_t up;                      /* [P, I] */
    ferrum_device_array_t silu;                    /* [P, I], or [I] */
    ferrum_device_array_t down;                    /* [P, h], or [h] */
    ferrum_device_array_t acc;                     /* [h] */
    ferrum_device_array_t zero;                    /* [h] */
    ferrum_device_array_t ids_2d;                  /* i32 [E, P] */
    ferrum_device_array_t tpe;                     /* i32 [E] */
    ferrum_device_array_t gate_up_args, down_args; /* u32 [3] */
};

/* One buffer that a path needs. */
typedef struct need {
    ferrum_device_array_t *array;
    ferrum_dtype_t dtype;
    uint64_t count;
} need_t;

enum {
    MAX_NEEDS = 12
};

static uint32_t list_needs(ferrum_moe_scratch_t *s, uint32_t tokens, need_t needs[MAX_NEEDS])
{
    const ferrum_moe_plan_t *plan = &s->plan;
    const ferrum_dtype_t act = s->ops->info.activation_dtype, i32 = FERRUM_DTYPE_I32;
    uint64_t pairs = (uint64_t)tokens * plan->top_k, h = plan->hidden, im = plan->intermediate;
    uint64_t experts = plan->num_experts;
    const need_t ffn[] = {{&s->device.selected_ids, i32, pairs},
                          {&s->device.pair_weights, FERRUM_DTYPE_F32, pairs}};
    const need_t bucketed[] = {{&s->x, act, pairs * h},
                               {&s->gate_up, act, pairs * 2 * im},
                               {&s->silu, act, pairs * im},
                               {&s->down, act, pairs * h}};
    const need_t stacked[] = {{&s->device.selected_ids, i32, pairs},
                              {&s->device.pair_weights, FERRUM_DTYPE_F32, pairs},
                              {&s->gate_up, act, pairs * im},
                              {&s->up, act, pairs * im},
                              {&s->silu, act, pairs * im},
                              {&s->down, act, pairs * h},
                              {&s->ids_2d, i32, experts * pairs},
                              {&s->tpe, i32, experts},
                              {&s->gate_up_args, FERRUM_DTYPE_U32, 3},
                              {&s->down_args, FERRUM_DTYPE_U32, 3}};
    const need_t per_pair[] = {{&s->x, act, h},    {&s->gate_up, act, 2 * im}, {&s->silu, act, im},
                               {&s->down, act, h}, {&s->acc, act, h},          {&s->zero, act, h}};
    const struct {
        const need_t *list;
        uint32_t count;
    } by_path[] = {
        [FERRUM_MOE_PATH_EXPERT_FFN] = {ffn, sizeof ffn / sizeof ffn[0]},
        [FERRUM_MOE_PATH_BUCKETED] = {bucketed, sizeof bucketed / sizeof bucketed[0]},
        [FERRUM_MOE_PATH_STACKED] = {stacked, sizeof stacked / sizeof stacked[0]},
        [FERRUM_MOE_PATH_PER_PAIR] = {per_pair, sizeof per_pair / sizeof per_pair[0]},
    };
    uint32_t count = by_path[plan->path].count;
    for (uint32_t i = 0; i < count; i++)
        needs[i] = by_path[plan->path].list[i];
    return count;
}

ferrum_status_t ferrum_moe_scratch_reserve(ferrum_moe_scratch_t *scratch, uint32_t tokens,
                                           bool *out_grew, ferrum_error_t *err)
{
    ferrum_moe_scratch_t *s = scratch;
    uint64_t widest = 2 * (uint64_t)s->plan.intermediate;
    if (widest < s->plan.hidden)
        widest = s->plan.hidden;
    if (widest < s->plan.num_experts)
        widest = s->plan.num_experts;
    uint64_t pairs = (uint64_t)tokens * s->plan.top_k, largest;
    if (out_grew)
        *out_grew = false;
    if (tokens <= s->tokens)
        return FERRUM_OK;
    if (pairs > INT32_MAX / 2 || !ferrum_mul_u64(pairs, widest, &largest))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                           "%u tokens of %u experts are too many for one step", tokens,
                           s->plan.top_k);
    if (s->plan.path == FERRUM_MOE_PATH_BUCKETED)
        FERRUM_TRY(ferrum_device_route_scratch_reserve(
            s->ops, tokens, s->plan.num_experts, s->plan.top_k,
            s->plan.device_route ? &s->device : &s->host.upload, err));
    need_t needs[MAX_NEEDS];
    uint32_t count = list_needs(s, tokens, needs);
    for (uint32_t i = 0; i < count; i++)
        FERRUM_TRY(ferrum_device_array_reserve(s->ops, needs[i].dtype, needs[i].count,
                                               needs[i].array, err));
    s->tokens = tokens;
    if (out_grew)
        *out_grew = true;
    return FERRUM_OK;
}

ferrum_status_t ferrum_moe_scratch_new(const ferrum_ops_t *ops, const ferrum_moe_plan_t *plan,
                                       uint32_t max_tokens, ferrum_moe_scratch_t **out_scratch,
                                       ferrum_error_t *err)
{
    ferrum_moe_scratch_t *scratch = calloc(1, sizeof *scratch);
    if (!scratch)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory for MoE scratch");
    scratch->ops = ops;
    scratch->plan = *plan;
    ferrum_status_t status =
        ferrum_moe_scratch_reserve(scratch, max_tokens ? max_tokens : 1, NULL, err);
    if (status != FERRUM_OK) {
        ferrum_moe_scratch_free(scratch);
        return status;
    }
    *out_scratch = scratch;
    return FERRUM_OK;
}

void ferrum_moe_scratch_free(ferrum_moe_scratch_t *scratch)
{
    if (!scratch)
        return;
    ferrum_moe_scratch_t *s = scratch;
    ferrum_device_array_t *arrays[] = {&s->x,    &s->gate_up,      &s->up,       &s->silu,
                                       &s->down, &s->acc,          &s->zero,     &s->ids_2d,
                                       &s->tpe,  &s->gate_up_args, &s->down_args};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++)
        ferrum_device_array_free(s->ops, arrays[i]);
    ferrum_device_route_scratch_free(s->ops, &s->device);
    ferrum_moe_route_scratch_free(s->ops, &s->host);
    free(s);
}

static uint64_t route_scratch_bytes(const ferrum_device_route_scratch_t *route)
{
    return sizeof(int32_t) *
           (route->selected_ids.count + route->pair_weights.count + route->pairs_by_token.count +
            route->packed_token_idx.count + route->expert_offsets.count +
            route->sorted_tokens.count + route->block_ids.count + route->total_post_pad.count);
}

uint64_t ferrum_moe_scratch_bytes(const ferrum_moe_scratch_t *scratch)
{
    const ferrum_moe_scratch_t *s = scratch;
    uint64_t words = s->ids_2d.count + s->tpe.count + s->gate_up_args.count + s->down_args.count;
    uint64_t activations = s->x.count + s->gate_up.count + s->up.count + s->silu.count +
                           s->down.count + s->acc.count + s->zero.count;
    return words * sizeof(int32_t) +
           activations * ferrum_dtype_bytes(s->ops->info.activation_dtype) +
           route_scratch_bytes(&s->device) + route_scratch_bytes(&s->host.upload);
}

ferrum_moe_profile_t *ferrum_moe_scratch_profile(ferrum_moe_scratch_t *scratch)
{
    return &scratch->profile;
}

const ferrum_moe_plan_t *ferrum_moe_scratch_plan(const ferrum_moe_scratch_t *scratch)
{
    return &scratch->plan;
}

/* ---- paths ---- */

static ferrum_status_t add_to_residual(const ferrum_moe_scratch_t *s,
                                       const ferrum_moe_run_args_t *args, ferrum_error_t *err)
{
    const ferrum_backend_ops_t *backend = s->ops->backend;
    uint32_t h = s->plan.hidden;
    if (!args->residual)
        return FERRUM_OK;
    if (args->next_norm_w)
        return backend->fused_add_rms_norm(args->ctx, args->residual, args->out, args->next_norm_w,
                                           args->rms_eps, args->normed_out, args->tokens, h, err);
    return backend->add_inplace(args->ctx, args->residual, args->out, (uint64_t)args->tokens * h,
                                err);
}

static ferrum_status_t route_for_ffn(ferrum_moe_scratch_t *s, const ferrum_moe_run_args_t *args,
                                     ferrum_error_t *err)
{
    const ferrum_moe_plan_t *plan = &s->plan;
    const ferrum_backend_ops_t *backend = s->ops->backend;
    ferrum_buffer_t *ids = s->device.selected_ids.buffer;
    ferrum_buffer_t *weights = s->device.pair_weights.buffer;
    uint64_t pairs = (uint64_t)args->tokens * plan->top_k;
    if (plan->device_route)
        return s->ops->moe->route_topk_softmax(args->ctx, args->router_logits, ids, weights,
                                               args->tokens, plan->num_experts, plan->top_k,
                                               plan->norm_topk, NULL, err);
    FERRUM_TRY(ferrum_moe_route_on_host(s->ops, args->ctx, args->router_logits, args->tokens,
                                        plan->num_experts, plan->top_k, plan->norm_topk,
                                        plan->backend_host_route, &s->host, err));
    FERRUM_TRY(backend->buffer_write(args->ctx, ids, 0, FERRUM_DTYPE_I32, s->host.output.expert_ids,
                                     pairs, err));
    return backend->buffer_write(args->ctx, weights, 0, FERRUM_DTYPE_F32,
                                 s->host.output.expert_weights, pairs, err);
}

static ferrum_status_t run_ffn(ferrum_moe_scratch_t *s, const ferrum_moe_run_args_t *args,
                               ferrum_error_t *err)
{
    if (!args->experts->ffn)
        return ferrum_fail(err, FERRUM_NO_STACK, FERRUM_REASON_LAYOUT,
                           "these experts were not loaded as an expert_ffn");
    FERRUM_TRY(route_for_ffn(s, args, err));
    /* Without a norm to come, the sum can go where it belongs at once. */
    bool accumulate = args->residual && !args->next_norm_w;
    ferrum_expert_ffn_args_t ffn = {.head = FERRUM_HEAD(ferrum_expert_ffn_args_t),
                                    .x = args->x,
                                    .ids = s->device.selected_ids.buffer,
                                    .weights = s->device.pair_weights.buffer,
                                    .out = accumulate ? args->residual : args->out,
                                    .tokens = args->tokens,
                                    .top_k = s->plan.top_k,
                                    .flags = accumulate ? FERRUM_FFN_ACCUMULATE : 0};
    FERRUM_TRY(s->ops->moe->expert_ffn_forward(args->ctx, args->experts->ffn, &ffn, err));
    return accumulate ? FERRUM_OK : add_to_residual(s, args, err);
}

static ferrum_status_t run_bucketed(ferrum_moe_scratch_t *s, const ferrum_moe_run_args_t *args,
                                    ferrum_error_t *err)
{
    const ferrum_moe_plan_t *plan = &s->plan;
    ferrum_moe_forward_bucketed_params_t params = {
        .ctx = args->ctx,
        .x = args->x,
        .router_logits = args->router_logits,
        .out = args->out,
        .batch = args->tokens,
        .hidden = plan->hidden,
        .intermediate = plan->intermediate,
        .num_experts = plan->num_experts,
        .top_k = plan->top_k,
        .norm_topk = plan->norm_topk,
        .experts = args->experts,
        .x_packed = s->x.buffer,
        .gate_up_packed = s->gate_up.buffer,
        .silu_packed = s->silu.buffer,
        .down_packed = s->down.buffer,
        .route_scratch = &s->host,
        .device_route = plan->device_route ? &s->device : NULL,
        .env = &plan->env,
        .backend_host_route = plan->backend_host_route,
        .profile = plan->env.profile ? &s->profile : NULL};
    FERRUM_TRY(ferrum_moe_forward_bucketed(&params, err));
    return add_to_residual(s, args, err);
}

static ferrum_status_t run_stacked(ferrum_moe_scratch_t *s, const ferrum_moe_run_args_t *args,
                                   ferrum_error_t *err)
{
    const ferrum_moe_plan_t *plan = &s->plan;
    ferrum_stacked_params_t params = {.ctx = args->ctx,
                                      .plan = plan,
                                      .experts = args->experts,
                                      .x = args->x,
                                      .router_logits = args->router_logits,
                                      .batch = args->tokens,
                                      .buffers = {.route = &s->device,
                                                  .gate = s->gate_up.buffer,
                                                  .up = s->up.buffer,
                                                  .silu = s->silu.buffer,
                                                  .down = s->down.buffer,
                                                  .ids_2d = s->ids_2d.buffer,
                                                  .tpe = s->tpe.buffer,
                                                  .gate_up_args = s->gate_up_args.buffer,
                                                  .down_args = s->down_args.buffer},
                                      .route_scratch = &s->host};
    if (args->tokens == 1 && args->residual)
        return ferrum_moe_stacked_decode(&params, args->residual, args->next_norm_w,
                                         args->normed_out, args->rms_eps, err);
    bool few = args->tokens == 1 || (args->decode && args->tokens < plan->env.prefill_threshold);
    if (!few)
        FERRUM_TRY(ferrum_moe_stacked_prefill(&params, args->out, err));
    else if (plan->gemv_batched)
        FERRUM_TRY(ferrum_moe_stacked_decode_batched(&params, args->out, err));
    else
        FERRUM_TRY(ferrum_moe_stacked_decode_per_item(&params, args->out, err));
    return add_to_residual(s, args, err);
}

static ferrum_status_t run_per_pair(ferrum_moe_scratch_t *s, const ferrum_moe_run_args_t *args,
                                    ferrum_error_t *err)
{
    const ferrum_moe_plan_t *plan = &s->plan;
    ferrum_moe_forward_params_t params = {.ctx = args->ctx,
                                          .x = args->x,
                                          .router_logits = args->router_logits,
                                          .out = args->out,
                                          .batch = args->tokens,
                                          .hidden = plan->hidden,
                                          .intermediate = plan->intermediate,
                                          .num_experts = plan->num_experts,
                                          .top_k = plan->top_k,
                                          .norm_topk = plan->norm_topk,
                                          .experts = args->experts,
                                          .x_single = s->x.buffer,
                                          .acc_buf = s->acc.buffer,
                                          .gate_up_buf = s->gate_up.buffer,
                                          .silu_buf = s->silu.buffer,
                                          .down_buf = s->down.buffer,
                                          .zero_hidden = s->zero.buffer,
                                          .backend_host_route = plan->backend_host_route,
                                          .route_scratch = &s->host};
    FERRUM_TRY(ferrum_moe_forward(&params, err));
    return add_to_residual(s, args, err);
}

ferrum_status_t ferrum_moe_run(ferrum_moe_scratch_t *scratch, const ferrum_moe_run_args_t *args,
                               ferrum_error_t *err)
{
    if (!scratch || !args || !args->ctx || !args->experts || !args->x || !args->router_logits ||
        !args->out || (args->next_norm_w && (!args->residual || !args->normed_out)))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "moe_run needs a context, experts, x, router_logits and out; a norm "
                           "needs residual and normed_out too");
    if (args->tokens == 0)
        return FERRUM_OK;
    FERRUM_TRY(ferrum_moe_scratch_reserve(scratch, args->tokens, NULL, err));
    switch (scratch->plan.path) {
    case FERRUM_MOE_PATH_EXPERT_FFN:
        return run_ffn(scratch, args, err);
    case FERRUM_MOE_PATH_BUCKETED:
        return run_bucketed(scratch, args, err);
    case FERRUM_MOE_PATH_STACKED:
        return run_stacked(scratch, args, err);
    default:
        return run_per_pair(scratch, args, err);
    }
}
