/* SPDX-License-Identifier: MIT */
/* Slabs of blocks, and what all weights have in common. */
#include "backends/cuda/weights.h"

/** The block formats that kernels decode. */
static const struct {
    ferrum_weight_format_t format;
    uint32_t layout;
} layouts[] = {
    {FERRUM_FORMAT_F32, FERRUM_LAYOUT_F32},       {FERRUM_FORMAT_F16, FERRUM_LAYOUT_F16},
    {FERRUM_FORMAT_BF16, FERRUM_LAYOUT_BF16},     {FERRUM_FORMAT_Q4_0, FERRUM_LAYOUT_Q4_0},
    {FERRUM_FORMAT_Q4_1, FERRUM_LAYOUT_Q4_1},     {FERRUM_FORMAT_Q5_0, FERRUM_LAYOUT_Q5_0},
    {FERRUM_FORMAT_Q5_1, FERRUM_LAYOUT_Q5_1},     {FERRUM_FORMAT_Q8_0, FERRUM_LAYOUT_Q8_0},
    {FERRUM_FORMAT_Q2_K, FERRUM_LAYOUT_Q2_K},     {FERRUM_FORMAT_Q3_K, FERRUM_LAYOUT_Q3_K},
    {FERRUM_FORMAT_Q4_K, FERRUM_LAYOUT_Q4_K},     {FERRUM_FORMAT_Q5_K, FERRUM_LAYOUT_Q5_K},
    {FERRUM_FORMAT_Q6_K, FERRUM_LAYOUT_Q6_K},     {FERRUM_FORMAT_IQ4_NL, FERRUM_LAYOUT_IQ4_NL},
    {FERRUM_FORMAT_IQ4_XS, FERRUM_LAYOUT_IQ4_XS}, {FERRUM_FORMAT_MXFP4, FERRUM_LAYOUT_MXFP4},
};

enum {
    LAYOUT_COUNT = sizeof layouts / sizeof layouts[0]
};

/** Index into layouts, or LAYOUT_COUNT. */
static size_t find_layout(ferrum_weight_format_t format)
{
    size_t i = 0;
    while (i < LAYOUT_COUNT && layouts[i].format != format)
        i++;
    return i;
}

ferrum_status_t ferrum_cuda_check_block_problem(ferrum_weight_format_t format, uint32_t k,
                                                ferrum_error_t *err)
{
    const ferrum_format_traits_t *traits = ferrum_format_traits(format);

    if (!traits || find_layout(format) == LAYOUT_COUNT)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_FORMAT,
                           "the cuda backend has no kernel for %s (weight format %u)",
                           traits ? traits->name : "an unknown block format", format);
    if (k % traits->block_values != 0)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_K,
                           "%s needs a multiple of %u inputs, not %u", traits->name,
                           traits->block_values, k);
    return FERRUM_OK;
}

static ferrum_status_t check_source(const ferrum_gguf_weights_t *source, ferrum_error_t *err)
{
    FERRUM_CHECK_STRUCT(source, FERRUM_GGUF_WEIGHTS_MIN_SIZE, err);
    FERRUM_CHECK_POINTER(source->data, err);
    if (source->flags & ~(uint32_t)FERRUM_WEIGHTS_MAPPED)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_FLAGS,
                           "weights have unknown flags 0x%x", source->flags);
    FERRUM_TRY(ferrum_cuda_check_block_problem(source->format, source->cols, err));
    if (source->experts == 0 || source->rows == 0 || source->cols == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "weights of [%u, %u, %u] are empty", source->experts, source->rows,
                           source->cols);

    const ferrum_format_traits_t *traits = ferrum_format_traits(source->format);
    const uint64_t row_bytes =
        (uint64_t)(source->cols / traits->block_values) * traits->block_bytes;
    const uint64_t bytes = ferrum_size_mul3(source->experts, source->rows, row_bytes);
    if (bytes != source->bytes || bytes > SIZE_MAX / 2)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "weights of [%u, %u, %u] in %s take %llu bytes, not %llu",
                           source->experts, source->rows, source->cols, traits->name,
                           (unsigned long long)bytes, (unsigned long long)source->bytes);
    return FERRUM_OK;
}

/** Keep the blocks as they are. */
static ferrum_status_t load_blocks(ferrum_device_t *device, const ferrum_gguf_weights_t *source,
                                   ferrum_cuda_weights_t *weights, ferrum_error_t *err)
{
    const uint64_t expert_bytes = source->bytes / source->experts;

    FERRUM_TRY(ferrum_cuda_memory_new(device, source->bytes, "weights", &weights->memory, err));
    weights->bytes = source->bytes;
    weights->gpu = (ferrum_gpu_weights_t){
        .data = weights->memory->address,
        .expert_bytes = expert_bytes,
        .row_bytes = expert_bytes / source->rows,
        .layout = layouts[find_layout(source->format)].layout,
        .n = source->rows,
        .k = source->cols,
        .expert_rows = source->rows,
    };
    return ferrum_cuda_memory_write(weights->memory, 0, source->data, source->bytes, err);
}

ferrum_status_t ferrum_cuda_weights_from_gguf(ferrum_device_t *device,
                                              const ferrum_gguf_weights_t *source, uint32_t tiles,
                                              ferrum_cuda_weights_t *out_weights,
                                              ferrum_error_t *err)
{
    FERRUM_TRY(check_source(source, err));
    ferrum_cuda_weights_t weights = {
        .experts = source->experts,
        .n = source->rows,
        .k = source->cols,
        .format = source->format,
        .source_bytes = source->bytes,
    };
    const ferrum_status_t status = tiles && ferrum_cuda_gguf_fits(source->format)
                                       ? ferrum_cuda_gguf_load(device, source, tiles, &weights, err)
                                       : load_blocks(device, source, &weights, err);
    if (status != FERRUM_OK) {
        ferrum_cuda_weights_free(&weights);
        return status;
    }
    *out_weights = weights;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_weights_set_bias(ferrum_device_t *device,
                                             ferrum_cuda_weights_t *weights, const float *bias,
                                             ferrum_error_t *err)
{
    const uint64_t bytes = ferrum_size_mul3(weights->experts, weights->n, sizeof *bias);
    ferrum_cuda_memory_t *memory;

    if (!bias)
        return FERRUM_OK;
    FERRUM_TRY(ferrum_cuda_memory_new(device, bytes, "biases", &memory, err));
    const ferrum_status_t status = ferrum_cuda_memory_write(memory, 0, bias, bytes, err);
    if (status != FERRUM_OK) {
        ferrum_cuda_memory_free(memory);
        return status;
    }
    weights->bias = memory;
    weights->bytes += bytes;
    weights->gpu.bias = memory->address;
    return FERRUM_OK;
}

void ferrum_cuda_weights_free(ferrum_cuda_weights_t *weights)
{
    ferrum_cuda_memory_free(weights->memory);
    ferrum_cuda_memory_free(weights->bias);
    *weights = (ferrum_cuda_weights_t){0};
}

ferrum_status_t ferrum_cuda_weights_note(ferrum_context_t *ctx,
                                         const ferrum_cuda_weights_t *weights, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_cuda_note(ctx, weights->memory, err));
    return weights->bias ? ferrum_cuda_note(ctx, weights->bias, err) : FERRUM_OK;
}

float ferrum_cuda_error_bound(const ferrum_device_t *device)
{
    return device->act == FERRUM_DTYPE_F16 ? 2e-3f : 1e-2f;
}
