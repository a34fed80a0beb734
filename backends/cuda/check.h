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

#include "backends/common/check.h"
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

#endif /* FERRUM_CUDA_CHECK_H */
