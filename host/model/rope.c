/* SPDX-License-Identifier: MIT */
#include "host/model/rope.h"

#include <ferrum/util.h>

#include <math.h>
#include <stdlib.h>

void ferrum_rope_fill(uint32_t positions, uint32_t head_dim, double theta, float *out_cos,
                      float *out_sin)
{
    uint32_t half = head_dim / 2;
    for (uint32_t i = 0; i < half; i++) {
        double frequency = pow(theta, -2.0 * (double)i / (double)head_dim);
        for (uint32_t p = 0; p < positions; p++) {
            double angle = (double)p * frequency;
            out_cos[(size_t)p * half + i] = (float)cos(angle);
            out_sin[(size_t)p * half + i] = (float)sin(angle);
        }
    }
}

static ferrum_status_t upload(const ferrum_ops_t *ops, ferrum_context_t *ctx, const float *values,
                              uint64_t count, ferrum_buffer_t **out_buffer, ferrum_error_t *err)
{
    ferrum_buffer_t *buffer = NULL;
    FERRUM_TRY(ops->backend->buffer_alloc(ops->device, FERRUM_DTYPE_F32, count, &buffer, err));
    ferrum_status_t status = ops->backend->buffer_write_f32(ctx, buffer, 0, values, count, err);
    if (status != FERRUM_OK) {
        ops->backend->buffer_release(buffer);
        return status;
    }
    *out_buffer = buffer;
    return FERRUM_OK;
}

ferrum_status_t ferrum_rope_upload(const ferrum_ops_t *ops, ferrum_context_t *ctx,
                                   uint32_t positions, uint32_t head_dim, double theta,
                                   ferrum_buffer_t **out_cos, ferrum_buffer_t **out_sin,
                                   ferrum_error_t *err)
{
    uint64_t count = (uint64_t)positions * (head_dim / 2);
    float *tables = calloc((size_t)count, 2 * sizeof *tables);
    if (!tables)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "out of memory for rotation tables of %u positions", positions);
    ferrum_rope_fill(positions, head_dim, theta, tables, tables + count);
    ferrum_buffer_t *cosines = NULL, *sines = NULL;
    ferrum_status_t status = upload(ops, ctx, tables, count, &cosines, err);
    if (status == FERRUM_OK)
        status = upload(ops, ctx, tables + count, count, &sines, err);
    free(tables);
    if (status != FERRUM_OK) {
        ops->backend->buffer_release(cosines);
        return status;
    }
    *out_cos = cosines;
    *out_sin = sines;
    return FERRUM_OK;
}
