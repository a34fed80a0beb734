/* SPDX-License-Identifier: MIT */
#include "backends/cpu/entries.h"
#include "backends/cpu/gate_up.h"
#include "backends/cpu/grouping.h"

struct ferrum_stacked_experts {
    atomic_uint refs;
    ferrum_device_t *device;
    ferrum_cpu_weights_t weights;
};

ferrum_status_t ferrum_cpu_load_quant_experts(ferrum_device_t *device,
                                              const ferrum_gguf_weights_t *weights,
                                              ferrum_stacked_experts_t **out_stack,
                                              ferrum_error_t *err)
{
    ferrum_cpu_weights_t loaded;

    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(out_stack, err);
    const ferrum_cpu_loading_t loading = {.precision = device->precision};
    FERRUM_TRY(ferrum_cpu_weights_from_gguf(device, weights, &loading, &loaded, err));
    ferrum_stacked_experts_t *stack =
        ferrum_cpu_object_new(device, sizeof *stack, "an expert stack", err);
    if (!stack) {
        ferrum_cpu_weights_free(device, &loaded);
        return FERRUM_OUT_OF_MEMORY;
    }
    atomic_init(&stack->refs, 1);
    stack->device = device;
    stack->weights = loaded;
    *out_stack = stack;
    return FERRUM_OK;
}

void ferrum_cpu_stacked_experts_retain(ferrum_stacked_experts_t *stack)
{
    ferrum_cpu_ref(&stack->refs);
}

void ferrum_cpu_stacked_experts_release(ferrum_stacked_experts_t *stack)
{
    if (!stack || !ferrum_cpu_unref(&stack->refs))
        return;
    ferrum_cpu_weights_free(stack->device, &stack->weights);
    ferrum_cpu_object_free(stack->device, stack, sizeof *stack);
}

ferrum_status_t ferrum_cpu_stacked_experts_info(const ferrum_stacked_experts_t *stack,
                                                ferrum_expert_stack_info_t *out_info,
                                                ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(stack, err);
    const ferrum_expert_stack_info_t info = {
        .head = FERRUM_HEAD(ferrum_expert_stack_info_t),
        .error_bound = ferrum_cpu_weights_error_bound(&stack->weights),
        .num_experts = stack->weights.experts,
        .n = stack->weights.n,
        .k = stack->weights.k,
        .format = stack->weights.format,
        .bytes = ferrum_cpu_weights_bytes(&stack->weights),
    };
    return ferrum_fill_struct(__func__, out_info, FERRUM_EXPERT_STACK_INFO_MIN_SIZE, &info, err);
}

/** The gemv forms: pair p reads the row at `(p/top_k)*outer + (p%top_k)*inner` of a. */
typedef struct gemv {
    const char *function;
    const ferrum_stacked_experts_t *stack;
    const ferrum_stacked_experts_t *up; /**< NULL: one product, no activation */
    const ferrum_buffer_t *a;
    uint64_t a_offset;
    const ferrum_buffer_t *ids;
    uint64_t ids_offset;
    ferrum_buffer_t *out;
    uint64_t out_offset;
    uint32_t tokens;
    uint32_t top_k;
    uint64_t outer;
    uint64_t inner;
} gemv_t;

static ferrum_status_t check_gemv(const ferrum_context_t *ctx, const gemv_t *gemv,
                                  ferrum_error_t *err)
{
    const ferrum_cpu_weights_t *weights = &gemv->stack->weights;
    const uint64_t pairs = ferrum_size_mul(gemv->tokens, gemv->top_k);
    uint64_t span = 0;

    if (pairs > 0)
        span = ferrum_size_add(ferrum_size_add(ferrum_size_mul(gemv->tokens - 1, gemv->outer),
                                               ferrum_size_mul(gemv->top_k - 1, gemv->inner)),
                               weights->k);
    const ferrum_cpu_operand_t operands[] = {
        {"a", gemv->a, FERRUM_DTYPE_F32, gemv->a_offset, span},
        {"ids", gemv->ids, FERRUM_DTYPE_I32, gemv->ids_offset, pairs},
        {"out", gemv->out, FERRUM_DTYPE_F32, gemv->out_offset, ferrum_size_mul(pairs, weights->n)}};
    FERRUM_TRY(ferrum_cpu_check_operands(gemv->function, ctx, operands, 3, err));
    if (pairs > INT32_MAX)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                           "%s: %llu pairs do not fit in an i32 index",
                           ferrum_op_name(gemv->function), (unsigned long long)pairs);
    if (gemv->up && (gemv->up->weights.n != weights->n || gemv->up->weights.k != weights->k ||
                     gemv->up->weights.experts != weights->experts))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "%s: gate [%u, %u, %u] and up [%u, %u, %u] differ in shape",
                           ferrum_op_name(gemv->function), weights->experts, weights->n, weights->k,
                           gemv->up->weights.experts, gemv->up->weights.n, gemv->up->weights.k);
    return ferrum_cpu_check_ids(gemv->function, "ids", ferrum_cpu_i32(gemv->ids) + gemv->ids_offset,
                                pairs, -1, weights->experts, err);
}

