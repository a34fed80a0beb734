/* SPDX-License-Identifier: MIT */
#include "backends/cpu/marlin_stack.h"
#include "backends/cpu/grouping.h"
#include "backends/cpu/linear.h"

#include <string.h>

ferrum_status_t ferrum_cpu_load_gptq_stacked(ferrum_device_t *device,
                                             const ferrum_gptq_t *const *experts,
                                             uint32_t num_experts,
                                             ferrum_marlin_stack_t **out_stack, ferrum_error_t *err)
{
    ferrum_cpu_weights_t loaded;

    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(out_stack, err);
    const ferrum_cpu_loading_t loading = {.precision = device->precision};
    FERRUM_TRY(ferrum_cpu_weights_from_gptq(device, experts, num_experts, &loading, &loaded, err));
    ferrum_marlin_stack_t *stack =
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

void ferrum_cpu_marlin_stack_retain(ferrum_marlin_stack_t *stack)
{
    ferrum_cpu_ref(&stack->refs);
}

void ferrum_cpu_marlin_stack_release(ferrum_marlin_stack_t *stack)
{
    if (!stack || !ferrum_cpu_unref(&stack->refs))
        return;
    ferrum_cpu_weights_free(stack->device, &stack->weights);
    ferrum_cpu_object_free(stack->device, stack, sizeof *stack);
}

ferrum_status_t ferrum_cpu_marlin_stack_info(const ferrum_marlin_stack_t *stack,
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
        .format = FERRUM_FORMAT_GPTQ,
        .bits = stack->weights.bits,
        .bytes = ferrum_cpu_weights_bytes(&stack->weights),
    };
    return ferrum_fill_struct(__func__, out_info, FERRUM_EXPERT_STACK_INFO_MIN_SIZE, &info, err);
}

ferrum_status_t ferrum_cpu_zero_workspace(ferrum_context_t *ctx, ferrum_marlin_stack_t *stack,
                                          ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_CHECK_POINTER(stack, err);
    return FERRUM_OK;
}

static ferrum_status_t run_product(ferrum_context_t *ctx, const ferrum_cpu_weights_t *weights,
                                   ferrum_cpu_bucket_t *buckets, uint32_t count,
                                   ferrum_cpu_rows_t x, ferrum_cpu_rows_t y, uint64_t capacity,
                                   ferrum_error_t *err)
{
    ferrum_cpu_product_t product;

    FERRUM_TRY(ferrum_cpu_product_init(ctx, &product, weights->matrices, buckets, count, x, y,
                                       capacity, FERRUM_CPU_SCRATCH_GATHER, err));
    ferrum_cpu_product_run(ctx, &product);
    return FERRUM_OK;
}

/** Every dispatch lies in the buffers, and no output row is written twice. */
static ferrum_status_t check_dispatches(ferrum_context_t *ctx, const ferrum_cpu_weights_t *weights,
                                        const ferrum_moe_dispatch_t *dispatches, uint32_t count,
                                        uint64_t in_rows, uint64_t out_rows, uint64_t *out_total,
                                        ferrum_error_t *err)
{
    uint64_t total = 0;
    uint8_t *marks;

    FERRUM_TRY(ferrum_cpu_new_marks(ctx, out_rows, &marks, err));
    for (uint32_t i = 0; i < count; i++) {
        const ferrum_moe_dispatch_t *d = &dispatches[i];
        if (d->expert >= weights->experts)
            return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_EXPERTS,
                               "gemm_phase_batched: dispatch %u is for expert %u of %u", i,
                               d->expert, weights->experts);
        if ((uint64_t)d->in_row + d->rows > in_rows || (uint64_t)d->out_row + d->rows > out_rows)
            return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                               "gemm_phase_batched: dispatch %u needs rows %u and %u on for %u "
                               "rows, in has %llu and out %llu",
                               i, d->in_row, d->out_row, d->rows, (unsigned long long)in_rows,
                               (unsigned long long)out_rows);
        for (uint32_t r = 0; r < d->rows; r++)
            if (marks[(uint64_t)d->out_row + r]++)
                return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_RANGE,
                                   "gemm_phase_batched: dispatch %u writes row %u once more", i,
                                   d->out_row + r);
        total += d->rows;
    }
    if (total > UINT32_MAX)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                           "gemm_phase_batched: %llu rows are too many", (unsigned long long)total);
    *out_total = total;
    return FERRUM_OK;
}

/** Whether rows can be read and written where they lie: same place in and out, and nothing to
 *  prepare (act-order, quantising). */
static bool dispatches_in_place(const ferrum_cpu_weights_t *weights,
                                const ferrum_moe_dispatch_t *dispatches, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (dispatches[i].in_row != dispatches[i].out_row)
            return false;
    return !weights->permuted && !weights->precision;
}

