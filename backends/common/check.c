/* SPDX-License-Identifier: MIT */
#include "backends/common/check.h"

#include <string.h>

const char *ferrum_op_name(const char *function)
{
    static const char prefix[] = "ferrum_";
    const char *backend = function + sizeof prefix - 1;

    if (strncmp(function, prefix, sizeof prefix - 1) != 0 || !strchr(backend, '_'))
        return function;
    return strchr(backend, '_') + 1;
}

ferrum_status_t ferrum_check_pointer(const char *function, const char *name, const void *ptr,
                                     ferrum_error_t *err)
{
    if (ptr)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL, "%s: %s is NULL",
                       ferrum_op_name(function), name);
}

ferrum_status_t ferrum_check_span(const char *function, const char *name, uint64_t available,
                                  uint64_t offset, uint64_t count, ferrum_error_t *err)
{
    if (count == UINT64_MAX)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                           "%s: the size of %s overflows 64 bits", ferrum_op_name(function), name);
    if (offset > available || count > available - offset)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "%s: %s has %llu elements, needs %llu from offset %llu on",
                           ferrum_op_name(function), name, (unsigned long long)available,
                           (unsigned long long)count, (unsigned long long)offset);
    return FERRUM_OK;
}

ferrum_status_t ferrum_check_struct(const char *function, const char *name, const void *head,
                                    uint32_t min_size, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_check_pointer(function, name, head, err));
    const uint32_t size = ((const ferrum_head_t *)head)->size;
    if (size >= min_size)
        return FERRUM_OK;
    return ferrum_fail(
        err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
        "%s: %s says that it has %u bytes, ABI 1.0 has %u: set head with FERRUM_HEAD",
        ferrum_op_name(function), name, size, min_size);
}

ferrum_status_t ferrum_fill_struct(const char *function, void *out, uint32_t min_size,
                                   const void *full, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_check_struct(function, "the output struct", out, min_size, err));
    const uint32_t theirs = ((const ferrum_head_t *)out)->size;
    const uint32_t ours = ((const ferrum_head_t *)full)->size;
    const uint32_t common = theirs < ours ? theirs : ours;

    memcpy(out, full, common);
    ((ferrum_head_t *)out)->size = common;
    return FERRUM_OK;
}
