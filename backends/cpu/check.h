/* SPDX-License-Identifier: MIT */
/**
 * @file check.h
 * @brief What every op checks before it touches anything: NULLs, dtypes, lengths, ranges.
 *
 * Sizes are products of the caller's numbers; they saturate at UINT64_MAX, and since no buffer is
 * that long the length check refuses them. All checks return INVALID_ARGUMENT unless they say
 * otherwise.
 */
#ifndef FERRUM_CPU_CHECK_H
#define FERRUM_CPU_CHECK_H

#include "backends/cpu/objects.h"

/** One buffer of an op: elements [offset, offset + count) are read or written. */
typedef struct ferrum_cpu_operand {
    const char *name;
    const ferrum_buffer_t *buffer;
    ferrum_dtype_t dtype;
    uint64_t offset;
    uint64_t count;
} ferrum_cpu_operand_t;

/** a * b, or UINT64_MAX. */
static inline uint64_t ferrum_cpu_mul(uint64_t a, uint64_t b)
{
    uint64_t product;
    return ferrum_mul_u64(a, b, &product) ? product : UINT64_MAX;
}

/** a + b, or UINT64_MAX. */
static inline uint64_t ferrum_cpu_add(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return ferrum_add_u64(a, b, &sum) ? sum : UINT64_MAX;
}

/** a * b * c, or UINT64_MAX. */
static inline uint64_t ferrum_cpu_mul3(uint64_t a, uint64_t b, uint64_t c)
{
    return ferrum_cpu_mul(ferrum_cpu_mul(a, b), c);
}

/** The context and all operands; @p function is __func__ of the op, for the message. */
ferrum_status_t ferrum_cpu_check_operands(const char *function, const ferrum_context_t *ctx,
                                          const ferrum_cpu_operand_t *operands, size_t count,
                                          ferrum_error_t *err);

/** Check the context and the operands, given as initialisers, or return from the op. */
#define FERRUM_CPU_CHECK(ctx, err, ...)                                                            \
    FERRUM_TRY(ferrum_cpu_check_operands(                                                          \
        __func__, ctx, (const ferrum_cpu_operand_t[]){__VA_ARGS__},                                \
        sizeof((const ferrum_cpu_operand_t[]){__VA_ARGS__}) / sizeof(ferrum_cpu_operand_t), err))

/** @p ptr is not NULL. */
ferrum_status_t ferrum_cpu_check_pointer(const char *function, const char *name, const void *ptr,
                                         ferrum_error_t *err);

/** Check pointers by their own names, or return from the op. */
#define FERRUM_CPU_CHECK_POINTER(ptr, err)                                                         \
    FERRUM_TRY(ferrum_cpu_check_pointer(__func__, #ptr, ptr, err))

/** A struct of the caller: not NULL and at least as long as ABI 1.0 has it. */
ferrum_status_t ferrum_cpu_check_struct(const char *function, const char *name, const void *head,
                                        uint32_t min_size, ferrum_error_t *err);

#define FERRUM_CPU_CHECK_STRUCT(ptr, min_size, err)                                                \
    FERRUM_TRY(ferrum_cpu_check_struct(__func__, #ptr, ptr, min_size, err))

/**
 * Give @p full (a struct with head, as this plugin knows it) to a caller whose struct may be
 * shorter or longer: copies what both know and sets the caller's head to that.
 */
ferrum_status_t ferrum_cpu_fill_struct(const char *function, void *out, uint32_t min_size,
                                       const void *full, ferrum_error_t *err);

/**
 * All of `ids[0 .. count)` lie in [least, limit); INVALID_INPUT names the first that does not.
 */
ferrum_status_t ferrum_cpu_check_ids(const char *function, const char *name, const int32_t *ids,
                                     uint64_t count, int64_t least, int64_t limit,
                                     ferrum_error_t *err);

/** Name of an op as callers know it, from __func__. */
const char *ferrum_cpu_op_name(const char *function);

/** Refuse an argument: `return FERRUM_CPU_REFUSE(err, reason, "what is wrong", ...)`. */
#define FERRUM_CPU_REFUSE(err, reason, fmt, ...)                                                   \
    ferrum_fail(err, FERRUM_INVALID_ARGUMENT, reason, "%s: " fmt, ferrum_cpu_op_name(__func__),    \
                __VA_ARGS__)

/** Refuse data: the same with INVALID_INPUT. */
#define FERRUM_CPU_REFUSE_INPUT(err, reason, fmt, ...)                                             \
    ferrum_fail(err, FERRUM_INVALID_INPUT, reason, "%s: " fmt, ferrum_cpu_op_name(__func__),       \
                __VA_ARGS__)

#endif /* FERRUM_CPU_CHECK_H */
