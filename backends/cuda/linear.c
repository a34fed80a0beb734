/* SPDX-License-Identifier: MIT */
#include "backends/cuda/linear.h"
#include "backends/cuda/entries.h"
#include "backends/cuda/product.h"

ferrum_status_t ferrum_cuda_linear_new(ferrum_device_t *device, uint32_t parts,
                                       ferrum_linear_t **out_linear, ferrum_error_t *err)
{
    const uint64_t bytes = parts * sizeof(ferrum_cuda_weights_t);
    ferrum_linear_t *linear = ferrum_cuda_object_new(device, sizeof *linear, "a linear layer", err);

    if (!linear)
        return FERRUM_OUT_OF_MEMORY;
    linear->weights = ferrum_cuda_host_alloc(device->host, bytes, "a linear layer", err);
    if (!linear->weights) {
        ferrum_cuda_object_free(device, linear, sizeof *linear);
        return FERRUM_OUT_OF_MEMORY;
    }
    atomic_init(&linear->refs, 1);
    linear->device = device;
    linear->parts = parts;
    *out_linear = linear;
    return FERRUM_OK;
}

void ferrum_cuda_linear_retain(ferrum_linear_t *linear)
{
    ferrum_cuda_ref(&linear->refs);
}

void ferrum_cuda_linear_release(ferrum_linear_t *linear)
{
    if (!linear || !ferrum_cuda_unref(&linear->refs))
        return;
    ferrum_device_t *device = linear->device;
    for (uint32_t i = 0; !linear->stack && i < linear->parts; i++)
        ferrum_cuda_weights_free(&linear->weights[i]);
    ferrum_cuda_memory_free(linear->bias);
    ferrum_cuda_marlin_stack_release(linear->stack);
    ferrum_cuda_host_free(device->host, linear->weights, linear->parts * sizeof *linear->weights);
    ferrum_cuda_object_free(device, linear, sizeof *linear);
}

ferrum_status_t ferrum_cuda_linear_info(const ferrum_linear_t *linear,
                                        ferrum_linear_info_t *out_info, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(linear, err);
    ferrum_linear_info_t info = {
        .head = FERRUM_HEAD(ferrum_linear_info_t),
        .in_features = linear->k,
        .out_features = linear->n,
        .format = linear->format,
        .bits = linear->bits,
        .bytes = linear->bias ? linear->bias->bytes : 0,
        .error_bound = ferrum_cuda_error_bound(linear->device),
    };
    for (uint32_t i = 0; !linear->stack && i < linear->parts; i++)
        info.bytes += linear->weights[i].bytes;
    return ferrum_fill_struct(__func__, out_info, FERRUM_LINEAR_INFO_MIN_SIZE, &info, err);
}

/** Take over @p weights (of one expert) as part @p index, after the parts before it. */
static void add_part(ferrum_linear_t *linear, uint32_t index, const ferrum_cuda_weights_t *weights)
{
    linear->weights[index] = *weights;
    linear->n += weights->n;
    if (index == 0) {
        linear->k = weights->k;
        linear->format = weights->format;
        linear->bits = weights->bits;
    }
}

static ferrum_status_t load_part(ferrum_linear_t *linear, uint32_t index,
                                 const ferrum_gguf_weights_t *source, const float *bias,
                                 ferrum_error_t *err)
{
    ferrum_cuda_weights_t weights;

    FERRUM_CHECK_STRUCT(source, FERRUM_GGUF_WEIGHTS_MIN_SIZE, err);
    if (source->experts != 1)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_EXPERTS,
                           "a linear layer is one matrix, not %u: use load_quant_experts",
                           source->experts);
    if (index > 0 && source->cols != linear->k)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_K,
                           "part %u has %u inputs, part 0 has %u", index, source->cols, linear->k);
    if (source->rows > UINT32_MAX - linear->n)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                           "the parts of a linear layer have more than %u outputs", UINT32_MAX);
    FERRUM_TRY(ferrum_cuda_weights_from_gguf(linear->device, source, 0, &weights, err));
    const ferrum_status_t status =
        ferrum_cuda_weights_set_bias(linear->device, &weights, bias, err);
    if (status != FERRUM_OK) {
        ferrum_cuda_weights_free(&weights);
        return status;
    }
    add_part(linear, index, &weights);
    return FERRUM_OK;
}