ferrum_status_t ferrum_cpu_gemm_phase_batched(ferrum_context_t *ctx, ferrum_marlin_stack_t *stack,
                                              const ferrum_buffer_t *in,
                                              const ferrum_moe_dispatch_t *dispatches,
                                              uint32_t count, ferrum_buffer_t *out, uint32_t k,
                                              ferrum_error_t *err)
{
    ferrum_cpu_places_t places = {NULL, NULL};
    uint64_t total = 0;
    uint32_t packed = 0;

    FERRUM_CHECK_POINTER(stack, err);
    const ferrum_cpu_weights_t *weights = &stack->weights;
    FERRUM_CPU_CHECK(ctx, err, {"in", in, FERRUM_DTYPE_F32, 0, 0},
                     {"out", out, FERRUM_DTYPE_F32, 0, 0});
    if (k != weights->k)
        return FERRUM_REFUSE(err, FERRUM_REASON_K, "k is %u, the stack has %u", k, weights->k);
    if (count == 0)
        return FERRUM_OK;
    FERRUM_CHECK_POINTER(dispatches, err);
    FERRUM_TRY(check_dispatches(ctx, weights, dispatches, count, in->count / k,
                                out->count / weights->n, &total, err));
    const bool in_place = dispatches_in_place(weights, dispatches, count);
    /* Room for every expert at once: how many are active changes from step to step. */
    ferrum_cpu_bucket_t *buckets = ferrum_cpu_scratch(
        ctx, FERRUM_CPU_SCRATCH_BUCKETS, count > weights->experts ? count : weights->experts,
        sizeof *buckets, err);
    if (!buckets)
        return FERRUM_OUT_OF_MEMORY;
    if (!in_place)
        FERRUM_TRY(ferrum_cpu_new_places(ctx, total, &places, err));
    for (uint32_t i = 0; i < count; i++) {
        const ferrum_moe_dispatch_t *d = &dispatches[i];
        buckets[i] = (ferrum_cpu_bucket_t){
            .matrix = d->expert, .first = in_place ? d->in_row : packed, .count = d->rows};
        for (uint32_t r = 0; !in_place && r < d->rows; r++, packed++) {
            places.in[packed] = ((uint64_t)d->in_row + r) * k;
            places.out[packed] = ((uint64_t)d->out_row + r) * weights->n;
        }
    }
    return run_product(
        ctx, weights, buckets, count, (ferrum_cpu_rows_t){ferrum_cpu_f32(in), places.in, k},
        (ferrum_cpu_rows_t){ferrum_cpu_f32(out), places.out, weights->n}, total, err);
}

/** A checked alignment: which padded slots hold a row, and how many do. */
typedef struct alignment {
    const int32_t *sorted;
    const int32_t *expert_ids;
    uint32_t total;
    uint32_t block_size;
    uint64_t ids; /**< ids below this are rows, the others padding */
} alignment_t;

static bool is_row(const alignment_t *alignment, uint32_t slot)
{
    return alignment->sorted[slot] >= 0 && (uint64_t)alignment->sorted[slot] < alignment->ids;
}

