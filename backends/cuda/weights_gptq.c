/* SPDX-License-Identifier: MIT */
/* GPTQ matrices: the layouts W4 and W8 made of them. */
#include "backends/common/gptq.h"
#include "backends/cuda/half.h"
#include "backends/cuda/weights.h"

#include <string.h>

static ferrum_status_t check_all(const ferrum_gptq_t *const *sources, uint32_t count,
                                 ferrum_cuda_weights_t *out_shape, ferrum_error_t *err)
{
    uint64_t bytes = 0;

    FERRUM_TRY(ferrum_check_gptq_stack(sources, count, &bytes, err));
    *out_shape = (ferrum_cuda_weights_t){.experts = count,
                                         .n = sources[0]->n,
                                         .k = sources[0]->k,
                                         .bits = sources[0]->bits,
                                         .format = FERRUM_FORMAT_GPTQ,
                                         .source_bytes = bytes};
    return FERRUM_OK;
}

/** The parts of the device block, and their sizes per matrix. */
typedef struct packing {
    uint32_t groups;
    uint64_t row_bytes;
    uint64_t codes, scales, zeros, group_of; /**< offsets in the block */
    uint64_t codes_bytes, scales_bytes, zeros_bytes, group_bytes;
    uint64_t bytes; /**< of the block */
} packing_t;

static bool any_order(const ferrum_gptq_t *const *sources, uint32_t count)
{
    for (uint32_t e = 0; e < count; e++)
        if (sources[e]->g_idx)
            return true;
    return false;
}

/** Rows hold whole runs of 16 codes: kernels decode 16 at a time. */
static packing_t plan_packing(const ferrum_gptq_t *const *sources, uint32_t count)
{
    const ferrum_gptq_t *first = sources[0];
    packing_t packing = {.groups = ferrum_gptq_groups(first)};
    const uint64_t cells = (uint64_t)packing.groups * first->n;

    packing.row_bytes = ferrum_cuda_ceil(first->k, 16) * 2 * first->bits;
    packing.codes_bytes = ferrum_size_mul(packing.row_bytes, first->n);
    packing.scales_bytes = ferrum_size_mul(cells, sizeof(float));
    packing.zeros_bytes = ferrum_size_mul(cells, sizeof(uint16_t));
    packing.group_bytes = any_order(sources, count) ? (uint64_t)first->k * sizeof(uint32_t) : 0;
    packing.scales = ferrum_size_mul(packing.codes_bytes, count);
    packing.group_of =
        ferrum_size_add(packing.scales, ferrum_size_mul(packing.scales_bytes, count));
    packing.zeros = ferrum_size_add(packing.group_of, ferrum_size_mul(packing.group_bytes, count));
    packing.bytes = ferrum_size_add(packing.zeros, ferrum_size_mul(packing.zeros_bytes, count));
    return packing;
}

/** [k, n] codes to [n, k]. */
static void pack_codes(const ferrum_gptq_t *source, const packing_t *packing, void *out)
{
    const uint32_t bits = source->bits, per_word = 32 / bits;
    const uint64_t words = packing->row_bytes / sizeof(uint32_t);
    uint32_t *codes = out;

    memset(codes, 0, (size_t)packing->codes_bytes);
    for (uint64_t word = 0; word < source->k / per_word; word++)
        for (uint64_t c = 0; c < source->n; c++)
            codes[c * words + word] = ferrum_gptq_u32(source->qweight, word * source->n + c);
}

static float scale_at(const ferrum_gptq_t *source, uint64_t index)
{
    const unsigned char *bytes = source->scales;
    uint16_t half;
    float value;

    if (source->scales_dtype == FERRUM_DTYPE_F32) {
        memcpy(&value, bytes + index * sizeof value, sizeof value);
        return value;
    }
    memcpy(&half, bytes + index * sizeof half, sizeof half);
    return source->scales_dtype == FERRUM_DTYPE_F16 ? ferrum_cuda_f16_to_f32(half)
                                                    : ferrum_cuda_bf16_to_f32(half);
}

static void pack_scales(const ferrum_gptq_t *source, const packing_t *packing, void *out)
{
    float *scales = out;

    for (uint64_t c = 0; c < source->n; c++)
        for (uint64_t g = 0; g < packing->groups; g++)
            scales[c * packing->groups + g] = scale_at(source, g * source->n + c);
}

static void pack_zeros(const ferrum_gptq_t *source, const packing_t *packing, void *out)
{
    const uint32_t bits = source->bits, per_word = 32 / bits, mask = (1u << bits) - 1;
    const uint32_t add = source->zero_convention == FERRUM_ZERO_STORED_MINUS_ONE;
    const uint64_t words = source->n / per_word;
    uint16_t *zeros = out;

    for (uint64_t c = 0; c < source->n; c++)
        for (uint64_t g = 0; g < packing->groups; g++) {
            uint32_t zero = 1u << (bits - 1);
            if (source->qzeros)
                zero = (ferrum_gptq_u32(source->qzeros, g * words + c / per_word) >>
                            c % per_word * bits &
                        mask) +
                       add;
            zeros[c * packing->groups + g] = (uint16_t)zero;
        }
}

static void pack_groups(const ferrum_gptq_t *source, const packing_t *packing, void *out)
{
    const uint32_t size = source->k / packing->groups;
    uint32_t *group_of = out;

    for (uint32_t i = 0; i < source->k; i++)
        group_of[i] = source->g_idx ? ferrum_gptq_u32(source->g_idx, i) : i / size;
}

