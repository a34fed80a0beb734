/* SPDX-License-Identifier: MIT */
/**
 * @file packed.h
 * @brief Products of interleaved quantised weights with activations quantised to 16 or 8 bits.
 *
 * **Panels.** Sixteen output rows make a *panel*. It is a run of *units* (256 values for k-quants
 * and IQ4_XS, 32 for the other block formats, one group for GPTQ). A unit holds the bytes of its
 * sixteen blocks, part by part, and each part lane by lane: codes and high bits in 64-byte vectors
 * of one 32-bit word per row, scales byte by byte or half by half. So packing moves bytes and keeps
 * every bit of the format, and a panel is as large as its sixteen rows.
 *
 * **Weights.** Value i of a row is `scale * v - min` with an integer v, |v| <= 128. Scale and min
 * are f32 per group of 32 values, or per half of one (kinds with `halves`); scale = d * s with an
 * integer s where the format has integer scales, else s = 1. All products here are exact in f32,
 * except the minimum of GPTQ8, which is rounded once.
 *
 * **Activations** are quantised in blocks of 256 values, block records one after another, the last
 * one padded with zeros.
 *  - FAST: `x = scale_g * c`, c int8 in [-127, 127], a scale per group g of 32;
 *  - ACCURATE: `x = scale * c`, c int16 in [-top, top], one scale per block; top is 32639, or 16383
 *    for Q6_K.
 * Codes lie in the order in which the words of the weights hold their values: see
 * ferrum_packed_source(). A group (FAST) or block (ACCURATE) with a NaN, an infinity or a value
 * above FERRUM_PACKED_HUGE gets the scale NaN and codes of zero.
 *
 * **Arithmetic**, f32, blocks in order; S is an exact integer; fma rounds once:
 *  - FAST, for each group g (each half h of it): `acc = fma((float)S * scale_g, weight_scale, acc)`
 *    with `S = sum v * c` over the 32 (16) values;
 *  - ACCURATE: `t = 0`; for each fold f of `fold` groups: `t = fma((float)S, d_f, t)` with
 *    `S = sum s * v * c` over the fold, then `acc = fma(t, scale, acc)`. |S| < 2^31 for every kind:
 *    the table in packed_kinds.c says why;
 *  - then both, if the kind has minima: for each group (half) `acc = fma(-min, sum_g, acc)` where
 *    `sum_g = scale * (float)(sum of codes)` comes with the activations.
 *
 * So the bits of (row, token) depend on that row and token only, and are the same in every
 * implementation, whatever rows, tokens or token lists a call has.
 *
 * **Error** against f64 over the same weights, Gaussian activations (and with 1 % of the channels
 * times 20): one product FAST 0.55 % (1.2 %), ACCURATE 3e-5 (1.2e-4), Q6_K 6e-5 (2.3e-4); a whole
 * expert FFN of width 768 FAST 1.2 % (1.9 %), ACCURATE 8e-5 (1.7e-4), Q6_K 1.4e-4 (3.3e-4).
 */
#ifndef FERRUM_KERNELS_PACKED_H
#define FERRUM_KERNELS_PACKED_H

#include <ferrum/types.h>

#include <stdbool.h>

enum {
    FERRUM_PANEL_ROWS = 16,
    FERRUM_PACKED_GROUP = 32,  /**< values per weight scale */
    FERRUM_PACKED_BLOCK = 256, /**< values per record of activations */
    FERRUM_PACKED_GROUPS = 8,  /**< groups per block */
    FERRUM_PACKED_HALVES = 16
};

/** A group or block whose values are all smaller counts as zero: the inverse of its scale would
 *  overflow. */
#define FERRUM_PACKED_TINY 1e-30F
/** Values above count as infinite, so that FERRUM_PACKED_MAGIC times a scale cannot overflow. */
#define FERRUM_PACKED_HUGE 1e33F
/** 1.5 * 2^23. Its bits plus an integer S, |S| < 2^22, are the bits of the float MAGIC + S. */
#define FERRUM_PACKED_MAGIC 12582912.0F
#define FERRUM_PACKED_MAGIC_BITS 0x4b400000