static ferrum_status_t check_alignment(ferrum_context_t *ctx, const ferrum_moe_routing_t *routing,
                                       uint32_t experts, alignment_t *alignment,
                                       ferrum_error_t *err)
{
    uint8_t *marks;

    FERRUM_CPU_CHECK(
        ctx, err,
        {"num_tokens_past_padded", routing->num_tokens_past_padded, FERRUM_DTYPE_I32, 0, 1},
        {"sorted_token_ids", routing->sorted_token_ids, FERRUM_DTYPE_I32, 0, 0},
        {"expert_ids", routing->expert_ids, FERRUM_DTYPE_I32, 0, 0});
    const int32_t total = ferrum_cpu_i32(routing->num_tokens_past_padded)[0];
    const uint32_t blocks =
        total > 0 ? (uint32_t)ferrum_cpu_blocks((uint32_t)total, alignment->block_size) : 0;
    if (total < 0 || (uint64_t)total > routing->sorted_token_ids->count ||
        blocks > routing->expert_ids->count)
        return ferrum_fail(
            err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
            "gemm_phase_vllm: %d padded rows, but there are %llu sorted ids and %llu "
            "blocks of %u",
            total, (unsigned long long)routing->sorted_token_ids->count,
            (unsigned long long)routing->expert_ids->count, alignment->block_size);
    alignment->total = (uint32_t)total;
    alignment->sorted = ferrum_cpu_i32(routing->sorted_token_ids);
    alignment->expert_ids = ferrum_cpu_i32(routing->expert_ids);
    FERRUM_TRY(ferrum_cpu_check_ids("gemm_phase_vllm", "expert_ids", alignment->expert_ids, blocks,
                                    0, experts, err));
    FERRUM_TRY(ferrum_cpu_new_marks(ctx, alignment->ids, &marks, err));
    for (uint32_t s = 0; s < alignment->total; s++) {
        if (!is_row(alignment, s))
            continue;
        if (marks[alignment->sorted[s]]++)
            return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                               "gemm_phase_vllm: row %d is in the alignment twice",
                               alignment->sorted[s]);
    }
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_gemm_phase_vllm(ferrum_context_t *ctx, ferrum_marlin_stack_t *stack,
                                           const ferrum_buffer_t *in,
                                           const ferrum_moe_routing_t *routing,
                                           ferrum_buffer_t *out, uint32_t prob_m,
                                           uint32_t block_size, uint32_t top_k, ferrum_error_t *err)
{
    alignment_t alignment = {.block_size = block_size, .ids = (uint64_t)prob_m * top_k};
    ferrum_cpu_places_t places;
    uint32_t count = 0, r = 0;

    FERRUM_CHECK_POINTER(stack, err);
    FERRUM_CHECK_STRUCT(routing, FERRUM_MOE_ROUTING_MIN_SIZE, err);
    const ferrum_cpu_weights_t *weights = &stack->weights;
    FERRUM_CPU_CHECK(ctx, err, {"in", in, FERRUM_DTYPE_F32, 0, ferrum_size_mul(prob_m, weights->k)},
                     {"out", out, FERRUM_DTYPE_F32, 0, ferrum_size_mul(alignment.ids, weights->n)});
    if (block_size == 0)
        return FERRUM_REFUSE(err, FERRUM_REASON_BLOCK_SIZE, "block_size is %u", block_size);
    FERRUM_TRY(check_alignment(ctx, routing, weights->experts, &alignment, err));
    FERRUM_TRY(ferrum_cpu_new_places(ctx, alignment.ids, &places, err));
    ferrum_cpu_bucket_t *buckets = ferrum_cpu_scratch(
        ctx, FERRUM_CPU_SCRATCH_BUCKETS, routing->expert_ids->count, sizeof *buckets, err);
    if (!buckets)
        return FERRUM_OUT_OF_MEMORY;
    for (uint32_t s = 0; s < alignment.total; s++) {
        const uint32_t expert = (uint32_t)alignment.expert_ids[s / block_size];
        if (!is_row(&alignment, s))
            continue;
        if (count == 0 || buckets[count - 1].matrix != expert)
            buckets[count++] = (ferrum_cpu_bucket_t){.matrix = expert, .first = r};
        buckets[count - 1].count++;
        places.in[r] = (uint64_t)((uint32_t)alignment.sorted[s] / top_k) * weights->k;
        places.out[r++] = (uint64_t)alignment.sorted[s] * weights->n;
    }
    return run_product(ctx, weights, buckets, count,
                       (ferrum_cpu_rows_t){ferrum_cpu_f32(in), places.in, weights->k},
                       (ferrum_cpu_rows_t){ferrum_cpu_f32(out), places.out, weights->n},
                       alignment.ids, err);
}

ferrum_status_t ferrum_cpu_make_expert_linear(ferrum_marlin_stack_t *stack, uint64_t offset,
                                              uint32_t n, const float *bias,
                                              ferrum_linear_t **out_linear, ferrum_error_t *err)
{
    ferrum_linear_t *linear;

    FERRUM_CHECK_POINTER(stack, err);
    FERRUM_CHECK_POINTER(out_linear, err);
    const ferrum_cpu_weights_t *weights = &stack->weights;
    const uint64_t expert = offset / weights->n, column = offset % weights->n;
    if (n == 0 || expert >= weights->experts || column + n > weights->n)
        return FERRUM_REFUSE(
            err, FERRUM_REASON_RANGE,
            "columns %llu on for %u do not lie within one of %u experts of %u columns",
            (unsigned long long)offset, n, weights->experts, weights->n);
    FERRUM_TRY(ferrum_cpu_linear_new(stack->device, 1, &linear, err));
    linear->n = n;
    linear->k = weights->k;
    linear->format = FERRUM_FORMAT_GPTQ;
    linear->bits = weights->bits;
    linear->error_bound = ferrum_cpu_weights_error_bound(weights);
    linear->matrices[0] = weights->matrices[expert];
    ferrum_cpu_matrix_t *matrix = &linear->matrices[0];
    matrix->n = n;
    matrix->first_row = (uint32_t)column;
    matrix->bias = matrix->bias ? matrix->bias + column : NULL;
    if (bias) {
        const ferrum_status_t status = ferrum_cpu_alloc(stack->device, (uint64_t)n * sizeof *bias,
                                                        "biases", &linear->bias, err);
        if (status != FERRUM_OK) {
            ferrum_cpu_linear_release(linear);
            return status;
        }
        memcpy(linear->bias.ptr, bias, n * sizeof *bias);
        matrix->bias = linear->bias.ptr;
    }
    linear->stack = stack;
    ferrum_cpu_marlin_stack_retain(stack);
    *out_linear = linear;
    return FERRUM_OK;
}
