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

#include "backends/common/check.h"
#include "backends/cpu/objects.h"

/** One buffer of an op: elements [offset, offset + count) are read or written. */
typedef struct ferrum_cpu_operand {
    const char *name;
    const ferrum_buffer_t *buffer;
    ferrum_dtype_t dtype;
    uint64_t offset;
    uint64_t count;
} ferrum_cpu_operand_t;

/** The context and all operands; @p function is __func__ of the op, for the message. */
ferrum_status_t ferrum_cpu_check_operands(const char *function, const ferrum_context_t *ctx,
                                          const ferrum_cpu_operand_t *operands, size_t count,
                                          ferrum_error_t *err);

/** Check the context and the operands, given as initialisers, or return from the op. */
#define FERRUM_CPU_CHECK(ctx, err, ...)                                                            \
    FERRUM_TRY(ferrum_cpu_check_operands(                                                          \
        __func__, ctx, (const ferrum_cpu_operand_t[]){__VA_ARGS__},                                \
        sizeof((const ferrum_cpu_operand_t[]){__VA_ARGS__}) / sizeof(ferrum_cpu_operand_t), err))

/**
 * All of `ids[0 .. count)` lie in [least, limit); INVALID_INPUT names the first that does not.
 */
ferrum_status_t ferrum_cpu_check_ids(const char *function, const char *name, const int32_t *ids,
                                     uint64_t count, int64_t least, int64_t limit,
                                     ferrum_error_t *err);

#endif /* FERRUM_CPU_CHECK_H */