/** Products of rows at known places, with one stack or with gate and up. */
static ferrum_status_t run_buckets(ferrum_context_t *ctx, const ferrum_cpu_weights_t *weights,
                                   const ferrum_cpu_weights_t *up, ferrum_cpu_bucket_t *buckets,
                                   uint32_t count, ferrum_cpu_rows_t x, ferrum_cpu_rows_t y,
                                   uint64_t capacity, ferrum_error_t *err)
{
    if (up) {
        ferrum_cpu_gate_up_t job = {.activation.kind = FERRUM_ACTIVATION_SILU_MUL};
        FERRUM_TRY(
            ferrum_cpu_gate_up_init(ctx, &job, weights, up, buckets, count, x, y, capacity, err));
        ferrum_cpu_gate_up_run(ctx, &job);
        return FERRUM_OK;
    }
    ferrum_cpu_product_t product;
    FERRUM_TRY(ferrum_cpu_product_init(ctx, &product, weights->matrices, buckets, count, x, y,
                                       capacity, FERRUM_CPU_SCRATCH_GATHER, err));
    ferrum_cpu_product_run(ctx, &product);
    return FERRUM_OK;
}

static ferrum_status_t run_gemv(ferrum_context_t *ctx, const gemv_t *gemv, ferrum_error_t *err)
{
    const ferrum_cpu_weights_t *weights = &gemv->stack->weights;
    ferrum_cpu_grouping_t grouping;
    ferrum_cpu_places_t places;

    FERRUM_TRY(check_gemv(ctx, gemv, err));
    const uint32_t pairs = gemv->tokens * gemv->top_k;
    FERRUM_TRY(ferrum_cpu_group_pairs(ctx, ferrum_cpu_i32(gemv->ids) + gemv->ids_offset, pairs, 0,
                                      weights->experts, &grouping, err));
    FERRUM_TRY(ferrum_cpu_new_places(ctx, pairs, &places, err));
    for (uint32_t r = 0; r < grouping.rows; r++) {
        const uint32_t pair = grouping.pairs[r];
        places.in[r] = pair / gemv->top_k * gemv->outer + pair % gemv->top_k * gemv->inner;
        places.out[r] = (uint64_t)pair * weights->n;
    }
    return run_buckets(
        ctx, weights, gemv->up ? &gemv->up->weights : NULL, grouping.buckets, grouping.bucket_count,
        (ferrum_cpu_rows_t){ferrum_cpu_f32(gemv->a) + gemv->a_offset, places.in, 0},
        (ferrum_cpu_rows_t){ferrum_cpu_f32(gemv->out) + gemv->out_offset, places.out, 0}, pairs,
        err);
}

ferrum_status_t ferrum_cpu_gemv_moe_id(ferrum_context_t *ctx, const ferrum_stacked_experts_t *stack,
                                       const ferrum_buffer_t *a, uint64_t a_offset,
                                       const ferrum_buffer_t *ids, uint64_t ids_offset,
                                       ferrum_buffer_t *out, uint64_t out_offset, uint32_t n_sel,
                                       uint64_t stride, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(stack, err);
    const gemv_t gemv = {.function = __func__,
                         .stack = stack,
                         .a = a,
                         .a_offset = a_offset,
                         .ids = ids,
                         .ids_offset = ids_offset,
                         .out = out,
                         .out_offset = out_offset,
                         .tokens = n_sel,
                         .top_k = 1,
                         .outer = stride};
    return run_gemv(ctx, &gemv, err);
}