typedef void pack_fn(const ferrum_gptq_t *source, const packing_t *packing, void *out);

/** Pack matrix @p expert part by part in @p staging and send each part to its place. */
static ferrum_status_t send_matrix(const ferrum_gptq_t *source, const packing_t *packing,
                                   uint32_t expert, void *staging, ferrum_cuda_memory_t *memory,
                                   ferrum_error_t *err)
{
    const struct {
        pack_fn *pack;
        uint64_t offset, bytes;
    } parts[] = {{pack_codes, packing->codes, packing->codes_bytes},
                 {pack_scales, packing->scales, packing->scales_bytes},
                 {pack_zeros, packing->zeros, packing->zeros_bytes},
                 {pack_groups, packing->group_of, packing->group_bytes}};

    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (parts[i].bytes == 0)
            continue;
        parts[i].pack(source, packing, staging);
        FERRUM_TRY(ferrum_cuda_memory_write(memory, parts[i].offset + expert * parts[i].bytes,
                                            staging, parts[i].bytes, err));
    }
    return FERRUM_OK;
}

static ferrum_status_t send_all(ferrum_device_t *device, const ferrum_gptq_t *const *sources,
                                uint32_t count, const packing_t *packing,
                                ferrum_cuda_memory_t *memory, ferrum_error_t *err)
{
    uint64_t staging_bytes = packing->codes_bytes;
    ferrum_status_t status = FERRUM_OK;

    if (packing->scales_bytes > staging_bytes)
        staging_bytes = packing->scales_bytes;
    if (packing->group_bytes > staging_bytes)
        staging_bytes = packing->group_bytes;
    void *staging = ferrum_cuda_host_alloc(device->host, staging_bytes, "packing", err);
    if (!staging)
        return FERRUM_OUT_OF_MEMORY;
    for (uint32_t e = 0; e < count && status == FERRUM_OK; e++)
        status = send_matrix(sources[e], packing, e, staging, memory, err);
    ferrum_cuda_host_free(device->host, staging, staging_bytes);
    return status;
}

/** The sources' own biases, where they have one, in the order of @p outputs. */
static ferrum_status_t load_biases(ferrum_device_t *device, const ferrum_gptq_t *const *sources,
                                   const uint16_t *outputs, ferrum_cuda_weights_t *weights,
                                   ferrum_error_t *err)
{
    const uint64_t bytes = ferrum_size_mul3(weights->experts, weights->n, sizeof(float));
    bool any = false;

    for (uint32_t e = 0; e < weights->experts; e++)
        any = any || sources[e]->bias;
    if (!any)
        return FERRUM_OK;
    float *biases = ferrum_cuda_host_alloc(device->host, bytes, "biases", err);
    if (!biases)
        return FERRUM_OUT_OF_MEMORY;
    for (uint32_t e = 0; e < weights->experts; e++)
        if (sources[e]->bias)
            memcpy(biases + (size_t)e * weights->n, sources[e]->bias, weights->n * sizeof(float));
    const ferrum_status_t status = ferrum_cuda_w4_set_bias(device, weights, biases, outputs, err);
    ferrum_cuda_host_free(device->host, biases, bytes);
    return status;
}

static ferrum_status_t load_rows(ferrum_device_t *device, const ferrum_gptq_t *const *sources,
                                 ferrum_cuda_weights_t *weights, ferrum_error_t *err)
{
    const packing_t packing = plan_packing(sources, weights->experts);

    FERRUM_TRY(ferrum_cuda_memory_new(device, packing.bytes, "weights", &weights->memory, err));
    const CUdeviceptr base = weights->memory->address;
    weights->bytes = packing.bytes;
    weights->gpu = (ferrum_gpu_weights_t){
        .data = base + packing.codes,
        .scales = base + packing.scales,
        .zeros = base + packing.zeros,
        .group_of = packing.group_bytes ? base + packing.group_of : 0,
        .expert_bytes = packing.codes_bytes,
        .row_bytes = packing.row_bytes,
        .layout = weights->bits == 4 ? FERRUM_LAYOUT_W4 : FERRUM_LAYOUT_W8,
        .n = weights->n,
        .k = weights->k,
        .expert_rows = weights->n,
        .groups = packing.groups,
        .group_size = weights->k / packing.groups,
    };
    return send_all(device, sources, weights->experts, &packing, weights->memory, err);
}

ferrum_status_t ferrum_cuda_weights_from_gptq(ferrum_device_t *device,
                                              const ferrum_gptq_t *const *sources, uint32_t count,
                                              const ferrum_cuda_w4_order_t *tiles,
                                              ferrum_cuda_weights_t *out_weights,
                                              ferrum_error_t *err)
{
    ferrum_cuda_weights_t weights;

    FERRUM_TRY(check_all(sources, count, &weights, err));
    ferrum_status_t status = tiles ? ferrum_cuda_w4_load(device, sources, tiles, &weights, err)
                                   : load_rows(device, sources, &weights, err);
    if (status == FERRUM_OK)
        status = load_biases(device, sources, tiles ? tiles->outputs : NULL, &weights, err);
    if (status != FERRUM_OK) {
        ferrum_cuda_weights_free(&weights);
        return status;
    }
    *out_weights = weights;
    return FERRUM_OK;
}
