/* SPDX-License-Identifier: MIT */
#include "backends/cuda/check.h"

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

static ferrum_status_t refuse_dtype(const char *function, const ferrum_cuda_operand_t *operand,
                                    ferrum_dtype_t act, ferrum_error_t *err)
{
    const uint32_t wanted = operand->dtype;
    const bool act_first = wanted == FERRUM_CUDA_ACT || wanted == FERRUM_CUDA_ACT_OR_F32;

    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_DTYPE,
                       "%s: %s is %s, expected %s%s", ferrum_op_name(function), operand->name,
                       ferrum_dtype_name(operand->buffer->dtype),
                       wanted == FERRUM_CUDA_FLOAT ? "f32, f16 or bf16"
                                                   : ferrum_dtype_name(act_first ? act : wanted),
                       wanted == FERRUM_CUDA_ACT_OR_F32 ? " or f32" : "");
}

static ferrum_status_t check_operand(const char *function, ferrum_context_t *ctx,
                                     const ferrum_cuda_operand_t *operand, ferrum_error_t *err)
{
    const ferrum_buffer_t *buffer = operand->buffer;

    if (!buffer)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL, "%s: %s is NULL",
                           ferrum_op_name(function), operand->name);
    if (buffer->memory->device->ordinal != ctx->device->ordinal)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OTHER,
                           "%s: %s lies on CUDA device %u, the context works on %u",
                           ferrum_op_name(function), operand->name, buffer->memory->device->ordinal,
                           ctx->device->ordinal);
    if (!dtype_fits(buffer->dtype, operand->dtype, ctx->device->act))
        return refuse_dtype(function, operand, ctx->device->act, err);
    FERRUM_TRY(ferrum_check_span(function, operand->name, buffer->count, operand->offset,
                                 operand->count, err));
    return ctx->capturing ? ferrum_cuda_note(ctx, buffer->memory, err) : FERRUM_OK;
}

ferrum_status_t ferrum_cuda_check_operands(const char *function, ferrum_context_t *ctx,
                                           const ferrum_cuda_operand_t *operands, size_t count,
                                           ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_check_pointer(function, "ctx", ctx, err));
    FERRUM_TRY(ferrum_cuda_check_alive(ctx, err));
    for (size_t i = 0; i < count; i++)
        FERRUM_TRY(check_operand(function, ctx, &operands[i], err));
    return FERRUM_OK;
}
