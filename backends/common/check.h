/* SPDX-License-Identifier: MIT */
/**
 * @file check.h
 * @brief What the entries of every backend check alike: NULLs, sizes of structs, sizes that
 * overflow.
 *
 * Messages name the operation and the argument. @p function is __func__ of an entry: its name in
 * the tables is what stands behind "ferrum_<backend>_".
 */
#ifndef FERRUM_BACKENDS_COMMON_CHECK_H
#define FERRUM_BACKENDS_COMMON_CHECK_H

#include <ferrum/types.h>
#include <ferrum/util.h>

/** Products and sums of sizes that stay at UINT64_MAX, which no buffer has, when they overflow. */
static inline uint64_t ferrum_size_mul(uint64_t a, uint64_t b)
{
    uint64_t product;
    return ferrum_mul_u64(a, b, &product) ? product : UINT64_MAX;
}

static inline uint64_t ferrum_size_add(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return ferrum_add_u64(a, b, &sum) ? sum : UINT64_MAX;
}

static inline uint64_t ferrum_size_mul3(uint64_t a, uint64_t b, uint64_t c)
{
    return ferrum_size_mul(ferrum_size_mul(a, b), c);
}

/** The name of an operation, for messages. */
const char *ferrum_op_name(const char *function);

/** A pointer that must not be NULL. */
ferrum_status_t ferrum_check_pointer(const char *function, const char *name, const void *ptr,
                                     ferrum_error_t *err);
/** The same, with the argument's own name. */
#define FERRUM_CHECK_POINTER(ptr, err) FERRUM_TRY(ferrum_check_pointer(__func__, #ptr, ptr, err))

/** The elements [offset, offset + count) of @p name lie within its @p available ones; a count of
 *  UINT64_MAX is a size that overflowed. */
ferrum_status_t ferrum_check_span(const char *function, const char *name, uint64_t available,
                                  uint64_t offset, uint64_t count, ferrum_error_t *err);

/** A struct of the caller: not NULL and at least as long as ABI 1.0 has it. */
ferrum_status_t ferrum_check_struct(const char *function, const char *name, const void *head,
                                    uint32_t min_size, ferrum_error_t *err);
#define FERRUM_CHECK_STRUCT(ptr, min_size, err)                                                    \
    FERRUM_TRY(ferrum_check_struct(__func__, #ptr, ptr, min_size, err))

/**
 * Give @p full (a struct with head, as this plugin knows it) to a caller whose struct may be
 * shorter or longer: copies what both know and sets the caller's head to that.
 */
ferrum_status_t ferrum_fill_struct(const char *function, void *out, uint32_t min_size,
                                   const void *full, ferrum_error_t *err);

/** Refuse an argument: `return FERRUM_REFUSE(err, reason, "what is wrong", ...)`. */
#define FERRUM_REFUSE(err, reason, fmt, ...)                                                       \
    ferrum_fail(err, FERRUM_INVALID_ARGUMENT, reason, "%s: " fmt, ferrum_op_name(__func__),        \
                __VA_ARGS__)
/** Refuse data. */
#define FERRUM_REFUSE_INPUT(err, reason, fmt, ...)                                                 \
    ferrum_fail(err, FERRUM_INVALID_INPUT, reason, "%s: " fmt, ferrum_op_name(__func__),           \
                __VA_ARGS__)

#endif /* FERRUM_BACKENDS_COMMON_CHECK_H */
