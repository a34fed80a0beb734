/* SPDX-License-Identifier: MIT */
/* The granular ops between and after the expert products. */
#include "backends/cuda/entries.h"
#include "backends/cuda/product.h"

enum {
    THREADS = 128
};

ferrum_status_t ferrum_cuda_silu_mul_batched(ferrum_context_t *ctx, const ferrum_buffer_t *gate,
                                             const ferrum_buffer_t *up, ferrum_buffer_t *out,
                                             uint32_t pairs, uint32_t intermediate,
                                             ferrum_error_t *err)
{
    const uint64_t count = ferrum_size_mul(pairs, intermediate);
    const ferrum_cuda_grid_t grid = {ferrum_cuda_ceil(count, THREADS), 1, 1, THREADS, 0};

    FERRUM_CUDA_CHECK(ctx, err, {"gate", gate, FERRUM_CUDA_ACT, 0, count},
                      {"up", up, FERRUM_CUDA_ACT, 0, count},
                      {"out", out, FERRUM_CUDA_ACT, 0, count});
    const ferrum_moe_silu_mul_args_t args = {ferrum_cuda_at(gate, 0), ferrum_cuda_at(up, 0),
                                             ferrum_cuda_at(out, 0), count};
    return ferrum_cuda_launch(ctx, FERRUM_CUDA_KERNEL_moe_silu_mul, grid, &args, err);
}

ferrum_status_t ferrum_cuda_silu_mul_stacked(ferrum_context_t *ctx, const ferrum_buffer_t *gate,
                                             const ferrum_buffer_t *up, ferrum_buffer_t *out,
                                             uint32_t slots, uint32_t intermediate,
                                             ferrum_error_t *err)
{
    return ferrum_cuda_silu_mul_batched(ctx, gate, up, out, slots, intermediate, err);
}

/** Checks and runs a combination of [batch, top_k] slots that lie in slot order. */
static ferrum_status_t combine_slots(const char *function, ferrum_context_t *ctx,
                                     const ferrum_buffer_t *slots, const ferrum_buffer_t *weights,
                                     uint64_t weights_offset, ferrum_buffer_t *out,
                                     uint64_t out_offset, uint32_t batch, uint32_t top_k,
                                     uint32_t hidden, bool accumulate, ferrum_error_t *err)
{
    const uint64_t pairs = ferrum_size_mul(batch, top_k);
    const ferrum_cuda_operand_t operands[] = {
        {"slots", slots, FERRUM_CUDA_ACT, 0, ferrum_size_mul(pairs, hidden)},
        {"weights", weights, FERRUM_DTYPE_F32, weights_offset, pairs},
        {accumulate ? "residual" : "out", out, FERRUM_CUDA_ACT, out_offset,
         ferrum_size_mul(batch, hidden)}};
    FERRUM_TRY(ferrum_cuda_check_operands(function, ctx, operands, 3, err));
    const ferrum_combine_args_t args = {.slots = ferrum_cuda_at(slots, 0),
                                        .weights = ferrum_cuda_at(weights, weights_offset),
                                        .out = ferrum_cuda_at(out, out_offset),
                                        .count = (uint64_t)batch * hidden,
                                        .slot_rows = pairs,
                                        .top_k = top_k,
                                        .hidden = hidden,
                                        .accumulate = accumulate};
    return ferrum_cuda_combine(ctx, &args, err);
}

ferrum_status_t ferrum_cuda_weighted_sum_stacked(ferrum_context_t *ctx,
                                                 const ferrum_buffer_t *slots,
                                                 const ferrum_buffer_t *weights,
                                                 ferrum_buffer_t *out, uint32_t n, uint32_t hidden,
                                                 ferrum_error_t *err)
{
    return combine_slots(__func__, ctx, slots, weights, 0, out, 0, 1, n, hidden, false, err);
}

ferrum_status_t ferrum_cuda_weighted_sum_residual_stacked(ferrum_context_t *ctx,
                                                          const ferrum_buffer_t *slots,
                                                          const ferrum_buffer_t *weights,
                                                          ferrum_buffer_t *residual, uint32_t n,
                                                          uint32_t hidden, ferrum_error_t *err)
{
    return combine_slots(__func__, ctx, slots, weights, 0, residual, 0, 1, n, hidden, true, err);
}

ferrum_status_t ferrum_cuda_weighted_sum_residual_norm_stacked(
    ferrum_context_t *ctx, const ferrum_buffer_t *slots, const ferrum_buffer_t *weights,
    ferrum_buffer_t *residual, const ferrum_buffer_t *next_norm_w, ferrum_buffer_t *normed_out,
    uint32_t n, uint32_t hidden, float eps, ferrum_error_t *err)
{
    FERRUM_CUDA_CHECK(ctx, err, {"next_norm_w", next_norm_w, FERRUM_CUDA_ACT_OR_F32, 0, hidden},
                      {"normed_out", normed_out, FERRUM_CUDA_ACT, 0, hidden});
    FERRUM_TRY(
        combine_slots(__func__, ctx, slots, weights, 0, residual, 0, 1, n, hidden, true, err));
    return ferrum_cuda_rms_norm(ctx, residual, next_norm_w, eps, normed_out, 1, hidden, err);
}

ferrum_status_t ferrum_cuda_weighted_sum_batched(
    ferrum_context_t *ctx, const ferrum_buffer_t *slots, const ferrum_buffer_t *weights,
    ferrum_buffer_t *out, uint32_t batch, uint32_t top_k, uint32_t hidden, ferrum_error_t *err)
{
    return combine_slots(__func__, ctx, slots, weights, 0, out, 0, batch, top_k, hidden, false,
                         err);
}

ferrum_status_t
ferrum_cuda_weighted_sum_batched_offset(ferrum_context_t *ctx, const ferrum_buffer_t *slots,
                                        const ferrum_buffer_t *weights, uint64_t weights_offset,
                                        ferrum_buffer_t *out, uint64_t out_offset, uint32_t batch,
                                        uint32_t top_k, uint32_t hidden, ferrum_error_t *err)
{
    return combine_slots(__func__, ctx, slots, weights, weights_offset, out, out_offset, batch,
                         top_k, hidden, false, err);
}

ferrum_status_t ferrum_cuda_moe_combine(ferrum_context_t *ctx, const ferrum_buffer_t *packed_down,
                                        const ferrum_buffer_t *pairs,
                                        const ferrum_buffer_t *weights, ferrum_buffer_t *out,
                                        uint32_t batch, uint32_t hidden, uint32_t top_k,
                                        uint32_t pairs_total, ferrum_error_t *err)
{
    const uint64_t count = ferrum_size_mul(batch, top_k);

    FERRUM_CUDA_CHECK(
        ctx, err,
        {"packed_down", packed_down, FERRUM_CUDA_ACT, 0, ferrum_size_mul(pairs_total, hidden)},
        {"pairs", pairs, FERRUM_DTYPE_I32, 0, count},
        {"weights", weights, FERRUM_DTYPE_F32, 0, count},
        {"out", out, FERRUM_CUDA_ACT, 0, ferrum_size_mul(batch, hidden)});
    const ferrum_combine_args_t args = {.slots = ferrum_cuda_at(packed_down, 0),
                                        .rows = ferrum_cuda_at(pairs, 0),
                                        .weights = ferrum_cuda_at(weights, 0),
                                        .out = ferrum_cuda_at(out, 0),
                                        .count = (uint64_t)batch * hidden,
                                        .slot_rows = pairs_total,
                                        .top_k = top_k,
                                        .hidden = hidden};
    return ferrum_cuda_combine(ctx, &args, err);
}
