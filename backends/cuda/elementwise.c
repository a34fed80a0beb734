/* SPDX-License-Identifier: MIT */
/* Ops that treat elements or rows one by one. */
#include "backends/cuda/check.h"
#include "backends/cuda/entries.h"
#include "kernels/cuda/args.h"

enum {
    THREADS = 256,
    SUM_BYTES = THREADS / 32 * sizeof(float)
};

/** One thread per element. */
static ferrum_cuda_grid_t per_element(uint64_t count)
{
    return (ferrum_cuda_grid_t){ferrum_cuda_ceil(count, THREADS), 1, 1, THREADS, 0};
}

static ferrum_status_t axpby(ferrum_context_t *ctx, const ferrum_buffer_t *x, ferrum_buffer_t *y,
                             float alpha, float beta, uint64_t len, ferrum_error_t *err)
{
    const ferrum_axpby_args_t args = {.x = x ? ferrum_cuda_at(x, 0) : 0,
                                      .y = ferrum_cuda_at(y, 0),
                                      .count = len,
                                      .alpha = alpha,
                                      .beta = beta};
    return ferrum_cuda_launch(ctx, FERRUM_CUDA_KERNEL_axpby, per_element(len), &args, err);
}

ferrum_status_t ferrum_cuda_add_inplace(ferrum_context_t *ctx, ferrum_buffer_t *r,
                                        const ferrum_buffer_t *x, uint64_t len, ferrum_error_t *err)
{
    FERRUM_CUDA_CHECK(ctx, err, {"r", r, FERRUM_CUDA_ACT, 0, len},
                      {"x", x, FERRUM_CUDA_ACT, 0, len});
    return axpby(ctx, x, r, 1.0f, 1.0f, len, err);
}

ferrum_status_t ferrum_cuda_scaled_add_inplace(ferrum_context_t *ctx, ferrum_buffer_t *dst,
                                               const ferrum_buffer_t *src, float s, uint64_t len,
                                               ferrum_error_t *err)
{
    FERRUM_CUDA_CHECK(ctx, err, {"dst", dst, FERRUM_CUDA_ACT, 0, len},
                      {"src", src, FERRUM_CUDA_ACT, 0, len});
    return axpby(ctx, src, dst, s, 1.0f, len, err);
}

ferrum_status_t ferrum_cuda_scale_inplace(ferrum_context_t *ctx, ferrum_buffer_t *x, float s,
                                          uint64_t len, ferrum_error_t *err)
{
    FERRUM_CUDA_CHECK(ctx, err, {"x", x, FERRUM_CUDA_ACT, 0, len});
    return axpby(ctx, NULL, x, 0.0f, s, len, err);
}

ferrum_status_t ferrum_cuda_add_bias(ferrum_context_t *ctx, ferrum_buffer_t *data,
                                     const ferrum_buffer_t *bias, uint32_t rows, uint32_t cols,
                                     ferrum_error_t *err)
{
    const uint64_t count = ferrum_size_mul(rows, cols);

    FERRUM_CUDA_CHECK(ctx, err, {"data", data, FERRUM_CUDA_ACT, 0, count},
                      {"bias", bias, FERRUM_CUDA_ACT_OR_F32, 0, cols});
    const ferrum_add_bias_args_t args = {.data = ferrum_cuda_at(data, 0),
                                         .bias = ferrum_cuda_at(bias, 0),
                                         .count = count,
                                         .cols = cols,
                                         .bias_is_f32 = bias->dtype == FERRUM_DTYPE_F32};
    return ferrum_cuda_launch(ctx, FERRUM_CUDA_KERNEL_add_bias, per_element(count), &args, err);
}

