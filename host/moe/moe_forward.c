/* SPDX-License-Identifier: MIT */
#include "host/moe/moe_forward.h"

#include <ferrum/util.h>

#include <string.h>

static ferrum_status_t check_experts(const ferrum_expert_stack_t *experts, uint32_t num_experts,
                                     ferrum_error_t *err)
{
    uint32_t have = ferrum_expert_stack_num_experts(experts);
    if (have != num_experts)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_EXPERTS,
                           "the expert stack has %u experts, the router %u", have, num_experts);
    if (!experts->gate_up || !experts->down)
        return ferrum_fail(err, FERRUM_NO_STACK, FERRUM_REASON_LAYOUT,
                           "these experts were not loaded one by one, as the per-pair path needs");
    return FERRUM_OK;
}

/* down_buf = down[id](silu(gate) * up) of x_single. */
static ferrum_status_t run_expert(const ferrum_moe_forward_params_t *p, uint32_t id,
                                  ferrum_error_t *err)
{
    const ferrum_ops_t *ops = p->experts->ops;
    if (id >= p->num_experts)
        return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                           "expert id %u is not below %u", id, p->num_experts);
    FERRUM_TRY(ops->linear->forward(p->ctx, p->experts->gate_up[id], p->x_single, 0, p->gate_up_buf,
                                    0, 1, err));
    FERRUM_TRY(ops->backend->fused_silu_mul_split(p->ctx, p->gate_up_buf, p->silu_buf, 1,
                                                  p->intermediate, err));
    return ops->linear->forward(p->ctx, p->experts->down[id], p->silu_buf, 0, p->down_buf, 0, 1,
                                err);
}

ferrum_status_t ferrum_moe_forward(const ferrum_moe_forward_params_t *p, ferrum_error_t *err)
{
    FERRUM_TRY(check_experts(p->experts, p->num_experts, err));
    const ferrum_ops_t *ops = p->experts->ops;
    const ferrum_backend_ops_t *backend = ops->backend;
    ferrum_context_t *ctx = p->ctx;
    FERRUM_TRY(ferrum_moe_route_on_host(ops, ctx, p->router_logits, p->batch, p->num_experts,
                                        p->top_k, p->norm_topk, p->backend_host_route,
                                        p->route_scratch, err));
    const ferrum_router_output_t *routing = &p->route_scratch->output;
    for (uint32_t t = 0; t < p->batch; t++) {
        uint64_t row = (uint64_t)t * p->hidden;
        FERRUM_TRY(backend->buffer_copy(ctx, p->x, row, p->x_single, 0, p->hidden, err));
        FERRUM_TRY(backend->buffer_copy(ctx, p->zero_hidden, 0, p->acc_buf, 0, p->hidden, err));
        for (uint32_t j = 0; j < p->top_k; j++) {
            size_t pair = (size_t)t * p->top_k + j;
            FERRUM_TRY(run_expert(p, routing->expert_ids[pair], err));
            FERRUM_TRY(backend->scaled_add_inplace(ctx, p->acc_buf, p->down_buf,
                                                   routing->expert_weights[pair], p->hidden, err));
        }
        FERRUM_TRY(backend->buffer_copy(ctx, p->acc_buf, 0, p->out, row, p->hidden, err));
    }
    return FERRUM_OK;
}

/* ---- the reference ---- */

typedef struct reference {
    ferrum_moe_forward_params_t params;
    ferrum_device_array_t x, gate_up, silu, down;
    ferrum_host_array_t row;
} reference_t;

static ferrum_status_t reference_reserve(reference_t *r, ferrum_error_t *err)
{
    const ferrum_ops_t *ops = r->params.experts->ops;
    ferrum_dtype_t act = ops->info.activation_dtype;
    uint32_t h = r->params.hidden, im = r->params.intermediate;
    FERRUM_TRY(ferrum_device_array_reserve(ops, act, h, &r->x, err));
    FERRUM_TRY(ferrum_device_array_reserve(ops, act, 2 * (uint64_t)im, &r->gate_up, err));
    FERRUM_TRY(ferrum_device_array_reserve(ops, act, im, &r->silu, err));
    FERRUM_TRY(ferrum_device_array_reserve(ops, act, h, &r->down, err));
    FERRUM_TRY(ferrum_host_array_reserve(&r->row, h, sizeof(float), err));
    r->params.x_single = r->x.buffer;
    r->params.gate_up_buf = r->gate_up.buffer;
    r->params.silu_buf = r->silu.buffer;
    r->params.down_buf = r->down.buffer;
    return FERRUM_OK;
}

static ferrum_status_t reference_rows(reference_t *r, const float *x,
                                      const ferrum_router_output_t *routing, float *out,
                                      ferrum_error_t *err)
{
    const ferrum_backend_ops_t *backend = r->params.experts->ops->backend;
    ferrum_context_t *ctx = r->params.ctx;
    uint32_t h = r->params.hidden;
    for (uint32_t t = 0; t < routing->batch; t++) {
        float *sum = out + (size_t)t * h;
        FERRUM_TRY(backend->buffer_write_f32(ctx, r->x.buffer, 0, x + (size_t)t * h, h, err));
        memset(sum, 0, h * sizeof *sum);
        for (uint32_t j = 0; j < routing->top_k; j++) {
            size_t pair = (size_t)t * routing->top_k + j;
            float *row = r->row.data;
            FERRUM_TRY(run_expert(&r->params, routing->expert_ids[pair], err));
            FERRUM_TRY(backend->buffer_read_f32(ctx, r->down.buffer, 0, row, h, err));
            for (uint32_t i = 0; i < h; i++)
                sum[i] += routing->expert_weights[pair] * row[i];
        }
    }
    return FERRUM_OK;
}

ferrum_status_t ferrum_moe_forward_cpu(ferrum_context_t *ctx, const ferrum_expert_stack_t *experts,
                                       const float *x, uint64_t x_count,
                                       const ferrum_router_output_t *routing, float *out,
                                       ferrum_error_t *err)
{
    uint32_t num_experts = ferrum_expert_stack_num_experts(experts);
    FERRUM_TRY(check_experts(experts, num_experts, err));
    if (x_count != (uint64_t)routing->batch * experts->hidden)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "x has %llu values, %u rows of %u need %llu",
                           (unsigned long long)x_count, routing->batch, experts->hidden,
                           (unsigned long long)routing->batch * experts->hidden);
    for (size_t pair = 0; pair < (size_t)routing->batch * routing->top_k; pair++)
        if (routing->expert_ids[pair] >= num_experts)
            return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                               "expert id %u of pair %zu is not below %u",
                               routing->expert_ids[pair], pair, num_experts);
    reference_t r = {.params = {.ctx = ctx,
                                .experts = experts,
                                .hidden = experts->hidden,
                                .intermediate = experts->intermediate,
                                .num_experts = num_experts}};
    ferrum_status_t status = reference_reserve(&r, err);
    if (status == FERRUM_OK)
        status = reference_rows(&r, x, routing, out, err);
    ferrum_device_array_free(experts->ops, &r.x);
    ferrum_device_array_free(experts->ops, &r.gate_up);
    ferrum_device_array_free(experts->ops, &r.silu);
    ferrum_device_array_free(experts->ops, &r.down);
    ferrum_host_array_free(&r.row);
    return status;
}