static ferrum_status_t load_parts(ferrum_device_t *device,
                                  const ferrum_gguf_weights_t *const *parts, uint32_t count,
                                  const float *bias, ferrum_linear_t **out_linear,
                                  ferrum_error_t *err)
{
    ferrum_linear_t *linear;

    FERRUM_TRY(ferrum_cuda_linear_new(device, count, &linear, err));
    for (uint32_t i = 0; i < count; i++) {
        const ferrum_status_t status = load_part(linear, i, parts[i], bias, err);
        if (status != FERRUM_OK) {
            ferrum_cuda_linear_release(linear);
            return status;
        }
    }
    *out_linear = linear;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_load_quant(ferrum_device_t *device,
                                       const ferrum_gguf_weights_t *weights, const float *bias,
                                       ferrum_linear_t **out_linear, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(out_linear, err);
    return load_parts(device, &weights, 1, bias, out_linear, err);
}

ferrum_status_t ferrum_cuda_load_quant_fused(ferrum_device_t *device,
                                             const ferrum_gguf_weights_t *const *parts,
                                             uint32_t count, ferrum_linear_t **out_linear,
                                             ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(parts, err);
    FERRUM_CHECK_POINTER(out_linear, err);
    if (count == 0)
        return FERRUM_REFUSE(err, FERRUM_REASON_LENGTH, "there are %u parts", count);
    return load_parts(device, parts, count, NULL, out_linear, err);
}

ferrum_status_t ferrum_cuda_load_gptq(ferrum_device_t *device, const ferrum_gptq_t *weights,
                                      ferrum_linear_t **out_linear, ferrum_error_t *err)
{
    ferrum_cuda_weights_t loaded;
    ferrum_linear_t *linear;

    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(out_linear, err);
    FERRUM_TRY(ferrum_cuda_weights_from_gptq(device, &weights, 1, NULL, &loaded, err));
    const ferrum_status_t status = ferrum_cuda_linear_new(device, 1, &linear, err);
    if (status != FERRUM_OK) {
        ferrum_cuda_weights_free(&loaded);
        return status;
    }
    add_part(linear, 0, &loaded);
    *out_linear = linear;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_linear_forward(ferrum_context_t *ctx, const ferrum_linear_t *linear,
                                           const ferrum_buffer_t *x, uint64_t x_offset,
                                           ferrum_buffer_t *y, uint64_t y_offset, uint32_t m,
                                           ferrum_error_t *err)
{
    const uint32_t tile_rows = ferrum_cuda_tile_rows(m);
    uint64_t column = y_offset;

    FERRUM_CHECK_POINTER(linear, err);
    FERRUM_CUDA_CHECK(ctx, err, {"x", x, FERRUM_CUDA_ACT, x_offset, ferrum_size_mul(m, linear->k)},
                      {"y", y, FERRUM_CUDA_ACT, y_offset, ferrum_size_mul(m, linear->n)});
    for (uint32_t i = 0; i < linear->parts && m > 0; i++) {
        const ferrum_cuda_weights_t *weights = &linear->weights[i];
        const ferrum_product_args_t args = {.w = weights->gpu,
                                            .x = ferrum_cuda_at(x, x_offset),
                                            .out = ferrum_cuda_at(y, column),
                                            .out_stride = linear->n,
                                            .mode = FERRUM_ROWS_DENSE,
                                            .rows = m,
                                            .top_k = 1};
        FERRUM_TRY(ferrum_cuda_weights_note(ctx, weights, err));
        FERRUM_TRY(
            ferrum_cuda_product(ctx, &args, tile_rows, ferrum_cuda_ceil(m, tile_rows), 1, err));
        column += weights->n;
    }
    return FERRUM_OK;
}
