/* SPDX-License-Identifier: MIT */
#include <config.h>

#include "host/moe/moe_forward_bucketed.h"

#include <ferrum/util.h>

#include <time.h>

typedef ferrum_moe_forward_bucketed_params_t params_t;

/* What is decided and built for one call. */
typedef struct run {
    const params_t *p;
    const ferrum_ops_t *ops;
    uint32_t pairs;
    bool aligned;    /* phases go through gemm_phase_vllm */
    bool on_device;  /* routing, plan and alignment stay on the device */
    bool pair_ids;   /* rows are pair ids: no gather */
    bool zero_first; /* clear workspaces before each phase */
    uint32_t block_size;
    ferrum_device_route_scratch_t *device; /* where the device side of routing lives */
    ferrum_moe_routing_t routing;
    uint32_t dispatch_count;
    int64_t mark_us; /* end of the last measured step */
} run_t;

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* End of a step: wait for it and count its time, if anybody measures. */
static ferrum_status_t step_done(run_t *run, ferrum_moe_step_t step, ferrum_error_t *err)
{
    ferrum_moe_profile_t *profile = run->p->profile;
    if (!profile)
        return FERRUM_OK;
    FERRUM_TRY(run->ops->backend->context_sync(run->p->ctx, err));
    int64_t now = now_us();
    atomic_fetch_add(&profile->step_us[step], (uint64_t)(now - run->mark_us));
    run->mark_us = now;
    return FERRUM_OK;
}

static ferrum_status_t check(const params_t *p, ferrum_error_t *err)
{
    uint32_t have = ferrum_expert_stack_num_experts(p->experts);
    if (have != p->num_experts)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_EXPERTS,
                           "the expert stack has %u experts, the router %u", have, p->num_experts);
    if (!ferrum_expert_stack_gate_up_store(p->experts))
        return ferrum_fail(err, FERRUM_NO_STACK, FERRUM_REASON_LAYOUT,
                           "the bucketed path requires stacked gate_up store");
    if (!ferrum_expert_stack_down_store(p->experts))
        return ferrum_fail(err, FERRUM_NO_STACK, FERRUM_REASON_LAYOUT,
                           "the bucketed path requires stacked down store");
    if (p->top_k == 0 || p->top_k > p->num_experts || (uint64_t)p->batch * p->top_k > INT32_MAX / 2)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_TOP_K,
                           "%u tokens with top_k %u of %u experts", p->batch, p->top_k,
                           p->num_experts);
    return FERRUM_OK;
}

static void decide(run_t *run)
{
    const params_t *p = run->p;
    const ferrum_moe_env_t *env = p->env;
    bool forced = env->device_route == 1 && p->device_route;
    bool allowed = p->device_route && env->device_route != 0 && !env->host_route;
    run->pairs = p->batch * p->top_k;
    run->aligned = env->vllm_moe || p->experts->requires_vllm || forced;
    run->on_device = run->aligned && allowed;
    run->pair_ids = run->on_device && env->pair_ids;
    run->zero_first = !run->aligned || env->zero_workspace;
}

/* ---- routing, plan, alignment ---- */

static ferrum_status_t route_on_device(run_t *run, ferrum_error_t *err)
{
    const params_t *p = run->p;
    const ferrum_moe_fused_ops_t *moe = run->ops->moe;
    ferrum_device_route_scratch_t *d = run->device;
    FERRUM_TRY(moe->route_topk_softmax(p->ctx, p->router_logits, d->selected_ids.buffer,
                                       d->pair_weights.buffer, p->batch, p->num_experts, p->top_k,
                                       p->norm_topk, NULL, err));
    FERRUM_TRY(step_done(run, FERRUM_MOE_STEP_ROUTE, err));
    if (!run->pair_ids)
        FERRUM_TRY(moe->moe_build_pairs_by_token(
            p->ctx, d->selected_ids.buffer, d->pairs_by_token.buffer, d->packed_token_idx.buffer,
            d->expert_offsets.buffer, run->pairs, p->num_experts, p->top_k, err));
    run->block_size = ferrum_moe_choose_block_size(p->env, run->pairs, NULL);
    uint32_t sorted_max = run->pairs + p->num_experts * run->block_size;
    FERRUM_TRY((run->pair_ids ? moe->moe_align_block_size_pair_ids : moe->moe_align_block_size)(
        p->ctx, d->selected_ids.buffer, d->sorted_tokens.buffer, d->block_ids.buffer,
        d->total_post_pad.buffer, run->pairs, p->num_experts, run->block_size, sorted_max, err));
    return step_done(run, FERRUM_MOE_STEP_PLAN, err);
}

/* Largest first, then the lower expert, so that work is spread well and the order is fixed. A
 * shell sort, because qsort may allocate. */
