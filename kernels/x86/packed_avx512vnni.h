/* SPDX-License-Identifier: MIT */
/** @file packed_avx512vnni.h  @brief The parts of the AVX-512 VNNI packed kernels. */
#ifndef FERRUM_KERNELS_PACKED_AVX512VNNI_H
#define FERRUM_KERNELS_PACKED_AVX512VNNI_H

#include "kernels/packed.h"

/**
 * 256 values of sixteen rows, ready to be multiplied. FAST: per group 8 vectors of bytes v + offset
 * (four values of every row), a scale per group or half. ACCURATE: per group 16 vectors of int16
 * s * v (two values of every row), a scale per fold. Minima per group or half.
 */
typedef struct ferrum_unpacked {
    _Alignas(64) uint8_t code[FERRUM_PACKED_BLOCK * FERRUM_PANEL_ROWS * 2];
    _Alignas(64) float scale[FERRUM_PACKED_HALVES][FERRUM_PANEL_ROWS];
    _Alignas(64) float min[FERRUM_PACKED_HALVES][FERRUM_PANEL_ROWS];
} ferrum_unpacked_t;

/** Unpack @p groups groups from group number @p first of a row on. Meanwhile the same part of the
 *  panel @p ahead is asked for, if not NULL. */
typedef void ferrum_unpack_fn(const ferrum_packed_matrix_t *matrix, const uint8_t *panel,
                              const uint8_t *ahead, uint32_t first, uint32_t groups,
                              ferrum_unpacked_t *out);

/** Unpackers by kind, FAST and ACCURATE. */
extern ferrum_unpack_fn *const ferrum_unpack_avx512vnni[FERRUM_PACKED_KINDS][2];

/** X(kind, groups per ACCURATE fold as in ferrum_packed_traits(), pass, most): codes meet up to
 *  `pass` tokens as they come out of the panel, and up to `most` tokens, in one or two passes, that
 *  is faster than an unpacked copy. Halves of groups have too many sums for more than three. */
#define FERRUM_PACKED_EACH_KIND(X)                                                                 \
    X(Q4_0, 1, 8, 16)                                                                              \
    X(Q4_1, 1, 8, 16)                                                                              \
    X(Q5_0, 1, 8, 16)                                                                              \
    X(Q5_1, 1, 8, 8)                                                                               \
    X(Q8_0, 1, 8, 16)                                                                              \
    X(IQ4_NL, 1, 8, 16)                                                                            \
    X(MXFP4, 1, 8, 16)                                                                             \
    X(Q2_K, 8, 3, 3)                                                                               \
    X(Q3_K, 8, 3, 3)                                                                               \
    X(Q4_K, 4, 8, 16)                                                                              \
    X(Q5_K, 2, 8, 8)                                                                               \
    X(Q6_K, 1, 3, 3)                                                                               \
    X(IQ4_XS, 1, 8, 16)                                                                            \
    X(GPTQ4, 0, 8, 16)                                                                             \
    X(GPTQ8, 0, 8, 16)

/** The product for at most ferrum_packed_direct_most() tokens: without an unpacked copy. */
ferrum_packed_product_fn ferrum_packed_direct_avx512vnni;
/** Up to how many tokens that is faster. */
uint32_t ferrum_packed_direct_most(ferrum_packed_kind_t kind);
ferrum_packed_quantise_fn ferrum_packed_quantise_avx512vnni;
ferrum_packed_product_fn ferrum_packed_product_avx512vnni;

/** Lanes of panel number @p panel that rows [row, end) have. */
static inline uint16_t ferrum_panel_lanes(uint32_t panel, uint32_t row, uint32_t end)
{
    const uint32_t first = panel * FERRUM_PANEL_ROWS;
    const uint32_t from = first < row ? row - first : 0;
    const uint32_t to = end - first < FERRUM_PANEL_ROWS ? end - first : FERRUM_PANEL_ROWS;
    return (uint16_t)((1u << to) - (1u << from));
}

#endif /* FERRUM_KERNELS_PACKED_AVX512VNNI_H */