static ferrum_status_t norm(ferrum_context_t *ctx, const ferrum_buffer_t *x,
                            ferrum_buffer_t *residual, const ferrum_buffer_t *w, float eps,
                            ferrum_buffer_t *out, uint32_t tokens, uint32_t dim,
                            ferrum_error_t *err)
{
    const ferrum_rms_norm_args_t args = {.x = ferrum_cuda_at(x, 0),
                                         .residual = residual ? ferrum_cuda_at(residual, 0) : 0,
                                         .w = ferrum_cuda_at(w, 0),
                                         .out = ferrum_cuda_at(out, 0),
                                         .dim = dim,
                                         .w_is_f32 = w->dtype == FERRUM_DTYPE_F32,
                                         .eps = eps};
    const ferrum_cuda_grid_t grid = {dim ? tokens : 0, 1, 1, THREADS, SUM_BYTES};
    return ferrum_cuda_launch(ctx, FERRUM_CUDA_KERNEL_rms_norm, grid, &args, err);
}

ferrum_status_t ferrum_cuda_rms_norm(ferrum_context_t *ctx, const ferrum_buffer_t *x,
                                     const ferrum_buffer_t *w, float eps, ferrum_buffer_t *out,
                                     uint32_t tokens, uint32_t dim, ferrum_error_t *err)
{
    const uint64_t count = ferrum_size_mul(tokens, dim);

    FERRUM_CUDA_CHECK(ctx, err, {"x", x, FERRUM_CUDA_ACT, 0, count},
                      {"w", w, FERRUM_CUDA_ACT_OR_F32, 0, dim},
                      {"out", out, FERRUM_CUDA_ACT, 0, count});
    return norm(ctx, x, NULL, w, eps, out, tokens, dim, err);
}

ferrum_status_t ferrum_cuda_fused_add_rms_norm(ferrum_context_t *ctx, ferrum_buffer_t *residual,
                                               const ferrum_buffer_t *x, const ferrum_buffer_t *w,
                                               float eps, ferrum_buffer_t *out, uint32_t tokens,
                                               uint32_t dim, ferrum_error_t *err)
{
    const uint64_t count = ferrum_size_mul(tokens, dim);

    FERRUM_CUDA_CHECK(ctx, err, {"residual", residual, FERRUM_CUDA_ACT, 0, count},
                      {"x", x, FERRUM_CUDA_ACT, 0, count}, {"w", w, FERRUM_CUDA_ACT_OR_F32, 0, dim},
                      {"out", out, FERRUM_CUDA_ACT, 0, count});
    return norm(ctx, x, residual, w, eps, out, tokens, dim, err);
}

ferrum_status_t ferrum_cuda_fused_silu_mul_split(ferrum_context_t *ctx,
                                                 const ferrum_buffer_t *gate_up,
                                                 ferrum_buffer_t *out, uint32_t tokens,
                                                 uint32_t intermediate, ferrum_error_t *err)
{
    return ferrum_cuda_fused_silu_mul_split_strided(ctx, gate_up, 0, out, 0, tokens, intermediate,
                                                    err);
}

ferrum_status_t ferrum_cuda_fused_silu_mul_split_strided(ferrum_context_t *ctx,
                                                         const ferrum_buffer_t *gate_up,
                                                         uint64_t in_row, ferrum_buffer_t *out,
                                                         uint64_t out_row, uint32_t tokens,
                                                         uint32_t intermediate, ferrum_error_t *err)
{
    const uint64_t width = 2 * (uint64_t)intermediate;
    const uint64_t in_offset = ferrum_size_mul(in_row, width);
    const uint64_t out_offset = ferrum_size_mul(out_row, intermediate);
    const uint64_t count = ferrum_size_mul(tokens, intermediate);

    FERRUM_CUDA_CHECK(
        ctx, err, {"gate_up", gate_up, FERRUM_CUDA_ACT, in_offset, ferrum_size_mul(tokens, width)},
        {"out", out, FERRUM_CUDA_ACT, out_offset, count});
    const ferrum_silu_mul_args_t args = {.gate_up = ferrum_cuda_at(gate_up, in_offset),
                                         .out = ferrum_cuda_at(out, out_offset),
                                         .count = count,
                                         .intermediate = intermediate};
    return ferrum_cuda_launch(ctx, FERRUM_CUDA_KERNEL_silu_mul, per_element(count), &args, err);
}
