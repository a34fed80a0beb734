/* SPDX-License-Identifier: MIT */
/**
 * @file util.h
 * @brief Small inline helpers for both sides of the border. Optional: not part of the binary ABI.
 */
#ifndef FERRUM_UTIL_H
#define FERRUM_UTIL_H

#include <ferrum/types.h>

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#if defined(__GNUC__)
#define FERRUM_PRINTF(fmt_index, arg_index) __attribute__((format(printf, fmt_index, arg_index)))
#else
#define FERRUM_PRINTF(fmt_index, arg_index)
#endif

/** Replace control characters by '?': messages quote names out of files, and end up on terminals
 * and in logs, where they must stay one line. [any-thread] */
static inline void ferrum_make_printable(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

/**
 * Fill @p err (which may be NULL or smaller than ours) and return @p status, so that a failing
 * check is one statement: `return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, ..., "...")`.
 * [any-thread]
 */
FERRUM_PRINTF(4, 5)
static inline ferrum_status_t ferrum_fail(ferrum_error_t *err, ferrum_status_t status,
                                          ferrum_reason_t reason, const char *fmt, ...)
{
    if (err && err->size >= FERRUM_ERROR_MIN_SIZE) {
        va_list args;
        va_start(args, fmt);
        err->status = status;
        err->reason = reason;
        err->reserved = 0;
        (void)vsnprintf(err->message, sizeof err->message, fmt, args);
        va_end(args);
        ferrum_make_printable(err->message);
    }
    return status;
}

/** Propagate a failing status to the caller. */
#define FERRUM_TRY(call)                                                                           \
    do {                                                                                           \
        ferrum_status_t ferrum_try_ = (call);                                                      \
        if (ferrum_try_ != FERRUM_OK)                                                              \
            return ferrum_try_;                                                                    \
    } while (0)

/** `*out = a * b`; false when that overflows 64 bits. [any-thread] */
static inline bool ferrum_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    if (b != 0 && a > UINT64_MAX / b)
        return false;
    *out = a * b;
    return true;
}

/** `*out = a + b`; false when that overflows 64 bits. [any-thread] */
static inline bool ferrum_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    if (a > UINT64_MAX - b)
        return false;
    *out = a + b;
    return true;
}

/** Bytes per element of @p dtype; 0 for an unknown one. [any-thread] */
static inline uint32_t ferrum_dtype_bytes(ferrum_dtype_t dtype)
{
    switch (dtype) {
    case FERRUM_DTYPE_F32:
    case FERRUM_DTYPE_I32:
    case FERRUM_DTYPE_U32:
        return 4;
    case FERRUM_DTYPE_F16:
    case FERRUM_DTYPE_BF16:
        return 2;
    case FERRUM_DTYPE_I8:
    case FERRUM_DTYPE_U8:
        return 1;
    default:
        return 0;
    }
}

/** Lower-case name of @p dtype; "?" for an unknown one. [any-thread] */
static inline const char *ferrum_dtype_name(ferrum_dtype_t dtype)
{
    static const char *const names[] = {"f32", "f16", "bf16", "i32", "u32", "i8", "u8"};
    return dtype < sizeof names / sizeof names[0] ? names[dtype] : "?";
}

/** What a block of a weight format is made of. */
typedef struct ferrum_format_traits {
    ferrum_weight_format_t format;
    uint32_t block_values; /**< consecutive values of one row that share a block */
    uint32_t block_bytes;
    const char *name; /**< lower case, as the command line spells it */
} ferrum_format_traits_t;

/**
 * Traits of a block format, the one table of them; NULL for formats that Ferrum does not know and
 * for GPTQ, whose tensors are not made of blocks. [any-thread]
 */
static inline const ferrum_format_traits_t *ferrum_format_traits(ferrum_weight_format_t format)
{
    static const ferrum_format_traits_t table[] = {
        {FERRUM_FORMAT_F32, 1, 4, "f32"},           {FERRUM_FORMAT_F16, 1, 2, "f16"},
        {FERRUM_FORMAT_BF16, 1, 2, "bf16"},         {FERRUM_FORMAT_Q4_0, 32, 18, "q4_0"},
        {FERRUM_FORMAT_Q4_1, 32, 20, "q4_1"},       {FERRUM_FORMAT_Q5_0, 32, 22, "q5_0"},
        {FERRUM_FORMAT_Q5_1, 32, 24, "q5_1"},       {FERRUM_FORMAT_Q8_0, 32, 34, "q8_0"},
        {FERRUM_FORMAT_Q2_K, 256, 84, "q2_k"},      {FERRUM_FORMAT_Q3_K, 256, 110, "q3_k"},
        {FERRUM_FORMAT_Q4_K, 256, 144, "q4_k"},     {FERRUM_FORMAT_Q5_K, 256, 176, "q5_k"},
        {FERRUM_FORMAT_Q6_K, 256, 210, "q6_k"},     {FERRUM_FORMAT_IQ4_NL, 32, 18, "iq4_nl"},
        {FERRUM_FORMAT_IQ4_XS, 256, 136, "iq4_xs"}, {FERRUM_FORMAT_MXFP4, 32, 17, "mxfp4"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].format == format)
            return &table[i];
    return NULL;
}

#endif /* FERRUM_UTIL_H */
