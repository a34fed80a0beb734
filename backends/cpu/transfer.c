/* SPDX-License-Identifier: MIT */
/* Copies between buffers and the host, with and without conversion. */
#include "backends/cpu/check.h"
#include "backends/cpu/entries.h"
#include "backends/cpu/half.h"

#include <string.h>

/** Address of element @p index. */
static void *element(const ferrum_buffer_t *buffer, uint64_t index)
{
    return (char *)buffer->data + (size_t)(index * ferrum_dtype_bytes(buffer->dtype));
}

/** The range lies in the buffer, whatever its dtype. */
static ferrum_status_t check_range(const char *function, const ferrum_context_t *ctx,
                                   const char *name, const ferrum_buffer_t *buffer, uint64_t offset,
                                   uint64_t count, ferrum_error_t *err)
{
    const ferrum_cpu_operand_t operand = {name, buffer, buffer ? buffer->dtype : 0, offset, count};
    return ferrum_cpu_check_operands(function, ctx, &operand, 1, err);
}

static size_t copied_bytes(const ferrum_buffer_t *buffer, uint64_t count)
{
    return (size_t)(count * ferrum_dtype_bytes(buffer->dtype));
}

/** The block format that a float dtype is, or -1 for integers. */
static int64_t float_format(ferrum_dtype_t dtype)
{
    switch (dtype) {
    case FERRUM_DTYPE_F32:
        return FERRUM_FORMAT_F32;
    case FERRUM_DTYPE_F16:
        return FERRUM_FORMAT_F16;
    case FERRUM_DTYPE_BF16:
        return FERRUM_FORMAT_BF16;
    default:
        return -1;
    }
}

static ferrum_status_t check_float(const char *function, const ferrum_buffer_t *buffer,
                                   ferrum_error_t *err)
{
    if (float_format(buffer->dtype) >= 0)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_DTYPE,
                       "%s: the buffer is %s, expected f32, f16 or bf16", ferrum_op_name(function),
                       ferrum_dtype_name(buffer->dtype));
}

ferrum_status_t ferrum_cpu_buffer_write(ferrum_context_t *ctx, ferrum_buffer_t *dst,
                                        uint64_t dst_offset, ferrum_dtype_t dtype, const void *src,
                                        uint64_t count, ferrum_error_t *err)
{
    FERRUM_CPU_CHECK(ctx, err, {"dst", dst, dtype, dst_offset, count});
    if (count == 0)
        return FERRUM_OK;
    FERRUM_CHECK_POINTER(src, err);
    memcpy(element(dst, dst_offset), src, copied_bytes(dst, count));
    ctx->stats.copies++;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_buffer_write_f32(ferrum_context_t *ctx, ferrum_buffer_t *dst,
                                            uint64_t dst_offset, const float *src, uint64_t count,
                                            ferrum_error_t *err)
{
    FERRUM_TRY(check_range(__func__, ctx, "dst", dst, dst_offset, count, err));
    FERRUM_TRY(check_float(__func__, dst, err));
    if (count == 0)
        return FERRUM_OK;
    FERRUM_CHECK_POINTER(src, err);
    void *out = element(dst, dst_offset);
    if (dst->dtype == FERRUM_DTYPE_F32)
        memcpy(out, src, copied_bytes(dst, count));
    else if (dst->dtype == FERRUM_DTYPE_F16)
        for (uint64_t i = 0; i < count; i++)
            ((uint16_t *)out)[i] = ferrum_cpu_f32_to_f16(src[i]);
    else
        for (uint64_t i = 0; i < count; i++)
            ((uint16_t *)out)[i] = ferrum_cpu_f32_to_bf16(src[i]);
    ctx->stats.copies++;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_buffer_read(ferrum_context_t *ctx, const ferrum_buffer_t *src,
                                       uint64_t src_offset, ferrum_dtype_t dtype, void *out_dst,
                                       uint64_t count, ferrum_error_t *err)
{
    FERRUM_CPU_CHECK(ctx, err, {"src", src, dtype, src_offset, count});
    if (count == 0)
        return FERRUM_OK;
    FERRUM_CHECK_POINTER(out_dst, err);
    memcpy(out_dst, element(src, src_offset), copied_bytes(src, count));
    ctx->stats.copies++;
    ctx->stats.syncs++;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_buffer_read_f32(ferrum_context_t *ctx, const ferrum_buffer_t *src,
                                           uint64_t src_offset, float *out_dst, uint64_t count,
                                           ferrum_error_t *err)
{
    FERRUM_TRY(check_range(__func__, ctx, "src", src, src_offset, count, err));
    FERRUM_TRY(check_float(__func__, src, err));
    if (count == 0)
        return FERRUM_OK;
    FERRUM_CHECK_POINTER(out_dst, err);
    const ferrum_weight_format_t format = (ferrum_weight_format_t)float_format(src->dtype);
    ferrum_kernel_dequant(format)(element(src, src_offset), out_dst, (size_t)count);
    ctx->stats.copies++;
    ctx->stats.syncs++;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_buffer_zero(ferrum_context_t *ctx, ferrum_buffer_t *buf, uint64_t offset,
                                       uint64_t count, ferrum_error_t *err)
{
    FERRUM_TRY(check_range(__func__, ctx, "buf", buf, offset, count, err));
    if (count > 0)
        memset(element(buf, offset), 0, copied_bytes(buf, count));
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_buffer_copy(ferrum_context_t *ctx, const ferrum_buffer_t *src,
                                       uint64_t src_offset, ferrum_buffer_t *dst,
                                       uint64_t dst_offset, uint64_t count, ferrum_error_t *err)
{
    FERRUM_TRY(check_range(__func__, ctx, "src", src, src_offset, count, err));
    FERRUM_CPU_CHECK(ctx, err, {"dst", dst, src->dtype, dst_offset, count});
    const uintptr_t from = (uintptr_t)element(src, src_offset);
    const uintptr_t to = (uintptr_t)element(dst, dst_offset);
    const size_t bytes = copied_bytes(src, count);
    if (from < to + bytes && to < from + bytes)
        return FERRUM_REFUSE(err, FERRUM_REASON_RANGE, "the ranges of %llu elements overlap",
                             (unsigned long long)count);
    if (bytes > 0)
        memcpy((void *)to, (const void *)from, bytes);
    return FERRUM_OK;
}