/** How a panel's units are laid out. Bytes per unit and panel; `a x64` are vectors of words. */
typedef enum ferrum_packed_kind {
    FERRUM_PACKED_NONE,
    FERRUM_PACKED_Q4_0,   /**< 4x64 nibbles, 16 f16 d; v = q - 8 */
    FERRUM_PACKED_Q4_1,   /**< 4x64 nibbles, 16 f16 d, 16 f16 m; v = q, min = -m */
    FERRUM_PACKED_Q5_0,   /**< 4x64 nibbles, 1x64 fifth bits, 16 f16 d; v = q - 16 */
    FERRUM_PACKED_Q5_1,   /**< 4x64 nibbles, 1x64 fifth bits, 16 f16 d, 16 f16 m; v = q, min = -m */
    FERRUM_PACKED_Q8_0,   /**< 8x64 int8, 16 f16 d; v = q */
    FERRUM_PACKED_IQ4_NL, /**< as Q4_0; v = level[q] */
    FERRUM_PACKED_MXFP4,  /**< 4x64 nibbles, 16 E8M0 bytes e; v = doubled E2M1[q], d = 2^(e-128) */
    FERRUM_PACKED_Q2_K,   /**< 16x16 scale and minimum nibbles, 16 f16 d, 16 f16 dmin, 16x64 codes;
                               halves; v = q, min = dmin * mn */
    FERRUM_PACKED_Q3_K,   /**< 12x16 scale bytes, 16 f16 d, 16x64 codes, 8x64 high bits; halves;
                               v = q - 4 */
    FERRUM_PACKED_Q4_K,   /**< 12x16 scale and minimum bytes, 16 f16 d, 16 f16 dmin, 32x64 codes;
                               v = q - 8, min = dmin * mn - 8 * (d * s) */
    FERRUM_PACKED_Q5_K,   /**< as Q4_K, then 8x64 fifth bits; v = q - 16,
                               min = dmin * mn - 16 * (d * s) */
    FERRUM_PACKED_Q6_K,   /**< 16x16 scales, 16 f16 d, 32x64 codes, 16x64 high bits; halves;
                               v = q - 32 */
    FERRUM_PACKED_IQ4_XS, /**< 32x64 nibbles, 16 f16 d, 16 u16 high scale bits, 4x16 low scale
                               bytes; v = level[q], scale = d * (s - 32) is taken as one f32 */
    FERRUM_PACKED_GPTQ4,  /**< group/8 x64 codes, 16 scales, 16 u8 zeros; v = q - zero */
    FERRUM_PACKED_GPTQ8,  /**< group/4 x64 codes, 16 scales, 16 u8 zeros; v = q - 128,
                               min = scale * (zero - 128) */
    FERRUM_PACKED_KINDS
} ferrum_packed_kind_t;

/** What implementations need to know of a kind. */
typedef struct ferrum_packed_traits {
    ferrum_weight_format_t format; /**< of the blocks; FERRUM_FORMAT_GPTQ for both GPTQ kinds */
    uint16_t unit;                 /**< values per unit; 0: the GPTQ group */
    uint16_t unit_bytes;           /**< of a panel; 0: depends on the group */
    uint16_t top;                  /**< largest ACCURATE code */
    uint8_t offset;                /**< v + offset fits a u8 */
    uint8_t fold;                  /**< groups per ACCURATE fold; 0: gcd(group, 256) / 32 */
    bool halves;                   /**< scales (and minima) per 16 values instead of 32 */
    bool minima;                   /**< the kind has minima */
} ferrum_packed_traits_t;

/** How activations are quantised. */
typedef enum ferrum_packed_precision {
    FERRUM_PACKED_FAST = 1,    /**< int8 codes, a scale per 32 values */
    FERRUM_PACKED_ACCURATE = 2 /**< 15- or 16-bit codes, a scale per 256 values */
} ferrum_packed_precision_t;

/** FAST record of 256 activations. Arrays of 16 hold the 16 halves when the kind has `halves`,
 *  else the 8 groups in their first elements. What is not used is zero. */
typedef struct ferrum_packed_fast {
    float scale[FERRUM_PACKED_GROUPS]; /**< its mantissa has at most 22 bits */
    float bias[FERRUM_PACKED_GROUPS];  /**< -MAGIC * scale, exact */
    /** MAGIC_BITS - offset * (sum of codes): adding `sum (v + offset) * c` leaves the bits of the
     *  float MAGIC + S, whose fma with scale and bias is `(float)S * scale`, rounded once. */
    int32_t start[FERRUM_PACKED_HALVES];
    float sum[FERRUM_PACKED_HALVES]; /**< scale * (sum of codes) */
    int8_t code[FERRUM_PACKED_BLOCK];
} ferrum_packed_fast_t;

/** ACCURATE record of 256 activations. */
typedef struct ferrum_packed_accurate {
    float scale;
    float sum[FERRUM_PACKED_HALVES]; /**< as in ferrum_packed_fast_t */
    int16_t code[FERRUM_PACKED_BLOCK];
} ferrum_packed_accurate_t;

/** A packed matrix [n,k]; n a multiple of 16, k of the unit. */
typedef struct ferrum_packed_matrix {
    ferrum_packed_kind_t kind;
    uint32_t n;
    uint32_t k;
    uint32_t unit;              /**< values per unit */
    ferrum_dtype_t scale_dtype; /**< of GPTQ scales: F32, F16 or BF16 */
    size_t unit_bytes;          /**< of one panel */
    size_t panel_bytes;         /**< k / unit * unit_bytes */
    size_t panel_stride;        /**< from panel to panel: panel_bytes, or more when the panels of
                                     several matrices are interleaved */
    const uint8_t *panels;
    const uint8_t *next; /**< a hint: panels that the caller multiplies after those of this call,
                              panel_stride apart; NULL: none */
} ferrum_packed_matrix_t;