static bool goes_before(const ferrum_moe_dispatch_t *a, const ferrum_moe_dispatch_t *b)
{
    return a->rows != b->rows ? a->rows > b->rows : a->expert < b->expert;
}

static void sort_dispatches(ferrum_moe_dispatch_t *list, uint32_t count)
{
    for (uint32_t gap = count / 2; gap > 0; gap /= 2) {
        for (uint32_t i = gap; i < count; i++) {
            ferrum_moe_dispatch_t moving = list[i];
            uint32_t j = i;
            for (; j >= gap && goes_before(&moving, &list[j - gap]); j -= gap)
                list[j] = list[j - gap];
            list[j] = moving;
        }
    }
}

static ferrum_status_t build_dispatches(run_t *run, ferrum_error_t *err)
{
    ferrum_moe_route_scratch_t *scratch = run->p->route_scratch;
    const ferrum_bucket_plan_t *plan = &scratch->plan;
    FERRUM_TRY(ferrum_host_array_reserve(&scratch->dispatches, plan->num_experts,
                                         sizeof(ferrum_moe_dispatch_t), err));
    ferrum_moe_dispatch_t *list = scratch->dispatches.data;
    uint32_t count = 0;
    for (uint32_t e = 0; e < plan->num_experts; e++) {
        uint32_t rows = ferrum_bucket_plan_rows(plan, e), first = plan->expert_offsets[e];
        if (rows > 0)
            list[count++] = (ferrum_moe_dispatch_t){
                .expert = e, .in_row = first, .out_row = first, .rows = rows};
    }
    sort_dispatches(list, count);
    run->dispatch_count = count;
    return FERRUM_OK;
}

static ferrum_status_t upload_plan(run_t *run, ferrum_error_t *err)
{
    const params_t *p = run->p;
    const ferrum_backend_ops_t *backend = run->ops->backend;
    ferrum_moe_route_scratch_t *scratch = p->route_scratch;
    const ferrum_bucket_plan_t *plan = &scratch->plan;
    FERRUM_TRY(backend->buffer_write(p->ctx, run->device->pairs_by_token.buffer, 0,
                                     FERRUM_DTYPE_I32, plan->pairs_by_token, run->pairs, err));
    FERRUM_TRY(backend->buffer_write(p->ctx, run->device->pair_weights.buffer, 0, FERRUM_DTYPE_F32,
                                     plan->pair_weights, run->pairs, err));
    if (!run->aligned)
        return build_dispatches(run, err);
    run->block_size = ferrum_moe_choose_block_size(p->env, run->pairs, plan);
    FERRUM_TRY(ferrum_moe_align(plan, run->block_size, FERRUM_ALIGN_PACKED_ROWS,
                                &scratch->alignment, err));
    const ferrum_moe_alignment_t *a = &scratch->alignment;
    return run->ops->moe->upload_moe_routing(p->ctx, a->sorted, a->total, a->block_ids, a->blocks,
                                             (int32_t)a->total, &run->routing, err);
}

static ferrum_status_t route_on_host(run_t *run, ferrum_error_t *err)
{
    const params_t *p = run->p;
    ferrum_moe_route_scratch_t *scratch = p->route_scratch;
    if (p->backend_host_route) {
        FERRUM_TRY(ferrum_moe_route_on_host(run->ops, p->ctx, p->router_logits, p->batch,
                                            p->num_experts, p->top_k, p->norm_topk, true, scratch,
                                            err));
    } else {
        FERRUM_TRY(ferrum_moe_read_logits(run->ops, p->ctx, p->router_logits, p->batch,
                                          p->num_experts, scratch, err));
        FERRUM_TRY(step_done(run, FERRUM_MOE_STEP_D2H, err));
        FERRUM_TRY(ferrum_moe_route_logits(p->batch, p->num_experts, p->top_k, p->norm_topk,
                                           scratch, err));
    }
    FERRUM_TRY(step_done(run, FERRUM_MOE_STEP_ROUTE, err));
    FERRUM_TRY(ferrum_bucket_plan_rebuild(&scratch->output, p->num_experts, &scratch->plan, err));
    FERRUM_TRY(upload_plan(run, err));
    return step_done(run, FERRUM_MOE_STEP_PLAN, err);
}

static ferrum_status_t route(run_t *run, ferrum_error_t *err)
{
    const params_t *p = run->p;
    run->device = p->device_route;
    if (!run->device) {
        run->device = &p->route_scratch->upload;
        FERRUM_TRY(ferrum_device_route_scratch_reserve(run->ops, p->batch, p->num_experts, p->top_k,
                                                       run->device, err));
    }
    run->routing =
        (ferrum_moe_routing_t){.head = FERRUM_HEAD(ferrum_moe_routing_t),
                               .sorted_token_ids = run->device->sorted_tokens.buffer,
                               .expert_ids = run->device->block_ids.buffer,
                               .num_tokens_past_padded = run->device->total_post_pad.buffer};
    return run->on_device ? route_on_device(run, err) : route_on_host(run, err);
}

