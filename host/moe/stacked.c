/* SPDX-License-Identifier: MIT */
#include "host/moe/stacked.h"

#include <ferrum/util.h>

typedef ferrum_stacked_params_t params_t;

static ferrum_status_t check(const params_t *p, ferrum_error_t *err)
{
    uint32_t have = ferrum_expert_stack_num_experts(p->experts);
    if (have != p->plan->num_experts)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_EXPERTS,
                           "the expert stack has %u experts, the router %u", have,
                           p->plan->num_experts);
    return FERRUM_OK;
}

static const ferrum_buffer_t *ids_of(const params_t *p)
{
    return p->buffers.route->selected_ids.buffer;
}

static const ferrum_buffer_t *weights_of(const params_t *p)
{
    return p->buffers.route->pair_weights.buffer;
}

static ferrum_status_t route_on_host(const params_t *p, ferrum_error_t *err)
{
    const ferrum_moe_plan_t *plan = p->plan;
    const ferrum_ops_t *ops = p->experts->ops;
    ferrum_device_route_scratch_t *route = p->buffers.route;
    uint64_t pairs = (uint64_t)p->batch * plan->top_k;
    FERRUM_TRY(ferrum_moe_route_on_host(ops, p->ctx, p->router_logits, p->batch, plan->num_experts,
                                        plan->top_k, plan->norm_topk, plan->backend_host_route,
                                        p->route_scratch, err));
    const ferrum_router_output_t *output = &p->route_scratch->output;
    FERRUM_TRY(ops->backend->buffer_write(p->ctx, route->selected_ids.buffer, 0, FERRUM_DTYPE_I32,
                                          output->expert_ids, pairs, err));
    return ops->backend->buffer_write(p->ctx, route->pair_weights.buffer, 0, FERRUM_DTYPE_F32,
                                      output->expert_weights, pairs, err);
}

/* Leaves ids and weights in the route buffers. */
static ferrum_status_t route(const params_t *p, bool on_host, ferrum_error_t *err)
{
    const ferrum_moe_plan_t *plan = p->plan;
    ferrum_device_route_scratch_t *scratch = p->buffers.route;
    if (on_host || !plan->device_route)
        return route_on_host(p, err);
    return p->experts->ops->moe->route_topk_softmax(
        p->ctx, p->router_logits, scratch->selected_ids.buffer, scratch->pair_weights.buffer,
        p->batch, plan->num_experts, plan->top_k, plan->norm_topk, NULL, err);
}

/* ---- one token ---- */

/* down buffer = experts of the token at x_offset, whose ids begin at ids_offset. */
static ferrum_status_t run_token(const params_t *p, uint64_t x_offset, uint64_t ids_offset,
                                 ferrum_error_t *err)
{
    const ferrum_stacked_buffers_t *b = &p->buffers;
    const ferrum_moe_plan_t *plan = p->plan;
    if (plan->fused_gate_up && x_offset == 0 && ids_offset == 0) {
        FERRUM_TRY(ferrum_expert_stack_gemv_gate_up_silu(p->ctx, p->experts, p->x, ids_of(p),
                                                         b->silu, plan->top_k, err));
    } else {
        FERRUM_TRY(ferrum_expert_stack_gemv_offset(p->ctx, p->experts, FERRUM_ROLE_GATE, p->x,
                                                   x_offset, ids_of(p), ids_offset, b->gate,
                                                   plan->top_k, err));
        FERRUM_TRY(ferrum_expert_stack_gemv_offset(p->ctx, p->experts, FERRUM_ROLE_UP, p->x,
                                                   x_offset, ids_of(p), ids_offset, b->up,
                                                   plan->top_k, err));
        FERRUM_TRY(p->experts->ops->moe->silu_mul_stacked(p->ctx, b->gate, b->up, b->silu,
                                                          plan->top_k, plan->intermediate, err));
    }
    return ferrum_expert_stack_gemv_offset(p->ctx, p->experts, FERRUM_ROLE_DOWN, b->silu, 0,
                                           ids_of(p), ids_offset, b->down, plan->top_k, err);
}

