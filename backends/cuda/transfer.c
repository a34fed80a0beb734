/* SPDX-License-Identifier: MIT */
/* Copies between buffers and the host, with and without conversion. */
#include "backends/cuda/check.h"
#include "backends/cuda/entries.h"
#include "backends/cuda/half.h"

static void fill_f16(const void *source, uint64_t first, uint64_t count, void *to)
{
    for (uint64_t i = 0; i < count; i++)
        ((uint16_t *)to)[i] = ferrum_cuda_f32_to_f16(((const float *)source)[first + i]);
}

static void fill_bf16(const void *source, uint64_t first, uint64_t count, void *to)
{
    for (uint64_t i = 0; i < count; i++)
        ((uint16_t *)to)[i] = ferrum_cuda_f32_to_bf16(((const float *)source)[first + i]);
}

static void take_f16(void *result, uint64_t first, uint64_t count, const void *from)
{
    for (uint64_t i = 0; i < count; i++)
        ((float *)result)[first + i] = ferrum_cuda_f16_to_f32(((const uint16_t *)from)[i]);
}

static void take_bf16(void *result, uint64_t first, uint64_t count, const void *from)
{
    for (uint64_t i = 0; i < count; i++)
        ((float *)result)[first + i] = ferrum_cuda_bf16_to_f32(((const uint16_t *)from)[i]);
}

/** How f32 on the host meets f32, f16 and bf16, by ferrum_dtype_t. */
static ferrum_cuda_fill_fn *const fills[] = {NULL, fill_f16, fill_bf16};
static ferrum_cuda_take_fn *const takes[] = {NULL, take_f16, take_bf16};

/** What transfers with the host share: the operand, and no capture in flight. */
static ferrum_status_t check_transfer(const char *function, ferrum_context_t *ctx,
                                      const ferrum_cuda_operand_t *operand, const void *host,
                                      ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_cuda_check_operands(function, ctx, operand, 1, err));
    if (operand->count > 0)
        FERRUM_TRY(ferrum_check_pointer(function, "host memory", host, err));
    return ferrum_cuda_check_not_capturing(ctx, function, err);
}

ferrum_status_t ferrum_cuda_buffer_write(ferrum_context_t *ctx, ferrum_buffer_t *dst,
                                         uint64_t dst_offset, ferrum_dtype_t dtype, const void *src,
                                         uint64_t count, ferrum_error_t *err)
{
    const ferrum_cuda_operand_t operand = {"dst", dst, dtype, dst_offset, count};

    FERRUM_TRY(check_transfer(__func__, ctx, &operand, src, err));
    if (count == 0)
        return FERRUM_OK;
    return ferrum_cuda_upload(ctx, ferrum_cuda_at(dst, dst_offset), src, count,
                              ferrum_dtype_bytes(dtype), NULL, err);
}

ferrum_status_t ferrum_cuda_buffer_write_f32(ferrum_context_t *ctx, ferrum_buffer_t *dst,
                                             uint64_t dst_offset, const float *src, uint64_t count,
                                             ferrum_error_t *err)
{
    const ferrum_cuda_operand_t operand = {"dst", dst, FERRUM_CUDA_FLOAT, dst_offset, count};

    FERRUM_TRY(check_transfer(__func__, ctx, &operand, src, err));
    if (count == 0)
        return FERRUM_OK;
    return ferrum_cuda_upload(ctx, ferrum_cuda_at(dst, dst_offset), src, count,
                              ferrum_dtype_bytes(dst->dtype), fills[dst->dtype], err);
}

ferrum_status_t ferrum_cuda_buffer_read(ferrum_context_t *ctx, const ferrum_buffer_t *src,
                                        uint64_t src_offset, ferrum_dtype_t dtype, void *out_dst,
                                        uint64_t count, ferrum_error_t *err)
{
    const ferrum_cuda_operand_t operand = {"src", src, dtype, src_offset, count};

    FERRUM_TRY(check_transfer(__func__, ctx, &operand, out_dst, err));
    if (count == 0)
        return FERRUM_OK;
    return ferrum_cuda_download(ctx, ferrum_cuda_at(src, src_offset), out_dst, count,
                                ferrum_dtype_bytes(dtype), NULL, err);
}

ferrum_status_t ferrum_cuda_buffer_read_f32(ferrum_context_t *ctx, const ferrum_buffer_t *src,
                                            uint64_t src_offset, float *out_dst, uint64_t count,
                                            ferrum_error_t *err)
{
    const ferrum_cuda_operand_t operand = {"src", src, FERRUM_CUDA_FLOAT, src_offset, count};

    FERRUM_TRY(check_transfer(__func__, ctx, &operand, out_dst, err));
    if (count == 0)
        return FERRUM_OK;
    return ferrum_cuda_download(ctx, ferrum_cuda_at(src, src_offset), out_dst, count,
                                ferrum_dtype_bytes(src->dtype), takes[src->dtype], err);
}

ferrum_status_t ferrum_cuda_buffer_zero(ferrum_context_t *ctx, ferrum_buffer_t *buf,
                                        uint64_t offset, uint64_t count, ferrum_error_t *err)
{
    FERRUM_CUDA_CHECK(ctx, err, {"buf", buf, FERRUM_CUDA_ANY_DTYPE, offset, count});
    return ferrum_cuda_zero(ctx, ferrum_cuda_at(buf, offset),
                            count * ferrum_dtype_bytes(buf->dtype), err);
}

ferrum_status_t ferrum_cuda_buffer_copy(ferrum_context_t *ctx, const ferrum_buffer_t *src,
                                        uint64_t src_offset, ferrum_buffer_t *dst,
                                        uint64_t dst_offset, uint64_t count, ferrum_error_t *err)
{
    FERRUM_CUDA_CHECK(ctx, err, {"src", src, FERRUM_CUDA_ANY_DTYPE, src_offset, count});
    FERRUM_CUDA_CHECK(ctx, err, {"dst", dst, src->dtype, dst_offset, count});
    if (src == dst && src_offset < dst_offset + count && dst_offset < src_offset + count)
        return FERRUM_REFUSE(err, FERRUM_REASON_RANGE, "the ranges of %llu elements overlap",
                             (unsigned long long)count);
    return ferrum_cuda_copy(ctx, ferrum_cuda_at(dst, dst_offset), ferrum_cuda_at(src, src_offset),
                            count * ferrum_dtype_bytes(src->dtype), err);
}
