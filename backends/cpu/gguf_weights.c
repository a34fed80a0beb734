/* SPDX-License-Identifier: MIT */
/* Slabs of blocks: kept byte for byte, or pointed at when they stay mapped. */
#include "backends/cpu/check.h"
#include "backends/cpu/matrix.h"
#include "backends/cpu/parallel.h"

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
    FERRUM_CHECK_STRUCT(source, FERRUM_GGUF_WEIGHTS_MIN_SIZE, err);
    FERRUM_CHECK_POINTER(source->data, err);
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
    const uint64_t bytes = ferrum_size_mul3(source->experts, source->rows, row_bytes);
    if (bytes != source->bytes || bytes > SIZE_MAX / 2)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "weights of [%u, %u, %u] in %s take %llu bytes, not %llu",
                           source->experts, source->rows, source->cols, traits->name,
                           (unsigned long long)bytes, (unsigned long long)source->bytes);
    return FERRUM_OK;
}

bool ferrum_cpu_packs_blocks(const ferrum_device_t *device, ferrum_weight_format_t format,
                             uint32_t n, uint32_t k)
{
    ferrum_packed_matrix_t shape;
    return device->packed &&
           ferrum_packed_shape(ferrum_packed_kind_of(format), n, k, 0, FERRUM_DTYPE_F32, &shape);
}

/** Panels of all experts, in the order of their rows. */
typedef struct packing {
    ferrum_packed_matrix_t shape;
    const uint8_t *rows;
    size_t row_bytes;
    uint8_t *first;
} packing_t;

static void pack_panel(void *arg, uint64_t panel, uint32_t thread)
{
    const packing_t *packing = arg;
    (void)thread;
    ferrum_pack_blocks(&packing->shape,
                       packing->rows + panel * FERRUM_PANEL_ROWS * packing->row_bytes,
                       packing->row_bytes, packing->first + panel * packing->shape.panel_stride);
}

/** Panels of all experts in one block of memory. */
static ferrum_status_t pack_experts(const ferrum_device_t *device,
                                    const ferrum_gguf_weights_t *source,
                                    const ferrum_cpu_loading_t *loading,
                                    ferrum_cpu_weights_t *weights, ferrum_error_t *err)
{
    packing_t packing = {.rows = source->data,
                         .row_bytes = (size_t)(source->bytes / source->experts / source->rows)};

    (void)ferrum_packed_shape(ferrum_packed_kind_of(source->format), weights->n, weights->k, 0,
                              FERRUM_DTYPE_F32, &packing.shape);
    FERRUM_TRY(
        ferrum_cpu_weights_place(device, loading, weights, &packing.shape, &packing.first, err));
    const size_t panels = weights->n / FERRUM_PANEL_ROWS;
    weights->common_perm = true;
    for (uint32_t e = 0; e < weights->experts; e++) {
        weights->matrices[e].packed = packing.shape;
        weights->matrices[e].packed.panels =
            packing.first + e * panels * packing.shape.panel_stride;
        weights->matrices[e].precision = loading->precision;
    }
    ferrum_cpu_spread(device, source->bytes, weights->experts * panels, pack_panel, &packing);
    return FERRUM_OK;
}

/** Blocks byte for byte, copied unless they stay mapped. */
static ferrum_status_t keep_experts(const ferrum_device_t *device,
                                    const ferrum_gguf_weights_t *source,
                                    ferrum_cpu_weights_t *weights, ferrum_error_t *err)
{
    const uint8_t *data = source->data;
    const size_t expert_bytes = (size_t)(source->bytes / source->experts);

    if (!(source->flags & FERRUM_WEIGHTS_MAPPED)) {
        FERRUM_TRY(ferrum_cpu_alloc(device, source->bytes, "weights", &weights->data, err));
        memcpy(weights->data.ptr, source->data, (size_t)source->bytes);
        data = weights->data.ptr;
    }
    for (uint32_t e = 0; e < weights->experts; e++) {
        ferrum_cpu_matrix_t *matrix = &weights->matrices[e];
        matrix->matmul = ferrum_kernel_matmul(device->kernels, device->features, source->format);
        matrix->rows = data + e * expert_bytes;
        matrix->row_bytes = expert_bytes / source->rows;
    }
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_weights_from_gguf(const ferrum_device_t *device,
                                             const ferrum_gguf_weights_t *source,
                                             const ferrum_cpu_loading_t *loading,
                                             ferrum_cpu_weights_t *out_weights, ferrum_error_t *err)
{
    FERRUM_TRY(check_source(device, source, err));
    ferrum_cpu_weights_t weights = {.experts = source->experts,
                                    .n = source->rows,
                                    .k = source->cols,
                                    .format = source->format,
                                    .source_bytes = source->bytes};
    const bool packs = loading->precision &&
                       ferrum_cpu_packs_blocks(device, source->format, source->rows, source->cols);

    FERRUM_TRY(ferrum_cpu_weights_new_matrices(device, &weights, err));
    const ferrum_status_t status = packs ? pack_experts(device, source, loading, &weights, err)
                                         : keep_experts(device, source, &weights, err);
    if (status != FERRUM_OK) {
        ferrum_cpu_weights_free(device, &weights);
        return status;
    }
    *out_weights = weights;
    return FERRUM_OK;
}
