/* SPDX-License-Identifier: MIT */
/* Several GPTQ matrices of one shape in one block of memory. */
#include "backends/cpu/check.h"
#include "backends/cpu/gptq_weights.h"

#include <string.h>

/** Matrix @p index agrees with the first one in everything but codes, zeros and g_idx. */
static ferrum_status_t check_equal(const ferrum_gptq_t *first, const ferrum_gptq_t *other,
                                   uint32_t index, ferrum_error_t *err)
{
    if (first->k == other->k && first->n == other->n && first->bits == other->bits &&
        first->group_size == other->group_size && first->zero_convention == other->zero_convention)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                       "GPTQ matrix %u (k=%u, n=%u, bits=%u, group size %u, convention %u) differs "
                       "from matrix 0 (k=%u, n=%u, bits=%u, group size %u, convention %u)",
                       index, other->k, other->n, other->bits, other->group_size,
                       other->zero_convention, first->k, first->n, first->bits, first->group_size,
                       first->zero_convention);
}

static ferrum_status_t check_all(const ferrum_gptq_t *const *sources, uint32_t count,
                                 ferrum_cpu_weights_t *out_shape, ferrum_error_t *err)
{
    uint64_t bytes = 0;

    FERRUM_CPU_CHECK_POINTER(sources, err);
    if (count == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_EXPERTS,
                           "there are no GPTQ matrices to load");
    for (uint32_t e = 0; e < count; e++) {
        FERRUM_TRY(ferrum_cpu_check_gptq(sources[e], err));
        FERRUM_TRY(check_equal(sources[0], sources[e], e, err));
        bytes += sources[e]->qweight_count * sizeof(uint32_t) +
                 sources[e]->scales_count * ferrum_dtype_bytes(sources[e]->scales_dtype) +
                 (sources[e]->qzeros ? sources[e]->qzeros_count * sizeof(uint32_t) : 0) +
                 (sources[e]->g_idx ? sources[e]->g_idx_count * sizeof(uint32_t) : 0);
    }
    *out_shape = (ferrum_cpu_weights_t){.experts = count,
                                        .n = sources[0]->n,
                                        .k = sources[0]->k,
                                        .bits = sources[0]->bits,
                                        .format = FERRUM_FORMAT_GPTQ,
                                        .source_bytes = bytes};
    return FERRUM_OK;
}

/** The sources' own biases, where they have one. */
static ferrum_status_t load_biases(const ferrum_device_t *device,
                                   const ferrum_gptq_t *const *sources,
                                   ferrum_cpu_weights_t *weights, ferrum_error_t *err)
{
    const size_t row_bytes = weights->n * sizeof(float);
    bool any = false;

    for (uint32_t e = 0; e < weights->experts; e++)
        any = any || sources[e]->bias;
    if (!any)
        return FERRUM_OK;
    FERRUM_TRY(ferrum_cpu_alloc(device, ferrum_cpu_mul(weights->experts, row_bytes), "biases",
                                &weights->bias, err));
    for (uint32_t e = 0; e < weights->experts; e++) {
        float *bias = (float *)weights->bias.ptr + (size_t)e * weights->n;
        if (!sources[e]->bias)
            continue;
        memcpy(bias, sources[e]->bias, row_bytes);
        weights->matrices[e].bias = bias;
    }
    return FERRUM_OK;
}

static ferrum_status_t load_all(const ferrum_device_t *device, const ferrum_gptq_t *const *sources,
                                ferrum_cpu_weights_t *weights, ferrum_error_t *err)
{
    uint64_t bytes = 0;

    FERRUM_TRY(ferrum_cpu_weights_new_matrices(device, weights, err));
    for (uint32_t e = 0; e < weights->experts; e++) {
        const ferrum_cpu_gptq_layout_t layout = ferrum_cpu_gptq_layout(sources[e]);
        bytes = ferrum_cpu_add(bytes, ferrum_cpu_gptq_layout_bytes(&layout));
    }
    FERRUM_TRY(ferrum_cpu_alloc(device, bytes, "weights", &weights->data, err));
    uint8_t *next = weights->data.ptr;
    for (uint32_t e = 0; e < weights->experts; e++) {
        const ferrum_cpu_gptq_layout_t layout = ferrum_cpu_gptq_layout(sources[e]);
        ferrum_cpu_matrix_t *matrix = &weights->matrices[e];
        ferrum_cpu_gptq_fill(sources[e], &layout, next, &matrix->gptq, &matrix->perm);
        matrix->gptq_matmul = device->gptq_matmul;
        weights->permuted = weights->permuted || matrix->perm;
        next += ferrum_cpu_gptq_layout_bytes(&layout);
    }
    return load_biases(device, sources, weights, err);
}

ferrum_status_t ferrum_cpu_weights_from_gptq(const ferrum_device_t *device,
                                             const ferrum_gptq_t *const *sources, uint32_t count,
                                             ferrum_cpu_weights_t *out_weights, ferrum_error_t *err)
{
    ferrum_cpu_weights_t weights;

    FERRUM_TRY(check_all(sources, count, &weights, err));
    const ferrum_status_t status = load_all(device, sources, &weights, err);
    if (status != FERRUM_OK) {
        ferrum_cpu_weights_free(device, &weights);
        return status;
    }
    *out_weights = weights;
    return FERRUM_OK;
}
