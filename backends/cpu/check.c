/* SPDX-License-Identifier: MIT */
#include "backends/cpu/check.h"

#include <string.h>

const char *ferrum_cpu_op_name(const char *function)
{
    static const char prefix[] = "ferrum_cpu_";
    return strncmp(function, prefix, sizeof prefix - 1) == 0 ? function + sizeof prefix - 1
                                                             : function;
}

ferrum_status_t ferrum_cpu_check_pointer(const char *function, const char *name, const void *ptr,
                                         ferrum_error_t *err)
{
    if (ptr)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL, "%s: %s is NULL",
                       ferrum_cpu_op_name(function), name);
}

static ferrum_status_t check_operand(const char *op, const ferrum_cpu_operand_t *operand,
                                     ferrum_error_t *err)
{
    const ferrum_buffer_t *buffer = operand->buffer;

    if (!buffer)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL, "%s: %s is NULL", op,
                           operand->name);
    if (buffer->dtype != operand->dtype)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_DTYPE,
                           "%s: %s is %s, expected %s", op, operand->name,
                           ferrum_dtype_name(buffer->dtype), ferrum_dtype_name(operand->dtype));
    if (operand->count == UINT64_MAX)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                           "%s: the size of %s overflows 64 bits", op, operand->name);
    if (operand->offset > buffer->count || operand->count > buffer->count - operand->offset)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "%s: %s has %llu elements, needs %llu from offset %llu on", op,
                           operand->name, (unsigned long long)buffer->count,
                           (unsigned long long)operand->count, (unsigned long long)operand->offset);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_check_operands(const char *function, const ferrum_context_t *ctx,
                                          const ferrum_cpu_operand_t *operands, size_t count,
                                          ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_cpu_check_pointer(function, "ctx", ctx, err));
    for (size_t i = 0; i < count; i++)
        FERRUM_TRY(check_operand(ferrum_cpu_op_name(function), &operands[i], err));
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_check_struct(const char *function, const char *name, const void *head,
                                        uint32_t min_size, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_cpu_check_pointer(function, name, head, err));
    const uint32_t size = ((const ferrum_head_t *)head)->size;
    if (size >= min_size)
        return FERRUM_OK;
    return ferrum_fail(
        err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
        "%s: %s says that it has %u bytes, ABI 1.0 has %u: set head with FERRUM_HEAD",
        ferrum_cpu_op_name(function), name, size, min_size);
}

ferrum_status_t ferrum_cpu_fill_struct(const char *function, void *out, uint32_t min_size,
                                       const void *full, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_cpu_check_struct(function, "the output struct", out, min_size, err));
    const uint32_t theirs = ((const ferrum_head_t *)out)->size;
    const uint32_t ours = ((const ferrum_head_t *)full)->size;
    const uint32_t common = theirs < ours ? theirs : ours;

    memcpy(out, full, common);
    ((ferrum_head_t *)out)->size = common;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_check_ids(const char *function, const char *name, const int32_t *ids,
                                     uint64_t count, int64_t least, int64_t limit,
                                     ferrum_error_t *err)
{
    for (uint64_t i = 0; i < count; i++)
        if (ids[i] < least || ids[i] >= limit)
            return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                               "%s: %s[%llu] is %d, outside [%lld, %lld)",
                               ferrum_cpu_op_name(function), name, (unsigned long long)i, ids[i],
                               (long long)least, (long long)limit);
    return FERRUM_OK;
}
