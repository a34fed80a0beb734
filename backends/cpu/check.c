/* SPDX-License-Identifier: MIT */
#include "backends/cpu/check.h"

static ferrum_status_t check_operand(const char *function, const ferrum_cpu_operand_t *operand,
                                     ferrum_error_t *err)
{
    const ferrum_buffer_t *buffer = operand->buffer;

    if (!buffer)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL, "%s: %s is NULL",
                           ferrum_op_name(function), operand->name);
    if (buffer->dtype != operand->dtype)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_DTYPE,
                           "%s: %s is %s, expected %s", ferrum_op_name(function), operand->name,
                           ferrum_dtype_name(buffer->dtype), ferrum_dtype_name(operand->dtype));
    return ferrum_check_span(function, operand->name, buffer->count, operand->offset,
                             operand->count, err);
}

ferrum_status_t ferrum_cpu_check_operands(const char *function, const ferrum_context_t *ctx,
                                          const ferrum_cpu_operand_t *operands, size_t count,
                                          ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_check_pointer(function, "ctx", ctx, err));
    for (size_t i = 0; i < count; i++)
        FERRUM_TRY(check_operand(function, &operands[i], err));
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_check_ids(const char *function, const char *name, const int32_t *ids,
                                     uint64_t count, int64_t least, int64_t limit,
                                     ferrum_error_t *err)
{
    for (uint64_t i = 0; i < count; i++)
        if (ids[i] < least || ids[i] >= limit)
            return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                               "%s: %s[%llu] is %d, outside [%lld, %lld)", ferrum_op_name(function),
                               name, (unsigned long long)i, ids[i], (long long)least,
                               (long long)limit);
    return FERRUM_OK;
}
