/* SPDX-License-Identifier: MIT */
/**
 * @file kernels.h
 * @brief The arithmetic of the CPU backend: pure functions, gathered in one table per ISA.
 *
 * A *kernel set* is everything that one instruction set offers. Selection, tests and benchmarks all
 * read ferrum_kernel_sets[]; nothing else lists the variants. Kernels allocate nothing, keep no
 * state, start no threads, and touch no byte outside the operands named in their contract.
 *
 * **Bits.** Within one kernel set, the value of output (row r, token t) depends only on row r's
 * weights and token t's activations: not on how many rows or tokens the call has, on pointer
 * alignment, or on the thread. Callers may therefore split work as they like.
 */
#ifndef FERRUM_KERNELS_H
#define FERRUM_KERNELS_H

#include "kernels/packed.h"

#include <ferrum/types.h>

/** Processor features, as bits that ferrum_cpu_features() reports. */
enum {
    FERRUM_CPU_AVX2 = 1 << 0,   /**< AVX2 + FMA + F16C, state enabled by the OS */
    FERRUM_CPU_AVX512 = 1 << 1, /**< AVX-512 F, BW, DQ, VL, state enabled by the OS */
    FERRUM_CPU_AVX_VNNI = 1 << 2,
    FERRUM_CPU_AVX512_VNNI = 1 << 3,
    FERRUM_CPU_AVX512_BF16 = 1 << 4,
    FERRUM_CPU_AVX512_VBMI = 1 << 5,
    FERRUM_CPU_AMX_INT8 = 1 << 6, /**< needs the permission call before first use */
    FERRUM_CPU_AMX_BF16 = 1 << 7,
    FERRUM_CPU_NEON_DOTPROD = 1 << 8,
    FERRUM_CPU_NEON_I8MM = 1 << 9,
    FERRUM_CPU_NEON = 1 << 10 /**< all of AArch64 */
};

/** Features of this processor that the operating system has enabled (CPUID and XCR0). Baseline
 *  instructions only, so it is safe to call first on any machine. */
uint32_t ferrum_cpu_features(void);

/** Decode @p n values (a multiple of the format's block) of one row to f32. */
typedef void ferrum_dequant_fn(const void *blocks, float *out, size_t n);

/**
 * `y[t*ldy + r] = sum_k W[r,k] * x[t*ldx + k]` for r < rows, t < tokens, overwriting y.
 *
 * @param w          row r starts at `(const char *)w + r*row_bytes`; blocks as in the GGUF file,
 *                   any alignment
 * @param k          values per row, a multiple of the format's block
 * @param x          activations, f32, token stride @p ldx elements
 * @param y          outputs, f32, token stride @p ldy elements; does not overlap x or w
 * Weights are decoded exactly; products and sums are f32.
 */
typedef void ferrum_matmul_fn(const void *w, size_t row_bytes, uint32_t rows, uint32_t k,
                              const float *x, size_t ldx, uint32_t tokens, float *y, size_t ldy);

/** A GPTQ matrix as kernels see it. Groups are runs of K-rows: a matrix with act-order has been
 *  sorted by group before, and its activations are gathered by the same permutation. */
typedef struct ferrum_gptq_matrix {
    const uint32_t *qweight; /**< [k*bits/32, n]; code i of a word in bits i*bits.., low first */
    const float *scales;     /**< [groups, n] */
    const uint8_t *zeros;    /**< [groups, n], the value that is subtracted (convention applied) */
    const uint32_t *group_end; /**< [groups], exclusive end K-row of each group */
    uint32_t groups;
    uint32_t bits; /**< 4 or 8 */
    uint32_t k;    /**< a multiple of 32/bits */
    uint32_t n;    /**< row length of qweight, scales and zeros */
} ferrum_gptq_matrix_t;

/**
 * Columns [col, col+cols) of a GPTQ product:
 * `y[t*ldy + c] = sum_g scale[g,col+c] * sum_{k in g} x[t*ldx+k] * (code - zero)`, c < cols.
 * Group borders need not be word aligned.
 */
typedef void ferrum_gptq_matmul_fn(const ferrum_gptq_matrix_t *w, uint32_t col, uint32_t cols,
                                   const float *x, size_t ldx, uint32_t tokens, float *y,
                                   size_t ldy);

/** Operations on f32 rows. Lengths may be zero; nothing needs alignment. */
typedef struct ferrum_vector_ops {
    float (*dot)(const float *a, const float *b, size_t n);
    /** y += s * x */
    void (*axpy)(float s, const float *x, float *y, size_t n);
    /** out = silu(gate) * up, silu(g) = g / (1 + exp(-g)); out may be gate or up */
    void (*silu_mul)(const float *gate, const float *up, float *out, size_t n);
    /** out = x * w / sqrt(mean(x^2) + eps); out may be x */
    void (*rms_norm)(const float *x, const float *w, float eps, float *out, size_t n);
    /** x = exp(x - max(x)); returns the sum of the new values; n > 0, x finite or -inf;
     *  where all are -inf, all become 0 */
    float (*exp_sum)(float *x, size_t n);
    void (*add)(float *y, const float *x, size_t n); /**< y += x */
    void (*scale)(float s, float *y, size_t n);      /**< y *= s */
} ferrum_vector_ops_t;

/** One format's product in one kernel set. */
typedef struct ferrum_matmul_entry {
    ferrum_weight_format_t format;
    ferrum_matmul_fn *matmul;
    ferrum_dequant_fn
        *dequant; /**< this set's decoder: the same bits as ferrum_kernel_dequant()'s */
} ferrum_matmul_entry_t;

/** Everything one ISA offers. A format missing here is taken from the next lower set. */
typedef struct ferrum_kernel_set {
    const char *name;  /**< "scalar", "avx2", "neon", ... as in `ferrum info` */
    uint32_t features; /**< FERRUM_CPU_* bits it needs */
    const ferrum_matmul_entry_t *matmul;
    size_t matmul_count;
    ferrum_gptq_matmul_fn *gptq_matmul; /**< NULL: take the next lower set's */
    ferrum_vector_ops_t vector;         /**< complete in every set */
    const ferrum_packed_ops_t *packed;  /**< products of packed weights, or NULL */
} ferrum_kernel_set_t;

/** All sets that were compiled in, widest first; the last one is "scalar" and needs nothing. */
extern const ferrum_kernel_set_t *const ferrum_kernel_sets[];
extern const size_t ferrum_kernel_set_count;

/** The decoder of a format (scalar, the readable reference), or NULL. */
ferrum_dequant_fn *ferrum_kernel_dequant(ferrum_weight_format_t format);

/** First set whose features are all in @p features. Never NULL. */
const ferrum_kernel_set_t *ferrum_kernel_select(uint32_t features);

/** Product kernel for @p format: from @p set, else from the next lower set that @p features
 *  allows; NULL when no set has it. */
ferrum_matmul_fn *ferrum_kernel_matmul(const ferrum_kernel_set_t *set, uint32_t features,
                                       ferrum_weight_format_t format);

/** GPTQ product kernel, by the same rule. Never NULL. */
ferrum_gptq_matmul_fn *ferrum_kernel_gptq_matmul(const ferrum_kernel_set_t *set, uint32_t features);

/** Products of packed weights, by the same rule; NULL when no set has them. Rows quantised by one
 *  set's ops are for that set's product. */
const ferrum_packed_ops_t *ferrum_kernel_packed(const ferrum_kernel_set_t *set, uint32_t features);

#endif /* FERRUM_KERNELS_H */