ferrum_status_t
ferrum_cpu_gemv_moe_id_gate_up_silu(ferrum_context_t *ctx, const ferrum_stacked_experts_t *gate,
                                    const ferrum_stacked_experts_t *up, const ferrum_buffer_t *a,
                                    const ferrum_buffer_t *ids, ferrum_buffer_t *out,
                                    uint32_t n_sel, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(gate, err);
    FERRUM_CHECK_POINTER(up, err);
    const gemv_t gemv = {.function = __func__,
                         .stack = gate,
                         .up = up,
                         .a = a,
                         .ids = ids,
                         .out = out,
                         .tokens = n_sel,
                         .top_k = 1};
    return run_gemv(ctx, &gemv, err);
}

ferrum_status_t ferrum_cpu_gemv_moe_id_batched(ferrum_context_t *ctx,
                                               const ferrum_stacked_experts_t *stack,
                                               const ferrum_buffer_t *a, const ferrum_buffer_t *ids,
                                               ferrum_buffer_t *out, uint32_t m, uint32_t top_k,
                                               uint64_t outer, uint64_t inner, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(stack, err);
    const gemv_t gemv = {.function = __func__,
                         .stack = stack,
                         .a = a,
                         .ids = ids,
                         .out = out,
                         .tokens = m,
                         .top_k = top_k,
                         .outer = outer,
                         .inner = inner};
    return run_gemv(ctx, &gemv, err);
}

ferrum_status_t ferrum_cpu_gemv_moe_id_gate_up_silu_batched(
    ferrum_context_t *ctx, const ferrum_stacked_experts_t *gate, const ferrum_stacked_experts_t *up,
    const ferrum_buffer_t *a, const ferrum_buffer_t *ids, ferrum_buffer_t *out, uint32_t m,
    uint32_t top_k, uint64_t outer, uint64_t inner, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(gate, err);
    FERRUM_CHECK_POINTER(up, err);
    const gemv_t gemv = {.function = __func__,
                         .stack = gate,
                         .up = up,
                         .a = a,
                         .ids = ids,
                         .out = out,
                         .tokens = m,
                         .top_k = top_k,
                         .outer = outer,
                         .inner = inner};
    return run_gemv(ctx, &gemv, err);
}

/** Lists of pairs per expert, as gemm_moe_id takes them. */
typedef struct pair_lists {
    const int32_t *ids; /**< [E, max_per_expert] */
    const int32_t *tpe; /**< [E] */
    uint32_t experts;
    uint32_t max_per_expert;
    uint32_t pairs;
} pair_lists_t;

/** Ids in range, and no pair twice: two threads would write its row. */
static ferrum_status_t check_lists(ferrum_context_t *ctx, const pair_lists_t *lists,
                                   ferrum_error_t *err)
{
    uint8_t *marks;

    FERRUM_TRY(ferrum_cpu_check_ids("gemm_moe_id", "tpe", lists->tpe, lists->experts, 0,
                                    (int64_t)lists->max_per_expert + 1, err));
    FERRUM_TRY(ferrum_cpu_new_marks(ctx, lists->pairs, &marks, err));
    for (uint32_t e = 0; e < lists->experts; e++) {
        const int32_t *list = lists->ids + (size_t)e * lists->max_per_expert;
        FERRUM_TRY(ferrum_cpu_check_ids("gemm_moe_id", "ids", list, (uint64_t)lists->tpe[e], 0,
                                        lists->pairs, err));
        for (int32_t s = 0; s < lists->tpe[e]; s++) {
            if (marks[list[s]])
                return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                                   "gemm_moe_id: pair %d is listed twice", list[s]);
            marks[list[s]] = 1;
        }
    }
    return FERRUM_OK;
}

static ferrum_status_t run_lists(ferrum_context_t *ctx, const ferrum_stacked_experts_t *stack,
                                 const pair_lists_t *lists, float *a, float *out,
                                 uint32_t pairs_per_row, ferrum_error_t *err)
{
    const ferrum_cpu_weights_t *weights = &stack->weights;
    ferrum_cpu_places_t places;
    uint32_t count = 0, r = 0;

    FERRUM_TRY(check_lists(ctx, lists, err));
    FERRUM_TRY(ferrum_cpu_new_places(ctx, lists->pairs, &places, err));
    ferrum_cpu_bucket_t *buckets =
        ferrum_cpu_scratch(ctx, FERRUM_CPU_SCRATCH_BUCKETS, weights->experts, sizeof *buckets, err);
    if (!buckets)
        return FERRUM_OUT_OF_MEMORY;
    for (uint32_t e = 0; e < weights->experts; e++) {
        const int32_t *list = lists->ids + (size_t)e * lists->max_per_expert;
        ferrum_cpu_bucket_t bucket = {.matrix = e, .first = r, .count = (uint32_t)lists->tpe[e]};
        if (lists->tpe[e] > 0)
            buckets[count++] = bucket;
        for (int32_t s = 0; s < lists->tpe[e]; s++, r++) {
            places.in[r] = (uint64_t)((uint32_t)list[s] / pairs_per_row) * weights->k;
            places.out[r] = (uint64_t)list[s] * weights->n;
        }
    }
    return run_buckets(ctx, weights, NULL, buckets, count, (ferrum_cpu_rows_t){a, places.in, 0},
                       (ferrum_cpu_rows_t){out, places.out, 0}, lists->pairs, err);
}

