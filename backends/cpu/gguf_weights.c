/* SPDX-License-Identifier: MIT */
/* Slabs of blocks: kept byte for byte, or pointed at when they stay mapped. */
#include "backends/cpu/check.h"
#include "backends/cpu/matrix.h"

#include <string.h>

ferrum_status_t ferrum_cpu_check_block_problem(const ferrum_device_t *device,
                                               ferrum_weight_format_t format, uint32_t k,
                                               ferrum_error_t *err)
{
    const ferrum_format_traits_t *traits = ferrum_format_traits(format);

    if (!traits || !ferrum_kernel_matmul(device->kernels, device->features, format))
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_FORMAT,
                           "the cpu backend has no kernel for %s (weight format %u)",
                           traits ? traits->name : "an unknown block format", format);
    if (k % traits->block_values != 0)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_K,
                           "%s needs a multiple of %u inputs, not %u", traits->name,
                           traits->block_values, k);
    return FERRUM_OK;
}

static ferrum_status_t check_source(const ferrum_device_t *device,
                                    const ferrum_gguf_weights_t *source, ferrum_error_t *err)
{
    FERRUM_CPU_CHECK_STRUCT(source, FERRUM_GGUF_WEIGHTS_MIN_SIZE, err);
    FERRUM_CPU_CHECK_POINTER(source->data, err);
    if (source->flags & ~(uint32_t)FERRUM_WEIGHTS_MAPPED)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_FLAGS,
                           "weights have unknown flags 0x%x", source->flags);
    FERRUM_TRY(ferrum_cpu_check_block_problem(device, source->format, source->cols, err));
    if (source->experts == 0 || source->rows == 0 || source->cols == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "weights of [%u, %u, %u] are empty", source->experts, source->rows,
                           source->cols);

    const ferrum_format_traits_t *traits = ferrum_format_traits(source->format);
    const uint64_t row_bytes =
        (uint64_t)(source->cols / traits->block_values) * traits->block_bytes;
    const uint64_t bytes = ferrum_cpu_mul3(source->experts, source->rows, row_bytes);
    if (bytes != source->bytes || bytes > SIZE_MAX / 2)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "weights of [%u, %u, %u] in %s take %llu bytes, not %llu",
                           source->experts, source->rows, source->cols, traits->name,
                           (unsigned long long)bytes, (unsigned long long)source->bytes);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_weights_from_gguf(const ferrum_device_t *device,
                                             const ferrum_gguf_weights_t *source,
                                             ferrum_cpu_weights_t *out_weights, ferrum_error_t *err)
{
    FERRUM_TRY(check_source(device, source, err));
    ferrum_cpu_weights_t weights = {.experts = source->experts,
                                    .n = source->rows,
                                    .k = source->cols,
                                    .format = source->format,
                                    .source_bytes = source->bytes};
    const uint8_t *data = source->data;

    FERRUM_TRY(ferrum_cpu_weights_new_matrices(device, &weights, err));
    if (!(source->flags & FERRUM_WEIGHTS_MAPPED)) {
        const ferrum_status_t status =
            ferrum_cpu_alloc(device, source->bytes, "weights", &weights.data, err);
        if (status != FERRUM_OK) {
            ferrum_cpu_weights_free(device, &weights);
            return status;
        }
        memcpy(weights.data.ptr, source->data, (size_t)source->bytes);
        data = weights.data.ptr;
    }
    const size_t expert_bytes = (size_t)(source->bytes / source->experts);
    for (uint32_t e = 0; e < weights.experts; e++) {
        ferrum_cpu_matrix_t *matrix = &weights.matrices[e];
        matrix->matmul = ferrum_kernel_matmul(device->kernels, device->features, source->format);
        matrix->rows = data + e * expert_bytes;
        matrix->row_bytes = expert_bytes / source->rows;
    }
    *out_weights = weights;
    return FERRUM_OK;
}
