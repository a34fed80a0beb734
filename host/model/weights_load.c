/* SPDX-License-Identifier: MIT */
#include "host/model/weights.h"

#include <ferrum/util.h>

#include <stdlib.h>
#include <string.h>

#include "host/formats/name_map.h"
#include "host/model/row_decoder.h"

/* A loader speaks of formats and sizes; which tensor it was about is ours to say. */
static ferrum_status_t fail_named(const char *name, ferrum_status_t status, ferrum_error_t *err)
{
    char message[FERRUM_ERROR_MESSAGE_BYTES];
    if (!err || err->size < FERRUM_ERROR_MIN_SIZE)
        return status;
    memcpy(message, err->message, sizeof message);
    return ferrum_fail(err, status, err->reason, "%.90s: %s", name, message);
}

static ferrum_status_t bias_to_f32(const ferrum_matrix_t *matrix, float **out_bias,
                                   ferrum_error_t *err)
{
    *out_bias = NULL;
    if (!matrix->bias)
        return FERRUM_OK;
    float *bias = malloc((size_t)matrix->n * sizeof *bias);
    if (!bias)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "out of memory for a bias of %u values", matrix->n);
    (void)ferrum_values_to_f32(matrix->bias_dtype, matrix->bias, matrix->n, bias);
    *out_bias = bias;
    return FERRUM_OK;
}

static ferrum_status_t account(ferrum_weights_t *weights, const ferrum_ops_t *ops,
                               const ferrum_linear_t *linear, uint64_t file_bytes,
                               ferrum_error_t *err)
{
    ferrum_linear_info_t info = {.head = FERRUM_HEAD(ferrum_linear_info_t)};
    FERRUM_TRY(ops->linear->info(linear, &info, err));
    weights->held_bytes += info.bytes != 0 ? info.bytes : file_bytes;
    return ferrum_weights_advance(weights, file_bytes, err);
}

/* Hands @p linear over only when everything about it succeeded. */
static ferrum_status_t finish(ferrum_weights_t *weights, const ferrum_ops_t *ops,
                              ferrum_linear_t *linear, uint64_t file_bytes,
                              ferrum_linear_t **out_linear, ferrum_error_t *err)
{
    ferrum_status_t status = account(weights, ops, linear, file_bytes, err);
    if (status != FERRUM_OK) {
        ops->linear->release(linear);
        return status;
    }
    *out_linear = linear;
    return FERRUM_OK;
}

ferrum_status_t ferrum_weights_load(ferrum_weights_t *weights, const ferrum_ops_t *ops,
                                    const char *name, const ferrum_matrix_t *matrix,
                                    ferrum_linear_t **out_linear, ferrum_error_t *err)
{
    ferrum_linear_t *linear = NULL;
    float *bias = NULL;
    FERRUM_TRY(bias_to_f32(matrix, &bias, err));
    ferrum_status_t status;
    if (matrix->is_gptq) {
        ferrum_gptq_t gptq = matrix->gptq;
        gptq.bias = bias;
        status = ops->quant->load_gptq(ops->device, &gptq, &linear, err);
    } else {
        status = ops->quant->load_quant(ops->device, &matrix->blocks, bias, &linear, err);
    }
    free(bias);
    if (status != FERRUM_OK)
        return fail_named(name, status, err);
    return finish(weights, ops, linear, matrix->bytes, out_linear, err);
}

ferrum_status_t ferrum_weights_linear(ferrum_weights_t *weights, const ferrum_ops_t *ops,
                                      const char *prefix, uint32_t n, uint32_t k,
                                      ferrum_linear_t **out_linear, ferrum_error_t *err)
{
    ferrum_matrix_t matrix;
    FERRUM_TRY(ferrum_weights_matrix(weights, prefix, n, k, &matrix, err));
    return ferrum_weights_load(weights, ops, prefix, &matrix, out_linear, err);
}

static bool same_bytes(const void *a, const void *b, size_t bytes)
{
    if (!a || !b)
        return a == b;
    return memcmp(a, b, bytes) == 0;
}

/* Whether two GPTQ matrices differ in nothing but their columns. */
static bool joinable(const ferrum_gptq_t *a, const ferrum_gptq_t *b)
{
    return a->bits == b->bits && a->group_size == b->group_size && a->k == b->k &&
           a->zero_convention == b->zero_convention && a->scales_dtype == b->scales_dtype &&
           !a->qzeros == !b->qzeros && same_bytes(a->g_idx, b->g_idx, (size_t)a->k * 4);
}

/* Copy @p rows rows of @p width bytes into a matrix of @p stride bytes per row. */
static void place_columns(uint8_t *dst, size_t stride, const void *src, size_t width, size_t rows)
{
    const uint8_t *from = src;
    for (size_t r = 0; r < rows; r++)
        memcpy(dst + r * stride, from + r * width, width);
}