ferrum_status_t ferrum_moe_stacked_decode(const ferrum_stacked_params_t *params,
                                          ferrum_buffer_t *residual,
                                          const ferrum_buffer_t *next_norm_w,
                                          ferrum_buffer_t *normed_out, float rms_eps,
                                          ferrum_error_t *err)
{
    const params_t *p = params;
    const ferrum_moe_plan_t *plan = p->plan;
    const ferrum_moe_fused_ops_t *moe = p->experts->ops->moe;
    FERRUM_TRY(check(p, err));
    if (p->batch != 1)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "stacked decode takes one token, not %u", p->batch);
    FERRUM_TRY(route(p, false, err));
    FERRUM_TRY(run_token(p, 0, 0, err));
    if (next_norm_w)
        return moe->weighted_sum_residual_norm_stacked(p->ctx, p->buffers.down, weights_of(p),
                                                       residual, next_norm_w, normed_out,
                                                       plan->top_k, plan->hidden, rms_eps, err);
    return moe->weighted_sum_residual_stacked(p->ctx, p->buffers.down, weights_of(p), residual,
                                              plan->top_k, plan->hidden, err);
}

ferrum_status_t ferrum_moe_stacked_decode_per_item(const ferrum_stacked_params_t *params,
                                                   ferrum_buffer_t *out, ferrum_error_t *err)
{
    const params_t *p = params;
    const ferrum_moe_plan_t *plan = p->plan;
    FERRUM_TRY(check(p, err));
    FERRUM_TRY(route(p, false, err));
    for (uint32_t t = 0; t < p->batch; t++) {
        uint64_t pair = (uint64_t)t * plan->top_k, row = (uint64_t)t * plan->hidden;
        FERRUM_TRY(run_token(p, row, pair, err));
        FERRUM_TRY(p->experts->ops->moe->weighted_sum_batched_offset(
            p->ctx, p->buffers.down, weights_of(p), pair, out, row, 1, plan->top_k, plan->hidden,
            err));
    }
    return FERRUM_OK;
}

/* ---- several tokens ---- */

ferrum_status_t ferrum_moe_stacked_decode_batched(const ferrum_stacked_params_t *params,
                                                  ferrum_buffer_t *out, ferrum_error_t *err)
{
    const params_t *p = params;
    const ferrum_moe_plan_t *plan = p->plan;
    const ferrum_stacked_buffers_t *b = &p->buffers;
    uint32_t m = p->batch, k = plan->top_k, im = plan->intermediate;
    FERRUM_TRY(check(p, err));
    FERRUM_TRY(route(p, false, err));
    if (plan->fused_gate_up_batched) {
        FERRUM_TRY(ferrum_expert_stack_gemv_gate_up_silu_batched(
            p->ctx, p->experts, p->x, ids_of(p), b->silu, m, k, plan->hidden, 0, err));
    } else {
        FERRUM_TRY(ferrum_expert_stack_gemv_batched(p->ctx, p->experts, FERRUM_ROLE_GATE, p->x,
                                                    ids_of(p), b->gate, m, k, plan->hidden, 0,
                                                    err));
        FERRUM_TRY(ferrum_expert_stack_gemv_batched(p->ctx, p->experts, FERRUM_ROLE_UP, p->x,
                                                    ids_of(p), b->up, m, k, plan->hidden, 0, err));
        FERRUM_TRY(p->experts->ops->moe->silu_mul_batched(p->ctx, b->gate, b->up, b->silu, m * k,
                                                          im, err));
    }
    FERRUM_TRY(ferrum_expert_stack_gemv_batched(p->ctx, p->experts, FERRUM_ROLE_DOWN, b->silu,
                                                ids_of(p), b->down, m, k, (uint64_t)k * im, im,
                                                err));
    return p->experts->ops->moe->weighted_sum_batched(p->ctx, b->down, weights_of(p), out, m, k,
                                                      plan->hidden, err);
}

