/* SPDX-License-Identifier: MIT */
/* GPTQ matrices: checks, and the form that kernels read. Act-order is taken out at load: K-rows are
 * sorted by group (stably), and the permutation is kept for the activations. */
#include "backends/cpu/check.h"
#include "backends/cpu/gptq_weights.h"
#include "backends/cpu/half.h"

#include <string.h>

/** Element @p index of an int32 array that may lie at any address (a mapped file). */
static int32_t load_i32(const void *base, uint64_t index)
{
    int32_t value;
    memcpy(&value, (const unsigned char *)base + index * sizeof value, sizeof value);
    return value;
}

/** The same, as the bits they are. */
static uint32_t load_u32(const void *base, uint64_t index)
{
    return (uint32_t)load_i32(base, index);
}

static uint32_t group_count(const ferrum_gptq_t *source)
{
    return source->group_size ? source->k / source->group_size : 1;
}

ferrum_status_t ferrum_cpu_check_gptq_problem(uint32_t bits, uint32_t group_size, uint32_t k,
                                              uint32_t n, bool has_zeros, ferrum_error_t *err)
{
    if (bits != 4 && bits != 8)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_BITS,
                           "the cpu backend takes GPTQ codes of 4 or 8 bits, not %u", bits);
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
    const uint64_t groups = group_count(source), k = source->k, n = source->n;

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

static ferrum_status_t check_zeros(const ferrum_gptq_t *source, ferrum_error_t *err)
{
    if (!source->qzeros || source->bits != 8 ||
        source->zero_convention != FERRUM_ZERO_STORED_MINUS_ONE)
        return FERRUM_OK;
    for (uint64_t i = 0; i < source->qzeros_count; i++) {
        /* A byte of all ones, found as a zero byte of the complement. */
        const uint32_t word = ~load_u32(source->qzeros, i);
        if ((word - 0x01010101u) & ~word & 0x80808080u)
            return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_ZERO_POINT,
                               "8-bit GPTQ zero point 256 (stored 255 plus one) in qzeros[%llu] "
                               "does not fit in 8 bits: requantise, or state the stored convention",
                               (unsigned long long)i);
    }
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_check_gptq(const ferrum_gptq_t *source, ferrum_error_t *err)
{
    FERRUM_CHECK_STRUCT(source, FERRUM_GPTQ_MIN_SIZE, err);
    if (source->flags & ~(uint32_t)FERRUM_WEIGHTS_MAPPED)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_FLAGS,
                           "weights have unknown flags 0x%x", source->flags);
    if (source->k == 0 || source->n == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "a GPTQ matrix of k=%u, n=%u is empty", source->k, source->n);
    FERRUM_TRY(ferrum_cpu_check_gptq_problem(source->bits, source->group_size, source->k, source->n,
                                             source->qzeros != NULL, err));
    if (source->scales_dtype > FERRUM_DTYPE_BF16)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_DTYPE,
                           "GPTQ scales are %s, expected f32, f16 or bf16",
                           ferrum_dtype_name(source->scales_dtype));
    if (source->zero_convention > FERRUM_ZERO_STORED)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_ZERO_POINT,
                           "unknown GPTQ zero convention %u", source->zero_convention);
    FERRUM_TRY(check_arrays(source, err));
    FERRUM_TRY(check_zeros(source, err));
    for (uint64_t i = 0; source->g_idx && i < source->k; i++)
        if (load_u32(source->g_idx, i) >= group_count(source))
            return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                               "GPTQ g_idx[%llu] is %d, outside [0, %u)", (unsigned long long)i,
                               load_i32(source->g_idx, i), group_count(source));
    return FERRUM_OK;
}

bool ferrum_cpu_gptq_is_permuted(const ferrum_gptq_t *source)
{
    for (uint64_t i = 1; source->g_idx && i < source->k; i++)
        if (load_i32(source->g_idx, i) < load_i32(source->g_idx, i - 1))
            return true;
    return false;
}

ferrum_cpu_gptq_layout_t ferrum_cpu_gptq_layout(const ferrum_gptq_t *source)
{
    const bool permuted = ferrum_cpu_gptq_is_permuted(source);
    const bool aligned = (uintptr_t)source->qweight % sizeof(uint32_t) == 0;
    const uint64_t groups = group_count(source), cells = groups * source->n;
    ferrum_cpu_gptq_layout_t layout = {.groups = (uint32_t)groups};
    const bool in_place = (source->flags & FERRUM_WEIGHTS_MAPPED) && aligned && !permuted;

    layout.codes_bytes = in_place ? 0 : source->qweight_count * sizeof(uint32_t);
    layout.scales_bytes = ferrum_size_mul(cells, sizeof(float));
    layout.zeros_bytes = cells;
    layout.group_end_bytes = groups * sizeof(uint32_t);
    layout.perm_bytes = permuted ? source->k * sizeof(uint32_t) : 0;
    return layout;
}

