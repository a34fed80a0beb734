/* SPDX-License-Identifier: MIT */
/**
 * @file check.h
 * @brief What every op checks before it launches anything: NULLs, dtypes, lengths, devices.
 *
 * Sizes are products of the caller's numbers; they saturate at UINT64_MAX, and since no buffer is
 * that long the length check refuses them. All checks return INVALID_ARGUMENT unless they say
 * otherwise. What lies in device memory cannot be checked without waiting: kernels skip ids that
 * are out of range.
 */
#ifndef FERRUM_CUDA_CHECK_H
#define FERRUM_CUDA_CHECK_H

#include "backends/cuda/objects.h"

/** Dtypes that an operand may be said to have, besides one of ferrum_dtype_t. */
enum {
    FERRUM_CUDA_ACT = 0x100, /**< the device's activation dtype */
    FERRUM_CUDA_ACT_OR_F32,
    FERRUM_CUDA_FLOAT, /**< f32, f16 or bf16 */
    FERRUM_CUDA_ANY_DTYPE
};

/** One buffer of an op: elements [offset, offset + count) are read or written. */
typedef struct ferrum_cuda_operand {
    const char *name;
    const ferrum_buffer_t *buffer;
    uint32_t dtype;
    uint64_t offset;
    uint64_t count;
} ferrum_cuda_operand_t;

/** a * b, or UINT64_MAX. */
static inline uint64_t ferrum_cuda_mul(uint64_t a, uint64_t b)
{
    uint64_t product;
    return ferrum_mul_u64(a, b, &product) ? product : UINT64_MAX;
}

/** a + b, or UINT64_MAX. */
static inline uint64_t ferrum_cuda_add(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return ferrum_add_u64(a, b, &sum) ? sum : UINT64_MAX;
}

/** a * b * c, or UINT64_MAX. */
static inline uint64_t ferrum_cuda_mul3(uint64_t a, uint64_t b, uint64_t c)
{
    return ferrum_cuda_mul(ferrum_cuda_mul(a, b), c);
}

/**
 * The context (there, and not lost) and all operands; a capture in flight takes note of them.
 * @p function is __func__ of the op, for the message.
 */
ferrum_status_t ferrum_cuda_check_operands(const char *function, ferrum_context_t *ctx,
                                           const ferrum_cuda_operand_t *operands, size_t count,
                                           ferrum_error_t *err);

/** Check the context and the operands, given as initialisers, or return from the op. */
#define FERRUM_CUDA_CHECK(ctx, err, ...)                                                           \
    FERRUM_TRY(ferrum_cuda_check_operands(                                                         \
        __func__, ctx, (const ferrum_cuda_operand_t[]){__VA_ARGS__},                               \
        sizeof((const ferrum_cuda_operand_t[]){__VA_ARGS__}) / sizeof(ferrum_cuda_operand_t),      \
        err))

/** @p ptr is not NULL. */
ferrum_status_t ferrum_cuda_check_pointer(const char *function, const char *name, const void *ptr,
                                          ferrum_error_t *err);

/** Check pointers by their own names, or return from the op. */
#define FERRUM_CUDA_CHECK_POINTER(ptr, err)                                                        \
    FERRUM_TRY(ferrum_cuda_check_pointer(__func__, #ptr, ptr, err))

/** A struct of the caller: not NULL and at least as long as ABI 1.0 has it. */
ferrum_status_t ferrum_cuda_check_struct(const char *function, const char *name, const void *head,
                                         uint32_t min_size, ferrum_error_t *err);

#define FERRUM_CUDA_CHECK_STRUCT(ptr, min_size, err)                                               \
    FERRUM_TRY(ferrum_cuda_check_struct(__func__, #ptr, ptr, min_size, err))

/**
 * Give @p full (a struct with head, as this plugin knows it) to a caller whose struct may be
 * shorter or longer: copies what both know and sets the caller's head to that.
 */
ferrum_status_t ferrum_cuda_fill_struct(const char *function, void *out, uint32_t min_size,
                                        const void *full, ferrum_error_t *err);

/** Name of an op as callers know it, from __func__. */
const char *ferrum_cuda_op_name(const char *function);

/** Refuse an argument: `return FERRUM_CUDA_REFUSE(err, reason, "what is wrong", ...)`. */
#define FERRUM_CUDA_REFUSE(err, reason, fmt, ...)                                                  \
    ferrum_fail(err, FERRUM_INVALID_ARGUMENT, reason, "%s: " fmt, ferrum_cuda_op_name(__func__),   \
                __VA_ARGS__)

/** Refuse data: the same with INVALID_INPUT. */
#define FERRUM_CUDA_REFUSE_INPUT(err, reason, fmt, ...)                                            \
    ferrum_fail(err, FERRUM_INVALID_INPUT, reason, "%s: " fmt, ferrum_cuda_op_name(__func__),      \
                __VA_ARGS__)

#endif /* FERRUM_CUDA_CHECK_H */
