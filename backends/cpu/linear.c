/* SPDX-License-Identifier: MIT */
#include "backends/cpu/entries.h"
#include "backends/cpu/grouped.h"
#include "backends/cpu/linear.h"
#include "backends/cpu/marlin_stack.h"

#include <string.h>

ferrum_status_t ferrum_cpu_linear_new(ferrum_device_t *device, uint32_t parts,
                                      ferrum_linear_t **out_linear, ferrum_error_t *err)
{
    const size_t part_bytes = sizeof(ferrum_cpu_weights_t) + sizeof(ferrum_cpu_matrix_t);
    ferrum_cpu_memory_t memory;

    FERRUM_TRY(ferrum_cpu_alloc(device, ferrum_size_mul(parts, part_bytes), "a linear layer",
                                &memory, err));
    ferrum_linear_t *linear = ferrum_cpu_object_new(device, sizeof *linear, "a linear layer", err);
    if (!linear) {
        ferrum_cpu_free(device, &memory);
        return FERRUM_OUT_OF_MEMORY;
    }
    memset(memory.ptr, 0, memory.bytes);
    atomic_init(&linear->refs, 1);
    linear->device = device;
    linear->parts = parts;
    linear->parts_memory = memory;
    linear->weights = memory.ptr;
    linear->matrices = (ferrum_cpu_matrix_t *)(linear->weights + parts);
    *out_linear = linear;
    return FERRUM_OK;
}

void ferrum_cpu_linear_retain(ferrum_linear_t *linear)
{
    ferrum_cpu_ref(&linear->refs);
}

void ferrum_cpu_linear_release(ferrum_linear_t *linear)
{
    if (!linear || !ferrum_cpu_unref(&linear->refs))
        return;
    ferrum_device_t *device = linear->device;
    for (uint32_t i = 0; i < linear->parts; i++)
        ferrum_cpu_weights_free(device, &linear->weights[i]);
    ferrum_cpu_marlin_stack_release(linear->stack);
    ferrum_cpu_free(device, &linear->parts_memory);
    ferrum_cpu_free(device, &linear->bias);
    ferrum_cpu_object_free(device, linear, sizeof *linear);
}

ferrum_status_t ferrum_cpu_linear_info(const ferrum_linear_t *linear,
                                       ferrum_linear_info_t *out_info, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(linear, err);
    ferrum_linear_info_t info = {
        .head = FERRUM_HEAD(ferrum_linear_info_t),
        .in_features = linear->k,
        .out_features = linear->n,
        .format = linear->format,
        .bits = linear->bits,
        .bytes = linear->bias.bytes,
        .error_bound = linear->error_bound,
    };
    for (uint32_t i = 0; i < linear->parts; i++)
        info.bytes += ferrum_cpu_weights_bytes(&linear->weights[i]);
    return ferrum_fill_struct(__func__, out_info, FERRUM_LINEAR_INFO_MIN_SIZE, &info, err);
}

/** Take over @p weights (of one expert) as part @p index, after the parts before it. */
static void add_part(ferrum_linear_t *linear, uint32_t index, const ferrum_cpu_weights_t *weights)
{
    linear->weights[index] = *weights;
    linear->matrices[index] = weights->matrices[0];
    linear->matrices[index].out_column = linear->n;
    linear->n += weights->n;
    const float bound = ferrum_cpu_weights_error_bound(weights);
    linear->error_bound = bound > linear->error_bound ? bound : linear->error_bound;
    if (index == 0) {
        linear->k = weights->k;
        linear->format = weights->format;
        linear->bits = weights->bits;
    }
}

static ferrum_status_t load_part(ferrum_linear_t *linear, uint32_t index,
                                 const ferrum_gguf_weights_t *source,
                                 ferrum_packed_precision_t precision, const float *bias,
                                 ferrum_error_t *err)
{
    const ferrum_cpu_loading_t loading = {.precision = precision};
    ferrum_cpu_weights_t weights;

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
    FERRUM_TRY(ferrum_cpu_weights_from_gguf(linear->device, source, &loading, &weights, err));
    const ferrum_status_t status = ferrum_cpu_weights_set_bias(linear->device, &weights, bias, err);
    if (status != FERRUM_OK) {
        ferrum_cpu_weights_free(linear->device, &weights);
        return status;
    }
    add_part(linear, index, &weights);
    return FERRUM_OK;
}