/* How the grouped GEMMs of prefill are launched. */
typedef struct launch {
    uint32_t max_per_expert;
    const ferrum_buffer_t *gate_up_args; /* NULL: direct */
    const ferrum_buffer_t *down_args;
} launch_t;

static ferrum_status_t lists_on_host(const params_t *p, launch_t *out_launch, ferrum_error_t *err)
{
    const ferrum_backend_ops_t *backend = p->experts->ops->backend;
    ferrum_ids_tpe_t *lists = &p->route_scratch->lists;
    uint32_t experts = p->plan->num_experts;
    FERRUM_TRY(ferrum_compute_ids_tpe(p->route_scratch->output.expert_ids,
                                      p->batch * p->plan->top_k, experts, lists, err));
    FERRUM_TRY(backend->buffer_write(p->ctx, p->buffers.tpe, 0, FERRUM_DTYPE_I32, lists->tpe,
                                     experts, err));
    FERRUM_TRY(backend->buffer_write(p->ctx, p->buffers.ids_2d, 0, FERRUM_DTYPE_I32, lists->ids,
                                     (uint64_t)experts * lists->max_per_expert, err));
    *out_launch = (launch_t){.max_per_expert = lists->max_per_expert};
    return FERRUM_OK;
}

static ferrum_status_t lists_on_device(const params_t *p, launch_t *out_launch, ferrum_error_t *err)
{
    const ferrum_moe_plan_t *plan = p->plan;
    const ferrum_stacked_buffers_t *b = &p->buffers;
    FERRUM_TRY(p->experts->ops->moe->compute_ids_tpe(
        p->ctx, ids_of(p), b->tpe, b->ids_2d, b->gate_up_args, b->down_args, p->batch,
        plan->num_experts, plan->top_k, plan->intermediate, plan->hidden, err));
    *out_launch = (launch_t){.max_per_expert = p->batch * plan->top_k};
    if (!plan->env.direct_dispatch) {
        out_launch->gate_up_args = b->gate_up_args;
        out_launch->down_args = b->down_args;
    }
    return FERRUM_OK;
}

static ferrum_status_t grouped(const params_t *p, const launch_t *launch, ferrum_expert_role_t role,
                               const ferrum_buffer_t *in, ferrum_buffer_t *out, ferrum_error_t *err)
{
    return ferrum_expert_stack_gemm(
        p->ctx, p->experts, role, in, p->buffers.ids_2d, p->buffers.tpe, out,
        role == FERRUM_ROLE_DOWN ? launch->down_args : launch->gate_up_args, p->plan->top_k,
        launch->max_per_expert, p->batch, err);
}

ferrum_status_t ferrum_moe_stacked_prefill(const ferrum_stacked_params_t *params,
                                           ferrum_buffer_t *out, ferrum_error_t *err)
{
    const params_t *p = params;
    const ferrum_moe_plan_t *plan = p->plan;
    const ferrum_stacked_buffers_t *b = &p->buffers;
    const ferrum_moe_fused_ops_t *moe = p->experts->ops->moe;
    bool on_host = plan->env.host_topk || !plan->device_route;
    launch_t launch;
    FERRUM_TRY(check(p, err));
    FERRUM_TRY(route(p, on_host, err));
    FERRUM_TRY(on_host ? lists_on_host(p, &launch, err) : lists_on_device(p, &launch, err));
    FERRUM_TRY(grouped(p, &launch, FERRUM_ROLE_GATE, p->x, b->gate, err));
    FERRUM_TRY(grouped(p, &launch, FERRUM_ROLE_UP, p->x, b->up, err));
    FERRUM_TRY(moe->silu_mul_batched(p->ctx, b->gate, b->up, b->silu, p->batch * plan->top_k,
                                     plan->intermediate, err));
    FERRUM_TRY(grouped(p, &launch, FERRUM_ROLE_DOWN, b->silu, b->down, err));
    return moe->weighted_sum_batched(p->ctx, b->down, weights_of(p), out, p->batch, plan->top_k,
                                     plan->hidden, err);
}
