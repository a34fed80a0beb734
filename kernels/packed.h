/* SPDX-License-Identifier: MIT */
/**
 * @file packed.h
 * @brief Products of interleaved quantised weights with activations quantised to 16 or 8 bits.
 *
 * **Panels.** Sixteen output rows make a *panel*. Its codes are the rows' own 32-bit words, laid
 * lane by lane: one 64-byte vector holds word j of each of the sixteen rows, so packing is a
 * transposition of words that keeps every bit of the format. A panel is a run of *units* (256
 * values for k-quants, 32 for Q4_0 and Q8_0, one group for GPTQ), each followed by its scales,
 * lane by lane too; the struct below each kind says how.
 *
 * **Activations.** A row of x is cut into groups of 32. Each gets a scale and integer codes:
 * `x = scale * (256*hi + lo)` with hi, lo int8 (ACCURATE), or `x = scale * hi` (FAST). Codes are
 * stored in the order in which the weight words hold their values, so that a lane's four bytes
 * meet four consecutive bytes of x. A group with a NaN or an infinity gets the scale NaN.
 *
 * **Arithmetic.** Per group of 32 (16 for Q6_K) the sum of code products is an exact integer; it is
 * converted to f32 and folded in with fused multiply-adds, groups in order. Bits of (row, token)
 * therefore depend on that row and token only, and are the same in every implementation.
 * Relative error against f64, uniform activations: about 5e-5 ACCURATE, below 1e-2 FAST.
 */
#ifndef FERRUM_KERNELS_PACKED_H
#define FERRUM_KERNELS_PACKED_H

#include <ferrum/types.h>

#include <stdbool.h>

enum {
    FERRUM_PANEL_ROWS = 16,
    FERRUM_PACKED_GROUP = 32
};

/** A group whose values are all smaller counts as zero: the inverse of its scale would overflow. */
#define FERRUM_PACKED_TINY 1e-30F

/** How a panel's units are laid out. Sizes in bytes per unit and panel. */
typedef enum ferrum_packed_kind {
    FERRUM_PACKED_NONE,
    FERRUM_PACKED_Q4_0,  /**< 4x64 codes, 16 f16 scales */
    FERRUM_PACKED_Q8_0,  /**< 8x64 codes, 16 f16 scales */
    FERRUM_PACKED_Q4_K,  /**< 32x64 codes, 8x16 scales, 8x16 minima, 16 f16 d, 16 f16 dmin */
    FERRUM_PACKED_Q5_K,  /**< 32x64 low codes, 8x64 high bits, then as Q4_K */
    FERRUM_PACKED_Q6_K,  /**< 32x64 low codes, 16x64 high bits, 16x16 scales, 16 f16 d */
    FERRUM_PACKED_GPTQ4, /**< group/8 x64 codes, 16 f32 scales, 16 u8 zeros */
    FERRUM_PACKED_GPTQ8  /**< group/4 x64 codes, 16 f32 scales, 16 u8 zeros */
} ferrum_packed_kind_t;

/** How activations are quantised. */
typedef enum ferrum_packed_precision {
    FERRUM_PACKED_FAST = 1,    /**< one int8 code per value */
    FERRUM_PACKED_ACCURATE = 2 /**< two */
} ferrum_packed_precision_t;

/** A packed matrix [n,k]; n a multiple of 16, k of the unit. */
typedef struct ferrum_packed_matrix {
    ferrum_packed_kind_t kind;
    uint32_t n;
    uint32_t k;
    uint32_t unit;      /**< values per unit */
    size_t unit_bytes;  /**< of one panel */
    size_t panel_bytes; /**< k / unit * unit_bytes */
    const uint8_t *panels;
} ferrum_packed_matrix_t;

/** Kind for a block format, NONE when there is none. */
ferrum_packed_kind_t ferrum_packed_kind_of(ferrum_weight_format_t format);
/** Fill in sizes for a kind; @p group: values per GPTQ group, else ignored. False when n, k or
 *  group do not fit the kind. */
bool ferrum_packed_shape(ferrum_packed_kind_t kind, uint32_t n, uint32_t k, uint32_t group,
                         ferrum_packed_matrix_t *out_matrix);
/** Pack one panel from sixteen rows of blocks, @p row_bytes apart, into panel_bytes at @p out. */
void ferrum_pack_blocks(const ferrum_packed_matrix_t *matrix, const uint8_t *rows, size_t row_bytes,
                        uint8_t *out);
/** Pack columns [col, col+16) of GPTQ codes [k*bits/32, n] with scales f32 and zeros u8
 *  [groups, n]. */
void ferrum_pack_gptq(const ferrum_packed_matrix_t *matrix, const uint32_t *qweight,
                      const float *scales, const uint8_t *zeros, uint32_t n, uint32_t col,
                      uint8_t *out);

/** Bytes of a quantised activation row of @p k values (a multiple of 32). */
static inline size_t ferrum_packed_row_bytes(uint32_t k, ferrum_packed_precision_t precision)
{
    /* Per group: one f32 scale, two f32 sums (of its halves); then the codes. */
    return (size_t)k / FERRUM_PACKED_GROUP * 12 + (size_t)k * (size_t)precision;
}

/**
 * Quantise one row: `x[perm[i]]`, or `x[i]` when perm is NULL, i < k, in the order that @p kind
 * wants. @p out has ferrum_packed_row_bytes and is aligned to 4.
 */
typedef void ferrum_packed_quantise_fn(ferrum_packed_kind_t kind,
                                       ferrum_packed_precision_t precision, const float *x,
                                       const uint32_t *perm, uint32_t k, uint8_t *out);
/**
 * `y[t*ldy + r] = W[row+r] . x_t`, r < rows, t < tokens; x: quantised rows, @p x_stride bytes
 * apart. Any row and rows within n.
 */
typedef void ferrum_packed_product_fn(const ferrum_packed_matrix_t *matrix,
                                      ferrum_packed_precision_t precision, uint32_t row,
                                      uint32_t rows, const uint8_t *x, size_t x_stride,
                                      uint32_t tokens, float *y, size_t ldy);

/** What a kernel set offers for packed weights. */
typedef struct ferrum_packed_ops {
    ferrum_packed_quantise_fn *quantise;
    ferrum_packed_product_fn *product;
} ferrum_packed_ops_t;

/** The readable reference; slow. */
extern const ferrum_packed_ops_t ferrum_packed_ops_scalar;

#endif /* FERRUM_KERNELS_PACKED_H */
