/* SPDX-License-Identifier: MIT */
/* Several GPTQ matrices of one shape in one block of memory. */
#include "backends/cpu/check.h"
#include "backends/cpu/gptq_weights.h"
#include "backends/cpu/parallel.h"

#include <string.h>

static ferrum_status_t check_all(const ferrum_gptq_t *const *sources, uint32_t count,
                                 ferrum_cpu_weights_t *out_shape, ferrum_error_t *err)
{
    uint64_t bytes = 0;

    FERRUM_TRY(ferrum_check_gptq_stack(sources, count, &bytes, err));
    for (uint32_t e = 0; e < count; e++)
        FERRUM_TRY(ferrum_cpu_check_gptq_zeros(sources[e], err));
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
    FERRUM_TRY(ferrum_cpu_alloc(device, ferrum_size_mul(weights->experts, row_bytes), "biases",
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

/** Whether a matrix can be packed: its groups are full, whatever rows they are made of. */
static bool fits_panels(const ferrum_gptq_t *source, uint32_t *counts)
{
    if (!source->g_idx || source->group_size == 0)
        return true;
    memset(counts, 0, source->k / source->group_size * sizeof *counts);
    for (uint32_t i = 0; i < source->k; i++)
        if (++counts[source->g_idx[i]] > source->group_size)
            return false;
    return true;
}

/** Type of the panels' scales: the sources' own, or f32 where they differ. */
static ferrum_dtype_t scales_dtype(const ferrum_gptq_t *const *sources, uint32_t count)
{
    for (uint32_t e = 1; e < count; e++)
        if (sources[e]->scales_dtype != sources[0]->scales_dtype)
            return FERRUM_DTYPE_F32;
    return sources[0]->scales_dtype;
}

/** Shape of the panels, or false when these matrices are not packed. */
static bool packed_shape(const ferrum_device_t *device, const ferrum_gptq_t *const *sources,
                         const ferrum_cpu_weights_t *weights, ferrum_packed_precision_t precision,
                         uint32_t *counts, ferrum_packed_matrix_t *out_shape)
{
    const uint32_t group = sources[0]->group_size ? sources[0]->group_size : weights->k;
    if (!precision || !device->packed ||
        !ferrum_packed_shape(weights->bits == 4 ? FERRUM_PACKED_GPTQ4 : FERRUM_PACKED_GPTQ8,
                             weights->n, weights->k, group, scales_dtype(sources, weights->experts),
                             out_shape))
        return false;
    for (uint32_t e = 0; e < weights->experts; e++)
        if (!fits_panels(sources[e], counts))
            return false;
    return true;
}

/** What a thread needs to pack a matrix; it takes memory for the kernels' common form of one. */
typedef struct packing {
    const ferrum_device_t *device;
    const ferrum_gptq_t *const *sources;
    ferrum_cpu_weights_t *weights;
    ferrum_packed_matrix_t shape;
    uint8_t *first;
    uint64_t staging_bytes;
    atomic_bool failed; /**< there was no memory */
} packing_t;

static void pack_matrix(void *arg, uint64_t e, uint32_t thread)
{
    packing_t *packing = arg;
    const ferrum_gptq_t *source = packing->sources[e];
    ferrum_cpu_weights_t *weights = packing->weights;
    ferrum_cpu_matrix_t *matrix = &weights->matrices[e];
    const ferrum_packed_matrix_t *shape = &packing->shape;
    const ferrum_cpu_gptq_layout_t layout = ferrum_cpu_gptq_layout(source);
    ferrum_cpu_memory_t staging;
    ferrum_gptq_matrix_t common;
    const uint32_t *perm;

    (void)thread;
    if (ferrum_cpu_alloc(packing->device, packing->staging_bytes, "packing", &staging, NULL) !=
        FERRUM_OK) {
        atomic_store(&packing->failed, true);
        return;
    }
    ferrum_cpu_gptq_fill(source, &layout, staging.ptr, &common, &perm);
    uint8_t *next = packing->first + e * (weights->n / FERRUM_PANEL_ROWS) * shape->panel_stride;
    matrix->packed = *shape;
    matrix->packed.panels = next;
    matrix->precision = weights->precision;
    const void *scales =
        source->scales_dtype == shape->scale_dtype ? (const void *)source->scales : common.scales;
    for (uint32_t col = 0; col < weights->n; col += FERRUM_PANEL_ROWS) {
        ferrum_pack_gptq(shape, common.qweight, scales, common.zeros, weights->n, col, next);
        next += shape->panel_stride;
    }
    if (perm)
        matrix->perm = memcpy((uint32_t *)weights->perms.ptr + e * weights->k, perm,
                              weights->k * sizeof *perm);
    ferrum_cpu_free(packing->device, &staging);
}

static void compare_perms(ferrum_cpu_weights_t *weights)
{
    const uint32_t *first = weights->matrices[0].perm;

    weights->common_perm = true;
    for (uint32_t e = 0; e < weights->experts; e++) {
        const uint32_t *perm = weights->matrices[e].perm;
        weights->permuted = weights->permuted || perm;
        weights->common_perm = weights->common_perm && !first == !perm &&
                               (!perm || memcmp(first, perm, weights->k * sizeof *perm) == 0);
    }
}

static ferrum_status_t load_packed(const ferrum_device_t *device,
                                   const ferrum_gptq_t *const *sources,
                                   const ferrum_packed_matrix_t *shape,
                                   const ferrum_cpu_loading_t *loading,
                                   ferrum_cpu_weights_t *weights, ferrum_error_t *err)
{
    packing_t packing = {.device = device, .sources = sources, .weights = weights, .shape = *shape};
    bool permuted = false;

    for (uint32_t e = 0; e < weights->experts; e++) {
        const ferrum_cpu_gptq_layout_t layout = ferrum_cpu_gptq_layout(sources[e]);
        const uint64_t bytes = ferrum_cpu_gptq_layout_bytes(&layout);
        packing.staging_bytes = bytes > packing.staging_bytes ? bytes : packing.staging_bytes;
        permuted = permuted || layout.perm_bytes > 0;
    }
    if (permuted)
        FERRUM_TRY(ferrum_cpu_alloc(
            device, ferrum_size_mul3(weights->experts, weights->k, sizeof(uint32_t)),
            "act-order permutations", &weights->perms, err));
    FERRUM_TRY(
        ferrum_cpu_weights_place(device, loading, weights, &packing.shape, &packing.first, err));
    ferrum_cpu_spread(device, weights->source_bytes, weights->experts, pack_matrix, &packing);
    if (atomic_load(&packing.failed))
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "cannot allocate %llu bytes for packing",
                           (unsigned long long)packing.staging_bytes);
    compare_perms(weights);
    return load_biases(device, sources, weights, err);
}

static ferrum_status_t load_all(const ferrum_device_t *device, const ferrum_gptq_t *const *sources,
                                const ferrum_cpu_loading_t *loading, ferrum_cpu_weights_t *weights,
                                ferrum_error_t *err)
{
    ferrum_packed_matrix_t shape;
    ferrum_cpu_memory_t counts;
    uint64_t bytes = 0;

    FERRUM_TRY(ferrum_cpu_weights_new_matrices(device, weights, err));
    FERRUM_TRY(ferrum_cpu_alloc(device, ferrum_size_mul(weights->k, sizeof(uint32_t)), "checks",
                                &counts, err));
    const bool packs =
        packed_shape(device, sources, weights, loading->precision, counts.ptr, &shape);
    ferrum_cpu_free(device, &counts);
    if (packs)
        return load_packed(device, sources, &shape, loading, weights, err);
    for (uint32_t e = 0; e < weights->experts; e++) {
        const ferrum_cpu_gptq_layout_t layout = ferrum_cpu_gptq_layout(sources[e]);
        bytes = ferrum_size_add(bytes, ferrum_cpu_gptq_layout_bytes(&layout));
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
                                             const ferrum_cpu_loading_t *loading,
                                             ferrum_cpu_weights_t *out_weights, ferrum_error_t *err)
{
    ferrum_cpu_weights_t weights;

    FERRUM_TRY(check_all(sources, count, &weights, err));
    const ferrum_status_t status = load_all(device, sources, loading, &weights, err);
    if (status != FERRUM_OK) {
        ferrum_cpu_weights_free(device, &weights);
        return status;
    }
    *out_weights = weights;
    return FERRUM_OK;
}
