/* SPDX-License-Identifier: MIT */
/* Ops that treat elements or rows one by one. */
#include "backends/cpu/check.h"
#include "backends/cpu/combine.h"
#include "backends/cpu/entries.h"
#include "backends/cpu/parallel.h"

enum {
    CHUNK = 16384
};

/** Element-wise update of y over [0, count), cut into chunks. */
typedef struct update {
    const ferrum_vector_ops_t *vector;
    float *y;
    const float *x;
    float factor;
    uint64_t count;
} update_t;

static void add_chunk(void *arg, uint64_t item, uint32_t thread)
{
    const update_t *u = arg;
    const uint64_t start = item * CHUNK;
    u->vector->add(u->y + start, u->x + start,
                   (size_t)ferrum_cpu_block_length(u->count, CHUNK, item));
}

static void axpy_chunk(void *arg, uint64_t item, uint32_t thread)
{
    const update_t *u = arg;
    const uint64_t start = item * CHUNK;
    u->vector->axpy(u->factor, u->x + start, u->y + start,
                    (size_t)ferrum_cpu_block_length(u->count, CHUNK, item));
}

static void scale_chunk(void *arg, uint64_t item, uint32_t thread)
{
    const update_t *u = arg;
    u->vector->scale(u->factor, u->y + item * CHUNK,
                     (size_t)ferrum_cpu_block_length(u->count, CHUNK, item));
}

