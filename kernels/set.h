/* SPDX-License-Identifier: MIT */
/**
 * @file set.h
 * @brief How a kernel set is written down: the list of formats, and what turns it into a table.
 *
 * A set whose product is "decode a run, then multiply" needs one decoder
 * `ferrum_dequant_<format>_<isa>` per format and one routine `ferrum_matmul_blocks_<isa>`.
 */
#ifndef FERRUM_KERNELS_SET_H
#define FERRUM_KERNELS_SET_H

#include "kernels/kernels.h"

#include <ferrum/util.h>

/** All block formats: X(enumerator suffix, lower-case name, extra). */
#define FERRUM_BLOCK_FORMATS(X, extra)                                                             \
    X(F32, f32, extra)                                                                             \
    X(F16, f16, extra)                                                                             \
    X(BF16, bf16, extra)                                                                           \
    X(Q4_0, q4_0, extra)                                                                           \
    X(Q4_1, q4_1, extra)                                                                           \
    X(Q5_0, q5_0, extra)                                                                           \
    X(Q5_1, q5_1, extra)                                                                           \
    X(Q8_0, q8_0, extra)                                                                           \
    X(Q2_K, q2_k, extra)                                                                           \
    X(Q3_K, q3_k, extra)                                                                           \
    X(Q4_K, q4_k, extra)                                                                           \
    X(Q5_K, q5_k, extra)                                                                           \
    X(Q6_K, q6_k, extra)                                                                           \
    X(IQ4_NL, iq4_nl, extra)                                                                       \
    X(IQ4_XS, iq4_xs, extra)                                                                       \
    X(MXFP4, mxfp4, extra)

/** Declares the decoder of one format. */
#define FERRUM_DECLARE_DEQUANT(format, name, isa)                                                  \
    extern ferrum_dequant_fn ferrum_dequant_##name##_##isa;

/** Defines the ferrum_matmul_fn of one format. */
#define FERRUM_DEFINE_MATMUL(format, name, isa)                                                    \
    static void matmul_##name(const void *w, size_t row_bytes, uint32_t rows, uint32_t k,          \
                              const float *x, size_t ldx, uint32_t tokens, float *y, size_t ldy)   \
    {                                                                                              \
        ferrum_matmul_blocks_##isa(ferrum_dequant_##name##_##isa,                                  \
                                   ferrum_format_traits(FERRUM_FORMAT_##format), w, row_bytes,     \
                                   rows, k, x, ldx, tokens, y, ldy);                               \
    }

/** Table entry of one format. */
#define FERRUM_MATMUL_ENTRY(format, name, isa)                                                     \
    {FERRUM_FORMAT_##format, matmul_##name, ferrum_dequant_##name##_##isa},

/** Declares the vector operations of one ISA. */
#define FERRUM_DECLARE_VECTOR(isa)                                                                 \
    float ferrum_vector_dot_##isa(const float *a, const float *b, size_t n);                       \
    void ferrum_vector_axpy_##isa(float s, const float *x, float *y, size_t n);                    \
    void ferrum_vector_silu_mul_##isa(const float *gate, const float *up, float *out, size_t n);   \
    void ferrum_vector_rms_norm_##isa(const float *x, const float *w, float eps, float *out,       \
                                      size_t n);                                                   \
    float ferrum_vector_exp_sum_##isa(float *x, size_t n);                                         \
    void ferrum_vector_add_##isa(float *y, const float *x, size_t n);                              \
    void ferrum_vector_scale_##isa(float s, float *y, size_t n);

/** Initialiser of ferrum_vector_ops_t for one ISA. */
#define FERRUM_VECTOR_OPS(isa)                                                                     \
    {                                                                                              \
        .dot = ferrum_vector_dot_##isa, .axpy = ferrum_vector_axpy_##isa,                          \
        .silu_mul = ferrum_vector_silu_mul_##isa, .rms_norm = ferrum_vector_rms_norm_##isa,        \
        .exp_sum = ferrum_vector_exp_sum_##isa, .add = ferrum_vector_add_##isa,                    \
        .scale = ferrum_vector_scale_##isa,                                                        \
    }

/** ferrum_matmul_fn for any block format, given its decoder and traits. */
typedef void ferrum_matmul_blocks_fn(ferrum_dequant_fn *dequant,
                                     const ferrum_format_traits_t *traits, const void *w,
                                     size_t row_bytes, uint32_t rows, uint32_t k, const float *x,
                                     size_t ldx, uint32_t tokens, float *y, size_t ldy);

extern const ferrum_kernel_set_t ferrum_kernel_set_scalar;
extern const ferrum_kernel_set_t ferrum_kernel_set_avx2;
extern const ferrum_kernel_set_t ferrum_kernel_set_avxvnni;
extern const ferrum_kernel_set_t ferrum_kernel_set_avx512;
extern const ferrum_kernel_set_t ferrum_kernel_set_avx512vnni;
extern const ferrum_kernel_set_t ferrum_kernel_set_amx;
extern const ferrum_kernel_set_t ferrum_kernel_set_neon;
extern const ferrum_kernel_set_t ferrum_kernel_set_dotprod;
extern const ferrum_kernel_set_t ferrum_kernel_set_i8mm;

#endif /* FERRUM_KERNELS_SET_H */