ferrum_status_t ferrum_cpu_gemm_moe_id(ferrum_context_t *ctx, const ferrum_stacked_experts_t *stack,
                                       const ferrum_buffer_t *a, const ferrum_buffer_t *ids,
                                       const ferrum_buffer_t *tpe, ferrum_buffer_t *out,
                                       uint32_t ne11, uint32_t top_k, uint32_t max_per_expert,
                                       uint32_t batch, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(stack, err);
    const ferrum_cpu_weights_t *weights = &stack->weights;
    const uint64_t pairs = ferrum_size_mul(batch, top_k);
    if (ne11 != 1 && ne11 != top_k)
        return FERRUM_REFUSE(err, FERRUM_REASON_RANGE, "ne11 is %u, expected 1 or top_k %u", ne11,
                             top_k);
    FERRUM_CPU_CHECK(
        ctx, err, {"a", a, FERRUM_DTYPE_F32, 0, ferrum_size_mul3(batch, ne11, weights->k)},
        {"ids", ids, FERRUM_DTYPE_I32, 0, ferrum_size_mul(weights->experts, max_per_expert)},
        {"tpe", tpe, FERRUM_DTYPE_I32, 0, weights->experts},
        {"out", out, FERRUM_DTYPE_F32, 0, ferrum_size_mul(pairs, weights->n)});
    if (pairs > INT32_MAX)
        return FERRUM_REFUSE(err, FERRUM_REASON_OVERFLOW, "%llu pairs do not fit in an i32",
                             (unsigned long long)pairs);
    if (pairs == 0)
        return FERRUM_OK;
    const pair_lists_t lists = {ferrum_cpu_i32(ids), ferrum_cpu_i32(tpe), weights->experts,
                                max_per_expert, (uint32_t)pairs};
    return run_lists(ctx, stack, &lists, ferrum_cpu_f32(a), ferrum_cpu_f32(out),
                     ne11 == 1 ? top_k : 1, err);
}

ferrum_status_t
ferrum_cpu_gemm_moe_id_indirect(ferrum_context_t *ctx, const ferrum_stacked_experts_t *stack,
                                const ferrum_buffer_t *a, const ferrum_buffer_t *ids,
                                const ferrum_buffer_t *tpe, ferrum_buffer_t *out,
                                const ferrum_buffer_t *args, uint32_t ne11, uint32_t top_k,
                                uint32_t max_per_expert, uint32_t batch, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(stack, err);
    const uint32_t experts = stack->weights.experts;
    FERRUM_CPU_CHECK(ctx, err, {"args", args, FERRUM_DTYPE_U32, 0, 3},
                     {"tpe", tpe, FERRUM_DTYPE_I32, 0, experts});
    const uint32_t *launch = ferrum_cpu_u32(args);
    int64_t longest = 0;
    for (uint32_t e = 0; e < experts; e++)
        longest = ferrum_cpu_i32(tpe)[e] > longest ? ferrum_cpu_i32(tpe)[e] : longest;
    /* This backend needs no launch size, but one that a device would leave rows out with is a bug
     * of the caller that should not stay hidden. */
    if (launch[2] != experts || (uint64_t)launch[0] * 32 < (uint64_t)longest ||
        (uint64_t)launch[1] * 64 < stack->weights.n)
        return FERRUM_REFUSE_INPUT(
            err, FERRUM_REASON_RANGE,
            "args (%u, %u, %u) do not cover %lld pairs of 32, %u rows of 64 and %u experts",
            launch[0], launch[1], launch[2], (long long)longest, stack->weights.n, experts);
    return ferrum_cpu_gemm_moe_id(ctx, stack, a, ids, tpe, out, ne11, top_k, max_per_expert, batch,
                                  err);
}