/* The parts side by side in memory of our own, which the loader copies from. */
static ferrum_status_t load_joined(const ferrum_ops_t *ops, const ferrum_matrix_t *parts,
                                   uint32_t count, ferrum_linear_t **out_linear,
                                   ferrum_error_t *err)
{
    ferrum_gptq_t whole = parts[0].gptq;
    size_t scale_bytes = ferrum_dtype_bytes(whole.scales_dtype);
    size_t groups = (size_t)(whole.scales_count / whole.n);
    size_t weight_rows = (size_t)(whole.qweight_count / whole.n);
    uint64_t n = 0;
    for (uint32_t i = 0; i < count; i++)
        n += parts[i].n;
    whole.n = (uint32_t)n;
    whole.flags = 0;
    whole.qweight_count = weight_rows * n;
    whole.scales_count = groups * n;
    size_t zero_words = (size_t)n * whole.bits / 32;
    whole.qzeros_count = whole.qzeros ? groups * zero_words : 0;

    uint8_t *qweight = malloc((size_t)whole.qweight_count * 4);
    uint8_t *scales = malloc((size_t)whole.scales_count * scale_bytes);
    uint8_t *qzeros = whole.qzeros ? malloc((size_t)whole.qzeros_count * 4) : NULL;
    ferrum_status_t status;
    if (!qweight || !scales || (whole.qzeros && !qzeros)) {
        status = ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                             "out of memory for %llu joined GPTQ columns", (unsigned long long)n);
        goto free_parts;
    }
    size_t column = 0;
    for (uint32_t i = 0; i < count; i++) {
        const ferrum_gptq_t *part = &parts[i].gptq;
        size_t width = part->n;
        place_columns(qweight + column * 4, (size_t)n * 4, part->qweight, width * 4, weight_rows);
        place_columns(scales + column * scale_bytes, (size_t)n * scale_bytes, part->scales,
                      width * scale_bytes, groups);
        if (qzeros)
            place_columns(qzeros + column * whole.bits / 8, zero_words * 4, part->qzeros,
                          width * whole.bits / 8, groups);
        column += width;
    }
    whole.qweight = (const int32_t *)(const void *)qweight;
    whole.scales = scales;
    whole.qzeros = (const int32_t *)(const void *)qzeros;
    status = ops->quant->load_gptq(ops->device, &whole, out_linear, err);

free_parts:
    free(qzeros);
    free(scales);
    free(qweight);
    return status;
}

ferrum_status_t ferrum_weights_fuse(ferrum_weights_t *weights, const ferrum_ops_t *ops,
                                    const char *name, const ferrum_matrix_t *parts, uint32_t count,
                                    ferrum_linear_t **out_linear, ferrum_error_t *err)
{
    const ferrum_gguf_weights_t *blocks[FERRUM_FUSED_MAX_PARTS];
    uint64_t bytes = 0;
    bool fits = count <= FERRUM_FUSED_MAX_PARTS;
    for (uint32_t i = 0; fits && i < count; i++) {
        bytes += parts[i].bytes;
        blocks[i] = &parts[i].blocks;
        fits = !parts[i].bias && parts[i].is_gptq == parts[0].is_gptq &&
               (!parts[i].is_gptq || joinable(&parts[0].gptq, &parts[i].gptq));
    }
    *out_linear = NULL;
    if (!fits)
        return FERRUM_OK;
    ferrum_linear_t *linear = NULL;
    ferrum_status_t status =
        parts[0].is_gptq ? load_joined(ops, parts, count, &linear, err)
                         : ops->quant->load_quant_fused(ops->device, blocks, count, &linear, err);
    if (status != FERRUM_OK)
        return fail_named(name, status, err);
    return finish(weights, ops, linear, bytes, out_linear, err);
}

ferrum_status_t ferrum_weights_vector(ferrum_weights_t *weights, const ferrum_ops_t *ops,
                                      ferrum_context_t *ctx, const char *name, uint32_t count,
                                      ferrum_buffer_t **out_buffer, ferrum_error_t *err)
{
    const void *data;
    ferrum_dtype_t dtype = FERRUM_DTYPE_F32;
    FERRUM_TRY(ferrum_weights_values(weights, name, count, &data, &dtype, err));
    float *values = malloc((size_t)count * sizeof *values);
    if (!values)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "out of memory for %.100s", name);
    (void)ferrum_values_to_f32(dtype, data, count, values);
    ferrum_buffer_t *buffer = NULL;
    ferrum_status_t status =
        ops->backend->buffer_alloc(ops->device, FERRUM_DTYPE_F32, count, &buffer, err);
    if (status == FERRUM_OK)
        status = ops->backend->buffer_write_f32(ctx, buffer, 0, values, count, err);
    free(values);
    if (status != FERRUM_OK) {
        ops->backend->buffer_release(buffer);
        return fail_named(name, status, err);
    }
    weights->held_bytes += (uint64_t)count * sizeof *values;
    *out_buffer = buffer;
    return FERRUM_OK;
}