/** Traits of a kind; NULL for NONE. */
const ferrum_packed_traits_t *ferrum_packed_traits(ferrum_packed_kind_t kind);
/** Kind for a block format, NONE when there is none. */
ferrum_packed_kind_t ferrum_packed_kind_of(ferrum_weight_format_t format);
/** Bytes of scales in front of a unit's codes. Units of k-quants are so large that scales behind
 * the codes, which are wanted first, would keep processors from reading a panel ahead. */
static inline uint32_t ferrum_packed_codes_at(ferrum_packed_kind_t kind)
{
    switch (kind) {
    case FERRUM_PACKED_Q2_K:
        return (16 + 4) * FERRUM_PANEL_ROWS;
    case FERRUM_PACKED_Q3_K:
        return (12 + 2) * FERRUM_PANEL_ROWS;
    case FERRUM_PACKED_Q4_K:
    case FERRUM_PACKED_Q5_K:
        return (12 + 4) * FERRUM_PANEL_ROWS;
    case FERRUM_PACKED_Q6_K:
        return (16 + 2) * FERRUM_PANEL_ROWS;
    default:
        return 0;
    }
}
/** Groups per ACCURATE fold of a matrix. */
uint32_t ferrum_packed_fold(const ferrum_packed_matrix_t *matrix);
/** Fill in sizes for a kind, panel_stride = panel_bytes; @p group, @p scale_dtype: of GPTQ, else
 *  ignored. False when n, k, group or dtype do not fit the kind. */
bool ferrum_packed_shape(ferrum_packed_kind_t kind, uint32_t n, uint32_t k, uint32_t group,
                         ferrum_dtype_t scale_dtype, ferrum_packed_matrix_t *out_matrix);
/** Pack one panel from sixteen rows of blocks, @p row_bytes apart, into panel_bytes at @p out. */
void ferrum_pack_blocks(const ferrum_packed_matrix_t *matrix, const uint8_t *rows, size_t row_bytes,
                        uint8_t *out);
/** Pack columns [col, col+16) of GPTQ codes [k*bits/32, n], scales [groups, n] in the matrix's
 *  scale_dtype (any alignment) and zeros u8 [groups, n] (what is subtracted). */
void ferrum_pack_gptq(const ferrum_packed_matrix_t *matrix, const uint32_t *qweight,
                      const void *scales, const uint8_t *zeros, uint32_t n, uint32_t col,
                      uint8_t *out);

/** Bytes of a quantised activation row of @p k values (a multiple of 32). */
static inline size_t ferrum_packed_row_bytes(uint32_t k, ferrum_packed_precision_t precision)
{
    return ((size_t)k + FERRUM_PACKED_BLOCK - 1) / FERRUM_PACKED_BLOCK *
           (precision == FERRUM_PACKED_FAST ? sizeof(ferrum_packed_fast_t)
                                            : sizeof(ferrum_packed_accurate_t));
}

/**
 * Place in its group of 32 from which activation code i is taken. FAST: four consecutive codes meet
 * the four bytes of a word of unpacked weights; ACCURATE: two consecutive codes meet the two halves
 * of one. A word holds values 4j..4j+3 in its bytes, low nibbles and high nibbles apart; halves of
 * a word are 2 bytes, so codes of bytes 0, 2 and of 1, 3 go together. A GPTQ word holds eight
 * values in its nibbles, low ones first.
 */
static inline uint32_t ferrum_packed_source(ferrum_packed_kind_t kind,
                                            ferrum_packed_precision_t precision, uint32_t i)
{
    if (precision == FERRUM_PACKED_ACCURATE)
        i = i / 4 * 4 + i % 2 * 2 + i % 4 / 2;
    return kind == FERRUM_PACKED_GPTQ4 ? i / 8 * 8 + i % 4 * 2 + i % 8 / 4 : i;
}

/**
 * Quantise one row: `x[perm[i]]`, or `x[i]` when perm is NULL, i < k, as @p kind wants it.
 * @p out has ferrum_packed_row_bytes and is aligned to 4.
 */
typedef void ferrum_packed_quantise_fn(ferrum_packed_kind_t kind,
                                       ferrum_packed_precision_t precision, const float *x,
                                       const uint32_t *perm, uint32_t k, uint8_t *out);
/**
 * `y[t*ldy + r] = W[row+r] . x_t`, r < rows, t < tokens. Any row and rows within n.
 *
 * @param x         quantised rows, @p x_stride bytes apart
 * @param x_rows    token t is row x_rows[t] of x; NULL: row t
 */
typedef void ferrum_packed_product_fn(const ferrum_packed_matrix_t *matrix,
                                      ferrum_packed_precision_t precision, uint32_t row,
                                      uint32_t rows, const uint8_t *x, size_t x_stride,
                                      const uint32_t *x_rows, uint32_t tokens, float *y,
                                      size_t ldy);

/** What a kernel set offers for packed weights. */
typedef struct ferrum_packed_ops {
    ferrum_packed_quantise_fn *quantise;
    ferrum_packed_product_fn *product;
} ferrum_packed_ops_t;

/** The readable reference; slow. */
extern const ferrum_packed_ops_t ferrum_packed_ops_scalar;

#endif /* FERRUM_KERNELS_PACKED_H */