/** group_end, and for act-order perm: the K-rows in a stable order of their groups. */
static void fill_groups(const ferrum_gptq_t *source, uint32_t groups, uint32_t *group_end,
                        uint32_t *perm)
{
    if (!source->g_idx) {
        for (uint32_t g = 0; g < groups; g++)
            group_end[g] = groups == 1 ? source->k : (g + 1) * source->group_size;
        return;
    }
    memset(group_end, 0, groups * sizeof *group_end);
    for (uint32_t i = 0; i < source->k; i++)
        group_end[load_u32(source->g_idx, i)]++;
    uint32_t start = 0;
    for (uint32_t g = 0; g < groups; g++) {
        const uint32_t size = group_end[g];
        group_end[g] = start;
        start += size;
    }
    /* group_end holds the starts; walking the rows moves each on to its end. */
    for (uint32_t i = 0; i < source->k; i++) {
        const uint32_t slot = group_end[load_u32(source->g_idx, i)]++;
        if (perm)
            perm[slot] = i;
    }
}

/** Codes in the order of @p perm. */
static void permute_codes(const ferrum_gptq_t *source, const uint32_t *perm, uint32_t *out_codes)
{
    const uint32_t per_word = 32 / source->bits, mask = (1u << source->bits) - 1;
    const size_t n = source->n;

    for (uint32_t word = 0; word < source->k / per_word; word++) {
        uint32_t *out = out_codes + word * n;
        memset(out, 0, n * sizeof *out);
        for (uint32_t i = 0; i < per_word; i++) {
            const uint32_t row = perm[word * per_word + i];
            const uint32_t from = row % per_word * source->bits, to = i * source->bits;
            for (size_t c = 0; c < n; c++)
                out[c] |= (load_u32(source->qweight, row / per_word * n + c) >> from & mask) << to;
        }
    }
}

static void fill_scales(const ferrum_gptq_t *source, float *out_scales)
{
    static const ferrum_weight_format_t formats[] = {FERRUM_FORMAT_F32, FERRUM_FORMAT_F16,
                                                     FERRUM_FORMAT_BF16};
    ferrum_kernel_dequant(formats[source->scales_dtype])(source->scales, out_scales,
                                                         (size_t)source->scales_count);
}

static void fill_zeros(const ferrum_gptq_t *source, uint32_t groups, uint8_t *out_zeros)
{
    const uint32_t bits = source->bits, per_word = 32 / bits, mask = (1u << bits) - 1;
    const uint32_t add = source->zero_convention == FERRUM_ZERO_STORED_MINUS_ONE;
    const size_t n = source->n, words = n / per_word;

    if (!source->qzeros) {
        memset(out_zeros, 1 << (bits - 1), groups * n);
        return;
    }
    for (size_t g = 0; g < groups; g++)
        for (size_t c = 0; c < n; c++) {
            const uint32_t word = load_u32(source->qzeros, g * words + c / per_word);
            out_zeros[g * n + c] = (uint8_t)((word >> c % per_word * bits & mask) + add);
        }
}

void ferrum_cpu_gptq_fill(const ferrum_gptq_t *source, const ferrum_cpu_gptq_layout_t *layout,
                          void *memory, ferrum_gptq_matrix_t *out_matrix, const uint32_t **out_perm)
{
    uint8_t *next = memory;
    float *scales = (float *)next;
    uint32_t *codes = (uint32_t *)(next += layout->scales_bytes);
    uint32_t *group_end = (uint32_t *)(next += layout->codes_bytes);
    uint32_t *perm = (uint32_t *)(next += layout->group_end_bytes);
    uint8_t *zeros = next + layout->perm_bytes;
    const bool permuted = layout->perm_bytes > 0;

    fill_groups(source, layout->groups, group_end, permuted ? perm : NULL);
    if (permuted)
        permute_codes(source, perm, codes);
    else if (layout->codes_bytes > 0)
        memcpy(codes, source->qweight, (size_t)layout->codes_bytes);
    fill_scales(source, scales);
    fill_zeros(source, layout->groups, zeros);
    *out_perm = permuted ? perm : NULL;
    *out_matrix = (ferrum_gptq_matrix_t){
        .qweight = layout->codes_bytes > 0 ? codes : (const uint32_t *)source->qweight,
        .scales = scales,
        .zeros = zeros,
        .group_end = group_end,
        .groups = layout->groups,
        .bits = source->bits,
        .k = source->k,
        .n = source->n,
    };
}
