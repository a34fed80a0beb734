/* SPDX-License-Identifier: MIT */
#include "backends/cpu/check.h"
#include "backends/cpu/matrix.h"

#include <string.h>

ferrum_status_t ferrum_cpu_weights_new_matrices(const ferrum_device_t *device,
                                                ferrum_cpu_weights_t *weights, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_cpu_alloc(device,
                                ferrum_size_mul(weights->experts, sizeof *weights->matrices),
                                "weight matrices", &weights->matrices_memory, err));
    weights->matrices = weights->matrices_memory.ptr;
    for (uint32_t e = 0; e < weights->experts; e++)
        weights->matrices[e] = (ferrum_cpu_matrix_t){.n = weights->n, .k = weights->k};
    return FERRUM_OK;
}

/** Whether panels of @p shape fit in the places that @p room leaves. */
static bool fits_room(const ferrum_cpu_weights_t *room, uint32_t experts,
                      const ferrum_packed_matrix_t *shape)
{
    if (!room || room->experts != experts)
        return false;
    const ferrum_packed_matrix_t *other = &room->matrices[0].packed;
    return other->kind == shape->kind && other->n == shape->n && other->k == shape->k &&
           other->unit == shape->unit && other->unit_bytes == shape->unit_bytes &&
           other->panel_stride == 2 * shape->panel_bytes;
}

ferrum_status_t ferrum_cpu_weights_place(const ferrum_device_t *device,
                                         const ferrum_cpu_loading_t *loading,
                                         ferrum_cpu_weights_t *weights,
                                         ferrum_packed_matrix_t *shape, uint8_t **out_first,
                                         ferrum_error_t *err)
{
    const bool fits = fits_room(loading->room, weights->experts, shape);

    weights->precision = loading->precision;
    if (loading->leaves_room || fits)
        shape->panel_stride = 2 * shape->panel_bytes;
    if (fits) {
        *out_first = (uint8_t *)loading->room->data.ptr + shape->panel_bytes;
        return FERRUM_OK;
    }
    FERRUM_TRY(ferrum_cpu_alloc(
        device,
        ferrum_size_mul3(weights->experts, weights->n / FERRUM_PANEL_ROWS, shape->panel_stride),
        "packed weights", &weights->data, err));
    *out_first = weights->data.ptr;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_weights_set_bias(const ferrum_device_t *device,
                                            ferrum_cpu_weights_t *weights, const float *bias,
                                            ferrum_error_t *err)
{
    if (!bias)
        return FERRUM_OK;
    FERRUM_TRY(ferrum_cpu_alloc(device,
                                ferrum_size_mul3(weights->experts, weights->n, sizeof(float)),
                                "biases", &weights->bias, err));
    memcpy(weights->bias.ptr, bias, (size_t)weights->experts * weights->n * sizeof(float));
    for (uint32_t e = 0; e < weights->experts; e++)
        weights->matrices[e].bias = (const float *)weights->bias.ptr + (size_t)e * weights->n;
    return FERRUM_OK;
}

void ferrum_cpu_weights_free(const ferrum_device_t *device, ferrum_cpu_weights_t *weights)
{
    ferrum_cpu_free(device, &weights->matrices_memory);
    ferrum_cpu_free(device, &weights->data);
    ferrum_cpu_free(device, &weights->perms);
    ferrum_cpu_free(device, &weights->bias);
    weights->matrices = NULL;
}

uint64_t ferrum_cpu_weights_bytes(const ferrum_cpu_weights_t *weights)
{
    return (uint64_t)weights->data.bytes + weights->perms.bytes + weights->bias.bytes;
}

float ferrum_cpu_weights_error_bound(const ferrum_cpu_weights_t *weights)
{
    switch (weights->precision) {
    case FERRUM_PACKED_ACCURATE:
        return FERRUM_CPU_ACCURATE_ERROR_BOUND;
    case FERRUM_PACKED_FAST:
        return FERRUM_CPU_FAST_ERROR_BOUND;
    default:
        return FERRUM_CPU_F32_ERROR_BOUND;
    }
}

void ferrum_cpu_matrix_product(const ferrum_device_t *device, const ferrum_cpu_matrix_t *matrix,
                               uint32_t row, uint32_t rows, const void *x, size_t x_stride,
                               uint32_t tokens, float *y, size_t ldy)
{
    const size_t ldx = x_stride / sizeof(float);
    if (matrix->packed.kind != FERRUM_PACKED_NONE)
        device->packed->product(&matrix->packed, matrix->precision, matrix->first_row + row, rows,
                                x, x_stride, NULL, tokens, y, ldy);
    else if (matrix->matmul)
        matrix->matmul(matrix->rows + row * matrix->row_bytes, matrix->row_bytes, rows, matrix->k,
                       x, ldx, tokens, y, ldy);
    else
        matrix->gptq_matmul(&matrix->gptq, matrix->first_row + row, rows, x, ldx, tokens, y, ldy);
    if (matrix->bias)
        for (uint32_t t = 0; t < tokens; t++)
            device->kernels->vector.add(y + t * ldy, matrix->bias + row, rows);
}