ferrum_status_t ferrum_cpu_add_inplace(ferrum_context_t *ctx, ferrum_buffer_t *r,
                                       const ferrum_buffer_t *x, uint64_t len, ferrum_error_t *err)
{
    FERRUM_CPU_CHECK(ctx, err, {"r", r, FERRUM_DTYPE_F32, 0, len},
                     {"x", x, FERRUM_DTYPE_F32, 0, len});
    update_t update = {ferrum_cpu_vector(ctx), ferrum_cpu_f32(r), ferrum_cpu_f32(x), 1.0f, len};
    ferrum_cpu_for_each(ctx, ferrum_cpu_blocks(len, CHUNK), add_chunk, &update);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_scaled_add_inplace(ferrum_context_t *ctx, ferrum_buffer_t *dst,
                                              const ferrum_buffer_t *src, float s, uint64_t len,
                                              ferrum_error_t *err)
{
    FERRUM_CPU_CHECK(ctx, err, {"dst", dst, FERRUM_DTYPE_F32, 0, len},
                     {"src", src, FERRUM_DTYPE_F32, 0, len});
    update_t update = {ferrum_cpu_vector(ctx), ferrum_cpu_f32(dst), ferrum_cpu_f32(src), s, len};
    ferrum_cpu_for_each(ctx, ferrum_cpu_blocks(len, CHUNK), axpy_chunk, &update);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_scale_inplace(ferrum_context_t *ctx, ferrum_buffer_t *x, float s,
                                         uint64_t len, ferrum_error_t *err)
{
    FERRUM_CPU_CHECK(ctx, err, {"x", x, FERRUM_DTYPE_F32, 0, len});
    update_t update = {ferrum_cpu_vector(ctx), ferrum_cpu_f32(x), NULL, s, len};
    ferrum_cpu_for_each(ctx, ferrum_cpu_blocks(len, CHUNK), scale_chunk, &update);
    return FERRUM_OK;
}

/** Rows of equal length and one vector that meets each of them. */
typedef struct rows {
    const ferrum_vector_ops_t *vector;
    float *out;
    const float *in;
    const float *w;
    float *residual;
    float eps;
    size_t length;
} rows_t;

static void bias_row(void *arg, uint64_t item, uint32_t thread)
{
    const rows_t *rows = arg;
    rows->vector->add(rows->out + item * rows->length, rows->w, rows->length);
}

ferrum_status_t ferrum_cpu_add_bias(ferrum_context_t *ctx, ferrum_buffer_t *data,
                                    const ferrum_buffer_t *bias, uint32_t rows, uint32_t cols,
                                    ferrum_error_t *err)
{
    FERRUM_CPU_CHECK(ctx, err, {"data", data, FERRUM_DTYPE_F32, 0, ferrum_size_mul(rows, cols)},
                     {"bias", bias, FERRUM_DTYPE_F32, 0, cols});
    rows_t job = {.vector = ferrum_cpu_vector(ctx),
                  .out = ferrum_cpu_f32(data),
                  .w = ferrum_cpu_f32(bias),
                  .length = cols};
    ferrum_cpu_for_each(ctx, rows, bias_row, &job);
    return FERRUM_OK;
}

static void norm_row(void *arg, uint64_t item, uint32_t thread)
{
    const rows_t *rows = arg;
    const size_t start = (size_t)item * rows->length;
    const float *in = rows->in + start;

    if (rows->residual) {
        rows->vector->add(rows->residual + start, in, rows->length);
        in = rows->residual + start;
    }
    rows->vector->rms_norm(in, rows->w, rows->eps, rows->out + start, rows->length);
}

ferrum_status_t ferrum_cpu_rms_norm(ferrum_context_t *ctx, const ferrum_buffer_t *x,
                                    const ferrum_buffer_t *w, float eps, ferrum_buffer_t *out,
                                    uint32_t tokens, uint32_t dim, ferrum_error_t *err)
{
    const uint64_t count = ferrum_size_mul(tokens, dim);

    FERRUM_CPU_CHECK(ctx, err, {"x", x, FERRUM_DTYPE_F32, 0, count},
                     {"w", w, FERRUM_DTYPE_F32, 0, dim}, {"out", out, FERRUM_DTYPE_F32, 0, count});
    rows_t job = {.vector = ferrum_cpu_vector(ctx),
                  .out = ferrum_cpu_f32(out),
                  .in = ferrum_cpu_f32(x),
                  .w = ferrum_cpu_f32(w),
                  .eps = eps,
                  .length = dim};
    ferrum_cpu_for_each(ctx, tokens, norm_row, &job);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_fused_add_rms_norm(ferrum_context_t *ctx, ferrum_buffer_t *residual,
                                              const ferrum_buffer_t *x, const ferrum_buffer_t *w,
                                              float eps, ferrum_buffer_t *out, uint32_t tokens,
                                              uint32_t dim, ferrum_error_t *err)
{
    const uint64_t count = ferrum_size_mul(tokens, dim);

    FERRUM_CPU_CHECK(ctx, err, {"residual", residual, FERRUM_DTYPE_F32, 0, count},
                     {"x", x, FERRUM_DTYPE_F32, 0, count}, {"w", w, FERRUM_DTYPE_F32, 0, dim},
                     {"out", out, FERRUM_DTYPE_F32, 0, count});
    rows_t job = {.vector = ferrum_cpu_vector(ctx),
                  .out = ferrum_cpu_f32(out),
                  .in = ferrum_cpu_f32(x),
                  .w = ferrum_cpu_f32(w),
                  .residual = ferrum_cpu_f32(residual),
                  .eps = eps,
                  .length = dim};
    ferrum_cpu_for_each(ctx, tokens, norm_row, &job);
    return FERRUM_OK;
}

static void silu_split_row(void *arg, uint64_t item, uint32_t thread)
{
    const rows_t *rows = arg;
    const float *gate = rows->in + item * 2 * rows->length;
    rows->vector->silu_mul(gate, gate + rows->length, rows->out + item * rows->length,
                           rows->length);
}

ferrum_status_t ferrum_cpu_fused_silu_mul_split_strided(ferrum_context_t *ctx,
                                                        const ferrum_buffer_t *gate_up,
                                                        uint64_t in_row, ferrum_buffer_t *out,
                                                        uint64_t out_row, uint32_t tokens,
                                                        uint32_t intermediate, ferrum_error_t *err)
{
    const uint64_t in_offset = ferrum_size_mul3(in_row, 2, intermediate);
    const uint64_t out_offset = ferrum_size_mul(out_row, intermediate);

    FERRUM_CPU_CHECK(
        ctx, err,
        {"gate_up", gate_up, FERRUM_DTYPE_F32, in_offset,
         ferrum_size_mul3(tokens, 2, intermediate)},
        {"out", out, FERRUM_DTYPE_F32, out_offset, ferrum_size_mul(tokens, intermediate)});
    rows_t job = {.vector = ferrum_cpu_vector(ctx),
                  .out = ferrum_cpu_f32(out) + out_offset,
                  .in = ferrum_cpu_f32(gate_up) + in_offset,
                  .length = intermediate};
    ferrum_cpu_for_each(ctx, tokens, silu_split_row, &job);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_fused_silu_mul_split(ferrum_context_t *ctx,
                                                const ferrum_buffer_t *gate_up,
                                                ferrum_buffer_t *out, uint32_t tokens,
                                                uint32_t intermediate, ferrum_error_t *err)
{
    return ferrum_cpu_fused_silu_mul_split_strided(ctx, gate_up, 0, out, 0, tokens, intermediate,
                                                   err);
}
