/* SPDX-License-Identifier: MIT */
/* GPTQ matrices in the form that kernels read. Act-order is taken out at load: K-rows are
 * sorted by group (stably), and the permutation is kept for the activations. */
#include "backends/cpu/check.h"
#include "backends/cpu/gptq_weights.h"
#include "backends/cpu/half.h"

#include <string.h>

ferrum_status_t ferrum_cpu_check_gptq_zeros(const ferrum_gptq_t *source, ferrum_error_t *err)
{
    if (!source->qzeros || source->bits != 8 ||
        source->zero_convention != FERRUM_ZERO_STORED_MINUS_ONE)
        return FERRUM_OK;
    for (uint64_t i = 0; i < source->qzeros_count; i++) {
        /* A byte of all ones, found as a zero byte of the complement. */
        const uint32_t word = ~ferrum_gptq_u32(source->qzeros, i);
        if ((word - 0x01010101u) & ~word & 0x80808080u)
            return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_ZERO_POINT,
                               "8-bit GPTQ zero point 256 (stored 255 plus one) in qzeros[%llu] "
                               "does not fit in 8 bits: requantise, or state the stored convention",
                               (unsigned long long)i);
    }
    return FERRUM_OK;
}

bool ferrum_cpu_gptq_is_permuted(const ferrum_gptq_t *source)
{
    for (uint64_t i = 1; source->g_idx && i < source->k; i++)
        if (ferrum_gptq_u32(source->g_idx, i) < ferrum_gptq_u32(source->g_idx, i - 1))
            return true;
    return false;
}

ferrum_cpu_gptq_layout_t ferrum_cpu_gptq_layout(const ferrum_gptq_t *source)
{
    const bool permuted = ferrum_cpu_gptq_is_permuted(source);
    const bool aligned = (uintptr_t)source->qweight % sizeof(uint32_t) == 0;
    const uint64_t groups = ferrum_gptq_groups(source), cells = groups * source->n;
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
        group_end[ferrum_gptq_u32(source->g_idx, i)]++;
    uint32_t start = 0;
    for (uint32_t g = 0; g < groups; g++) {
        const uint32_t size = group_end[g];
        group_end[g] = start;
        start += size;
    }
    /* group_end holds the starts; walking the rows moves each on to its end. */
    for (uint32_t i = 0; i < source->k; i++) {
        const uint32_t slot = group_end[ferrum_gptq_u32(source->g_idx, i)]++;
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
                out[c] |= (ferrum_gptq_u32(source->qweight, row / per_word * n + c) >> from & mask)
                          << to;
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
            const uint32_t word = ferrum_gptq_u32(source->qzeros, g * words + c / per_word);
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