/** Parts share their input rows, so all are packed or none is. Parts that are not even readable are
 *  for load_part to refuse. */
static ferrum_packed_precision_t common_precision(const ferrum_device_t *device,
                                                  const ferrum_gguf_weights_t *const *parts,
                                                  uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (!parts[i] || parts[i]->head.size < FERRUM_GGUF_WEIGHTS_MIN_SIZE ||
            !ferrum_cpu_packs_blocks(device, parts[i]->format, parts[i]->rows, parts[i]->cols))
            return (ferrum_packed_precision_t)0;
    return device->precision;
}

static ferrum_status_t load_parts(ferrum_device_t *device,
                                  const ferrum_gguf_weights_t *const *parts, uint32_t count,
                                  const float *bias, ferrum_linear_t **out_linear,
                                  ferrum_error_t *err)
{
    const ferrum_packed_precision_t precision = common_precision(device, parts, count);
    ferrum_linear_t *linear;

    FERRUM_TRY(ferrum_cpu_linear_new(device, count, &linear, err));
    for (uint32_t i = 0; i < count; i++) {
        const ferrum_status_t status = load_part(linear, i, parts[i], precision, bias, err);
        if (status != FERRUM_OK) {
            ferrum_cpu_linear_release(linear);
            return status;
        }
    }
    *out_linear = linear;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_load_quant(ferrum_device_t *device, const ferrum_gguf_weights_t *weights,
                                      const float *bias, ferrum_linear_t **out_linear,
                                      ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(out_linear, err);
    return load_parts(device, &weights, 1, bias, out_linear, err);
}

ferrum_status_t ferrum_cpu_load_quant_fused(ferrum_device_t *device,
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

ferrum_status_t ferrum_cpu_load_gptq(ferrum_device_t *device, const ferrum_gptq_t *weights,
                                     ferrum_linear_t **out_linear, ferrum_error_t *err)
{
    ferrum_cpu_weights_t loaded;
    ferrum_linear_t *linear;

    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(out_linear, err);
    const ferrum_cpu_loading_t loading = {.precision = device->precision};
    FERRUM_TRY(ferrum_cpu_weights_from_gptq(device, &weights, 1, &loading, &loaded, err));
    const ferrum_status_t status = ferrum_cpu_linear_new(device, 1, &linear, err);
    if (status != FERRUM_OK) {
        ferrum_cpu_weights_free(device, &loaded);
        return status;
    }
    add_part(linear, 0, &loaded);
    *out_linear = linear;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_linear_forward(ferrum_context_t *ctx, const ferrum_linear_t *linear,
                                          const ferrum_buffer_t *x, uint64_t x_offset,
                                          ferrum_buffer_t *y, uint64_t y_offset, uint32_t m,
                                          ferrum_error_t *err)
{
    ferrum_cpu_product_t product;

    FERRUM_CHECK_POINTER(linear, err);
    FERRUM_CPU_CHECK(ctx, err, {"x", x, FERRUM_DTYPE_F32, x_offset, ferrum_size_mul(m, linear->k)},
                     {"y", y, FERRUM_DTYPE_F32, y_offset, ferrum_size_mul(m, linear->n)});
    if (m == 0)
        return FERRUM_OK;
    ferrum_cpu_bucket_t *buckets =
        ferrum_cpu_scratch(ctx, FERRUM_CPU_SCRATCH_BUCKETS, linear->parts, sizeof *buckets, err);
    if (!buckets)
        return FERRUM_OUT_OF_MEMORY;
    for (uint32_t i = 0; i < linear->parts; i++)
        buckets[i] = (ferrum_cpu_bucket_t){.matrix = i, .first = 0, .count = m};
    FERRUM_TRY(
        ferrum_cpu_product_init(ctx, &product, linear->matrices, buckets, linear->parts,
                                (ferrum_cpu_rows_t){ferrum_cpu_f32(x) + x_offset, NULL, linear->k},
                                (ferrum_cpu_rows_t){ferrum_cpu_f32(y) + y_offset, NULL, linear->n},
                                m, FERRUM_CPU_SCRATCH_GATHER, err));
    ferrum_cpu_product_run(ctx, &product);
    return FERRUM_OK;
}
