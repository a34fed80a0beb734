/* SPDX-License-Identifier: MIT */
#include "backends/cuda/check.h"

#include <string.h>

const char *ferrum_cuda_op_name(const char *function)
{
    static const char prefix[] = "ferrum_cuda_";
    return strncmp(function, prefix, sizeof prefix - 1) == 0 ? function + sizeof prefix - 1
                                                             : function;
}

ferrum_status_t ferrum_cuda_check_pointer(const char *function, const char *name, const void *ptr,
                                          ferrum_error_t *err)
{
    if (ptr)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL, "%s: %s is NULL",
                       ferrum_cuda_op_name(function), name);
}

static bool dtype_fits(ferrum_dtype_t dtype, uint32_t wanted, ferrum_dtype_t act)
{
    switch (wanted) {
    case FERRUM_CUDA_ACT:
        return dtype == act;
    case FERRUM_CUDA_ACT_OR_F32:
        return dtype == act || dtype == FERRUM_DTYPE_F32;
    case FERRUM_CUDA_FLOAT:
        return dtype <= FERRUM_DTYPE_BF16;
    case FERRUM_CUDA_ANY_DTYPE:
        return true;
    default:
        return dtype == wanted;
    }
}

static ferrum_status_t refuse_dtype(const char *op, const ferrum_cuda_operand_t *operand,
                                    ferrum_dtype_t act, ferrum_error_t *err)
{
    const uint32_t wanted = operand->dtype;
    const bool act_first = wanted == FERRUM_CUDA_ACT || wanted == FERRUM_CUDA_ACT_OR_F32;

    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_DTYPE,
                       "%s: %s is %s, expected %s%s", op, operand->name,
                       ferrum_dtype_name(operand->buffer->dtype),
                       wanted == FERRUM_CUDA_FLOAT ? "f32, f16 or bf16"
                                                   : ferrum_dtype_name(act_first ? act : wanted),
                       wanted == FERRUM_CUDA_ACT_OR_F32 ? " or f32" : "");
}

static ferrum_status_t check_operand(const char *op, ferrum_context_t *ctx,
                                     const ferrum_cuda_operand_t *operand, ferrum_error_t *err)
{
    const ferrum_buffer_t *buffer = operand->buffer;

    if (!buffer)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL, "%s: %s is NULL", op,
                           operand->name);
    if (buffer->memory->device->ordinal != ctx->device->ordinal)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OTHER,
                           "%s: %s lies on CUDA device %u, the context works on %u", op,
                           operand->name, buffer->memory->device->ordinal, ctx->device->ordinal);
    if (!dtype_fits(buffer->dtype, operand->dtype, ctx->device->act))
        return refuse_dtype(op, operand, ctx->device->act, err);
    if (operand->count == UINT64_MAX)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                           "%s: the size of %s overflows 64 bits", op, operand->name);
    if (operand->offset > buffer->count || operand->count > buffer->count - operand->offset)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "%s: %s has %llu elements, needs %llu from offset %llu on", op,
                           operand->name, (unsigned long long)buffer->count,
                           (unsigned long long)operand->count, (unsigned long long)operand->offset);
    return ctx->capturing ? ferrum_cuda_note(ctx, buffer->memory, err) : FERRUM_OK;
}

ferrum_status_t ferrum_cuda_check_operands(const char *function, ferrum_context_t *ctx,
                                           const ferrum_cuda_operand_t *operands, size_t count,
                                           ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_cuda_check_pointer(function, "ctx", ctx, err));
    FERRUM_TRY(ferrum_cuda_check_alive(ctx, err));
    for (size_t i = 0; i < count; i++)
        FERRUM_TRY(check_operand(ferrum_cuda_op_name(function), ctx, &operands[i], err));
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_check_struct(const char *function, const char *name, const void *head,
                                         uint32_t min_size, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_cuda_check_pointer(function, name, head, err));
    const uint32_t size = ((const ferrum_head_t *)head)->size;
    if (size >= min_size)
        return FERRUM_OK;
    return ferrum_fail(
        err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
        "%s: %s says that it has %u bytes, ABI 1.0 has %u: set head with FERRUM_HEAD",
        ferrum_cuda_op_name(function), name, size, min_size);
}

ferrum_status_t ferrum_cuda_fill_struct(const char *function, void *out, uint32_t min_size,
                                        const void *full, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_cuda_check_struct(function, "the output struct", out, min_size, err));
    const uint32_t theirs = ((const ferrum_head_t *)out)->size;
    const uint32_t ours = ((const ferrum_head_t *)full)->size;
    const uint32_t common = theirs < ours ? theirs : ours;

    memcpy(out, full, common);
    ((ferrum_head_t *)out)->size = common;
    return FERRUM_OK;
}
