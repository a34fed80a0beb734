/* SPDX-License-Identifier: MIT */
#include "backends/common/gptq.h"
#include "backends/common/check.h"

ferrum_status_t ferrum_check_gptq_problem(uint32_t bits, uint32_t group_size, uint32_t k,
                                          uint32_t n, bool has_zeros, ferrum_error_t *err)
{
    if (bits != 4 && bits != 8)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_BITS,
                           "GPTQ codes must have 4 or 8 bits, not %u", bits);
    if (k % (32 / bits) != 0)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_K,
                           "%u-bit GPTQ needs a multiple of %u inputs, not %u", bits, 32 / bits, k);
    if (group_size != 0 && k % group_size != 0)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_GROUP_SIZE,
                           "GPTQ group size %u does not divide %u inputs", group_size, k);
    if (has_zeros && n % (32 / bits) != 0)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_N,
                           "%u-bit GPTQ with zero points needs a multiple of %u outputs, not %u",
                           bits, 32 / bits, n);
    return FERRUM_OK;
}

static ferrum_status_t check_count(const char *name, uint64_t count, uint64_t expected,
                                   ferrum_error_t *err)
{
    if (count == expected)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                       "GPTQ %s has %llu elements, expected %llu", name, (unsigned long long)count,
                       (unsigned long long)expected);
}

static ferrum_status_t check_arrays(const ferrum_gptq_t *source, ferrum_error_t *err)
{
    const uint64_t groups = ferrum_gptq_groups(source), k = source->k, n = source->n;

    FERRUM_CHECK_POINTER(source->qweight, err);
    FERRUM_CHECK_POINTER(source->scales, err);
    if (k * n > SIZE_MAX / 16)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                           "a GPTQ matrix of k=%u, n=%u overflows the address space", source->k,
                           source->n);
    FERRUM_TRY(check_count("qweight", source->qweight_count, k * source->bits / 32 * n, err));
    FERRUM_TRY(check_count("scales", source->scales_count, groups * n, err));
    if (source->qzeros)
        FERRUM_TRY(
            check_count("qzeros", source->qzeros_count, groups * (n * source->bits / 32), err));
    if (source->g_idx)
        FERRUM_TRY(check_count("g_idx", source->g_idx_count, k, err));
    return FERRUM_OK;
}

ferrum_status_t ferrum_check_gptq(const ferrum_gptq_t *source, ferrum_error_t *err)
{
    FERRUM_CHECK_STRUCT(source, FERRUM_GPTQ_MIN_SIZE, err);
    if (source->flags & ~(uint32_t)FERRUM_WEIGHTS_MAPPED)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_FLAGS,
                           "weights have unknown flags 0x%x", source->flags);
    if (source->k == 0 || source->n == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "a GPTQ matrix of k=%u, n=%u is empty", source->k, source->n);
    FERRUM_TRY(ferrum_check_gptq_problem(source->bits, source->group_size, source->k, source->n,
                                         source->qzeros != NULL, err));
    if (source->scales_dtype > FERRUM_DTYPE_BF16)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_DTYPE,
                           "GPTQ scales are %s, expected f32, f16 or bf16",
                           ferrum_dtype_name(source->scales_dtype));
    if (source->zero_convention > FERRUM_ZERO_STORED)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_ZERO_POINT,
                           "unknown GPTQ zero convention %u", source->zero_convention);
    FERRUM_TRY(check_arrays(source, err));
    for (uint64_t i = 0; source->g_idx && i < source->k; i++)
        if (ferrum_gptq_u32(source->g_idx, i) >= ferrum_gptq_groups(source))
            return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                               "GPTQ g_idx[%llu] is %d, outside [0, %u)", (unsigned long long)i,
                               (int32_t)ferrum_gptq_u32(source->g_idx, i),
                               ferrum_gptq_groups(source));
    return FERRUM_OK;
}

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

ferrum_status_t ferrum_check_gptq_stack(const ferrum_gptq_t *const *sources, uint32_t count,
                                        uint64_t *out_bytes, ferrum_error_t *err)
{
    uint64_t bytes = 0;

    FERRUM_CHECK_POINTER(sources, err);
    if (count == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_EXPERTS,
                           "there are no GPTQ matrices to load");
    for (uint32_t e = 0; e < count; e++) {
        FERRUM_TRY(ferrum_check_gptq(sources[e], err));
        FERRUM_TRY(check_equal(sources[0], sources[e], e, err));
        bytes += sources[e]->qweight_count * sizeof(uint32_t) +
                 sources[e]->scales_count * ferrum_dtype_bytes(sources[e]->scales_dtype) +
                 (sources[e]->qzeros ? sources[e]->qzeros_count * sizeof(uint32_t) : 0) +
                 (sources[e]->g_idx ? sources[e]->g_idx_count * sizeof(uint32_t) : 0);
    }
    *out_bytes = bytes;
    return FERRUM_OK;
}
