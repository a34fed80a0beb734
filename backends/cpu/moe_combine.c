/* SPDX-License-Identifier: MIT */
/* The granular ops between and after the expert products. */
#include "backends/cpu/check.h"
#include "backends/cpu/combine.h"
#include "backends/cpu/entries.h"

/** Rows of gate and up and where their activation goes. */
typedef struct silu_rows {
    const ferrum_vector_ops_t *vector;
    const float *gate;
    const float *up;
    float *out;
    size_t length;
} silu_rows_t;

static void silu_row(void *arg, uint64_t item, uint32_t thread)
{
    const silu_rows_t *rows = arg;
    const size_t start = (size_t)item * rows->length;

    rows->vector->silu_mul(rows->gate + start, rows->up + start, rows->out + start, rows->length);
}

ferrum_status_t ferrum_cpu_silu_mul_batched(ferrum_context_t *ctx, const ferrum_buffer_t *gate,
                                            const ferrum_buffer_t *up, ferrum_buffer_t *out,
                                            uint32_t pairs, uint32_t intermediate,
                                            ferrum_error_t *err)
{
    const uint64_t count = ferrum_size_mul(pairs, intermediate);

    FERRUM_CPU_CHECK(ctx, err, {"gate", gate, FERRUM_DTYPE_F32, 0, count},
                     {"up", up, FERRUM_DTYPE_F32, 0, count},
                     {"out", out, FERRUM_DTYPE_F32, 0, count});
    silu_rows_t rows = {ferrum_cpu_vector(ctx), ferrum_cpu_f32(gate), ferrum_cpu_f32(up),
                        ferrum_cpu_f32(out), intermediate};
    ferrum_cpu_for_each(ctx, pairs, silu_row, &rows);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_silu_mul_stacked(ferrum_context_t *ctx, const ferrum_buffer_t *gate,
                                            const ferrum_buffer_t *up, ferrum_buffer_t *out,
                                            uint32_t slots, uint32_t intermediate,
                                            ferrum_error_t *err)
{
    return ferrum_cpu_silu_mul_batched(ctx, gate, up, out, slots, intermediate, err);
}

/** Checks and runs a combination of [batch, top_k] slots that lie in slot order. */
static ferrum_status_t combine_slots(const char *function, ferrum_context_t *ctx,
                                     const ferrum_buffer_t *slots, const ferrum_buffer_t *weights,
                                     uint64_t weights_offset, ferrum_buffer_t *out,
                                     uint64_t out_offset, uint32_t batch, uint32_t top_k,
                                     uint32_t hidden, bool accumulate, ferrum_error_t *err)
{
    const uint64_t pairs = ferrum_size_mul(batch, top_k);
    const ferrum_cpu_operand_t operands[] = {
        {"slots", slots, FERRUM_DTYPE_F32, 0, ferrum_size_mul(pairs, hidden)},
        {"weights", weights, FERRUM_DTYPE_F32, weights_offset, pairs},
        {accumulate ? "residual" : "out", out, FERRUM_DTYPE_F32, out_offset,
         ferrum_size_mul(batch, hidden)}};
    FERRUM_TRY(ferrum_cpu_check_operands(function, ctx, operands, 3, err));
    ferrum_cpu_combine_t combine = {.vector = ferrum_cpu_vector(ctx),
                                    .slots = ferrum_cpu_f32(slots),
                                    .weights = ferrum_cpu_f32(weights) + weights_offset,
                                    .out = ferrum_cpu_f32(out) + out_offset,
                                    .batch = batch,
                                    .top_k = top_k,
                                    .hidden = hidden,
                                    .accumulate = accumulate};
    ferrum_cpu_for_each(ctx, ferrum_cpu_combine_items(&combine), ferrum_cpu_combine_item, &combine);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_weighted_sum_stacked(ferrum_context_t *ctx, const ferrum_buffer_t *slots,
                                                const ferrum_buffer_t *weights,
                                                ferrum_buffer_t *out, uint32_t n, uint32_t hidden,
                                                ferrum_error_t *err)
{
    return combine_slots(__func__, ctx, slots, weights, 0, out, 0, 1, n, hidden, false, err);
}

ferrum_status_t ferrum_cpu_weighted_sum_residual_stacked(ferrum_context_t *ctx,
                                                         const ferrum_buffer_t *slots,
                                                         const ferrum_buffer_t *weights,
                                                         ferrum_buffer_t *residual, uint32_t n,
                                                         uint32_t hidden, ferrum_error_t *err)
{
    return combine_slots(__func__, ctx, slots, weights, 0, residual, 0, 1, n, hidden, true, err);
}

ferrum_status_t ferrum_cpu_weighted_sum_residual_norm_stacked(
    ferrum_context_t *ctx, const ferrum_buffer_t *slots, const ferrum_buffer_t *weights,
    ferrum_buffer_t *residual, const ferrum_buffer_t *next_norm_w, ferrum_buffer_t *normed_out,
    uint32_t n, uint32_t hidden, float eps, ferrum_error_t *err)
{
    FERRUM_CPU_CHECK(ctx, err, {"next_norm_w", next_norm_w, FERRUM_DTYPE_F32, 0, hidden},
                     {"normed_out", normed_out, FERRUM_DTYPE_F32, 0, hidden});
    FERRUM_TRY(
        combine_slots(__func__, ctx, slots, weights, 0, residual, 0, 1, n, hidden, true, err));
    ferrum_cpu_vector(ctx)->rms_norm(ferrum_cpu_f32(residual), ferrum_cpu_f32(next_norm_w), eps,
                                     ferrum_cpu_f32(normed_out), hidden);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_weighted_sum_batched(ferrum_context_t *ctx, const ferrum_buffer_t *slots,
                                                const ferrum_buffer_t *weights,
                                                ferrum_buffer_t *out, uint32_t batch,
                                                uint32_t top_k, uint32_t hidden,
                                                ferrum_error_t *err)
{
    return combine_slots(__func__, ctx, slots, weights, 0, out, 0, batch, top_k, hidden, false,
                         err);
}

ferrum_status_t
ferrum_cpu_weighted_sum_batched_offset(ferrum_context_t *ctx, const ferrum_buffer_t *slots,
                                       const ferrum_buffer_t *weights, uint64_t weights_offset,
                                       ferrum_buffer_t *out, uint64_t out_offset, uint32_t batch,
                                       uint32_t top_k, uint32_t hidden, ferrum_error_t *err)
{
    return combine_slots(__func__, ctx, slots, weights, weights_offset, out, out_offset, batch,
                         top_k, hidden, false, err);
}

ferrum_status_t ferrum_cpu_moe_combine(ferrum_context_t *ctx, const ferrum_buffer_t *packed_down,
                                       const ferrum_buffer_t *pairs, const ferrum_buffer_t *weights,
                                       ferrum_buffer_t *out, uint32_t batch, uint32_t hidden,
                                       uint32_t top_k, uint32_t pairs_total, ferrum_error_t *err)
{
    const uint64_t count = ferrum_size_mul(batch, top_k);

    FERRUM_CPU_CHECK(
        ctx, err,
        {"packed_down", packed_down, FERRUM_DTYPE_F32, 0, ferrum_size_mul(pairs_total, hidden)},
        {"pairs", pairs, FERRUM_DTYPE_I32, 0, count},
        {"weights", weights, FERRUM_DTYPE_F32, 0, count},
        {"out", out, FERRUM_DTYPE_F32, 0, ferrum_size_mul(batch, hidden)});
    FERRUM_TRY(ferrum_cpu_check_ids(__func__, "pairs", ferrum_cpu_i32(pairs), count, INT32_MIN,
                                    pairs_total, err));
    ferrum_cpu_combine_t combine = {.vector = ferrum_cpu_vector(ctx),
                                    .slots = ferrum_cpu_f32(packed_down),
                                    .rows = ferrum_cpu_i32(pairs),
                                    .weights = ferrum_cpu_f32(weights),
                                    .out = ferrum_cpu_f32(out),
                                    .batch = batch,
                                    .top_k = top_k,
                                    .hidden = hidden};
    ferrum_cpu_for_each(ctx, ferrum_cpu_combine_items(&combine), ferrum_cpu_combine_item, &combine);
    return FERRUM_OK;
}