/* ---- phases ---- */

static ferrum_status_t gather(run_t *run, ferrum_error_t *err)
{
    const params_t *p = run->p;
    const ferrum_backend_ops_t *backend = run->ops->backend;
    if (run->pair_ids)
        return FERRUM_OK;
    if (run->on_device)
        FERRUM_TRY(backend->embedding_lookup_dev(p->ctx, p->x, run->device->packed_token_idx.buffer,
                                                 run->pairs, p->x_packed, p->hidden, err));
    else
        FERRUM_TRY(backend->embedding_lookup(p->ctx, p->x, p->route_scratch->plan.packed_token_idx,
                                             run->pairs, p->x_packed, p->hidden, err));
    return step_done(run, FERRUM_MOE_STEP_GATHER, err);
}

/* out = in * W[expert of the row]^T. @p rows input rows, each shared by @p top_k output rows. */
static ferrum_status_t gemm(run_t *run, ferrum_marlin_stack_t *stack, const ferrum_buffer_t *in,
                            ferrum_buffer_t *out, uint32_t rows, uint32_t top_k, uint32_t k,
                            ferrum_error_t *err)
{
    const ferrum_marlin_stack_ops_t *marlin = run->ops->marlin;
    ferrum_context_t *ctx = run->p->ctx;
    if (run->zero_first)
        FERRUM_TRY(marlin->zero_workspace(ctx, stack, err));
    if (run->aligned)
        return marlin->gemm_phase_vllm(ctx, stack, in, &run->routing, out, rows, run->block_size,
                                       top_k, err);
    return marlin->gemm_phase_batched(ctx, stack, in, run->p->route_scratch->dispatches.data,
                                      run->dispatch_count, out, k, err);
}

static ferrum_status_t phases(run_t *run, ferrum_error_t *err)
{
    const params_t *p = run->p;
    FERRUM_TRY(gemm(run, ferrum_expert_stack_gate_up_store(p->experts),
                    run->pair_ids ? p->x : p->x_packed, p->gate_up_packed,
                    run->pair_ids ? p->batch : run->pairs, run->pair_ids ? p->top_k : 1, p->hidden,
                    err));
    FERRUM_TRY(step_done(run, FERRUM_MOE_STEP_GEMM1, err));
    FERRUM_TRY(run->ops->backend->fused_silu_mul_split(p->ctx, p->gate_up_packed, p->silu_packed,
                                                       run->pairs, p->intermediate, err));
    FERRUM_TRY(step_done(run, FERRUM_MOE_STEP_SILU, err));
    FERRUM_TRY(gemm(run, ferrum_expert_stack_down_store(p->experts), p->silu_packed, p->down_packed,
                    run->pairs, 1, p->intermediate, err));
    return step_done(run, FERRUM_MOE_STEP_GEMM3, err);
}

static ferrum_status_t combine(run_t *run, ferrum_error_t *err)
{
    const params_t *p = run->p;
    const ferrum_moe_fused_ops_t *moe = run->ops->moe;
    if (run->pair_ids)
        FERRUM_TRY(moe->weighted_sum_batched(p->ctx, p->down_packed,
                                             run->device->pair_weights.buffer, p->out, p->batch,
                                             p->top_k, p->hidden, err));
    else
        FERRUM_TRY(moe->moe_combine(p->ctx, p->down_packed, run->device->pairs_by_token.buffer,
                                    run->device->pair_weights.buffer, p->out, p->batch, p->hidden,
                                    p->top_k, run->pairs, err));
    return step_done(run, FERRUM_MOE_STEP_COMBINE, err);
}

ferrum_status_t ferrum_moe_forward_bucketed(const ferrum_moe_forward_bucketed_params_t *params,
                                            ferrum_error_t *err)
{
    FERRUM_TRY(check(params, err));
    if (params->batch == 0)
        return FERRUM_OK;
    run_t run = {.p = params, .ops = params->experts->ops};
    decide(&run);
    if (params->profile) {
        run.mark_us = now_us();
        FERRUM_TRY(step_done(&run, FERRUM_MOE_STEP_SYNC, err));
    }
    FERRUM_TRY(route(&run, err));
    FERRUM_TRY(gather(&run, err));
    FERRUM_TRY(phases(&run, err));
    FERRUM_TRY(combine(&run, err));
    if (params->profile)
        atomic_fetch_add(&params->profile->layers, 1);
    return FERRUM_OK;
}
