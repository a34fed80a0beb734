/* SPDX-License-Identifier: MIT */
/* The driver: memory and copies. */
#include "tests/cuda_emu/driver.h"

#include <stdlib.h>
#include <string.h>

CUresult cuMemGetInfo_v2(size_t *out_free, size_t *out_total)
{
    EMU_ENTER(cuMemGetInfo);
    *out_total = emu_options.memory;
    *out_free = emu_options.memory - emu_memory_used(emu_context()->device);
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuMemAlloc_v2(CUdeviceptr *out_address, size_t bytes)
{
    CUresult result;

    EMU_ENTER(cuMemAlloc);
    result = emu_unsafe_during_capture();
    if (result == CUDA_SUCCESS)
        result = emu_memory_alloc(emu_context()->device, bytes, out_address);
    return emu_leave(result);
}

/* Work that was submitted before is finished first. */
CUresult cuMemFree_v2(CUdeviceptr address)
{
    CUresult result;

    EMU_ENTER(cuMemFree);
    result = emu_unsafe_during_capture();
    if (result != CUDA_SUCCESS)
        return emu_leave(result);
    emu_drain_context(emu_context());
    return emu_leave(emu_memory_free(address));
}

CUresult cuMemHostAlloc(void **out_pointer, size_t bytes, unsigned int flags)
{
    CUresult result;

    EMU_ENTER(cuMemHostAlloc);
    (void)flags;
    result = emu_unsafe_during_capture();
    if (result == CUDA_SUCCESS)
        result = emu_host_alloc(bytes, out_pointer);
    return emu_leave(result);
}

CUresult cuMemFreeHost(void *pointer)
{
    CUresult result;

    EMU_ENTER(cuMemFreeHost);
    result = emu_unsafe_during_capture();
    if (result != CUDA_SUCCESS)
        return emu_leave(result);
    emu_drain_context(emu_context());
    return emu_leave(emu_host_free(pointer));
}

/* All of a range lies in one allocation of the device. */
static bool is_device_range(CUdeviceptr address, size_t bytes)
{
    const emu_allocation_t *a = emu_memory_find((uintptr_t)address, bytes);

    return emu_memory_owns((uintptr_t)address) && a != NULL && a->device == emu_context()->device;
}

static emu_op_t *copy_op(uintptr_t to, uintptr_t from, size_t bytes)
{
    emu_op_t *op = emu_op_create(EMU_OP_COPY);

    op->to = to;
    op->from = from;
    op->bytes = bytes;
    return op;
}

/* A copy that the caller waits for: in the default stream. */
static CUresult copy_now(uintptr_t to, uintptr_t from, size_t bytes)
{
    CUcontext context = emu_context();
    CUresult result = emu_unsafe_during_capture();

    if (result == CUDA_SUCCESS && bytes > 0)
        result = emu_submit(&context->default_stream, copy_op(to, from, bytes));
    if (result != CUDA_SUCCESS)
        return result;
    emu_drain(&context->default_stream);
    return context->sticky;
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes)
{
    EMU_ENTER(cuMemcpyHtoD);
    if (from == NULL || !is_device_range(to, bytes))
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    return emu_leave(copy_now((uintptr_t)to, (uintptr_t)from, bytes));
}

CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes)
{
    EMU_ENTER(cuMemcpyDtoH);
    if (to == NULL || !is_device_range(from, bytes))
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    return emu_leave(copy_now((uintptr_t)to, (uintptr_t)from, bytes));
}

CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    EMU_ENTER(cuMemcpyDtoD);
    if (!is_device_range(to, bytes) || !is_device_range(from, bytes))
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    return emu_leave(copy_now((uintptr_t)to, (uintptr_t)from, bytes));
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream)
{
    CUstream s;
    emu_op_t *op;

    EMU_ENTER(cuMemcpyHtoDAsync);
    s = emu_stream(stream);
    if (s == NULL)
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    if (from == NULL || !is_device_range(to, bytes))
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (bytes == 0)
        return emu_leave(CUDA_SUCCESS);
    op = copy_op((uintptr_t)to, (uintptr_t)from, bytes);
    if (s->capture == NULL && !emu_host_pinned(from, bytes)) {
        op->staged = malloc(bytes);
        if (op->staged == NULL)
            abort();
        memcpy(op->staged, from, bytes);
    }
    return emu_leave(emu_submit(s, op));
}

/* To pageable memory the driver waits; to pinned memory it does not. */
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    CUstream s;
    CUresult result;

    EMU_ENTER(cuMemcpyDtoHAsync);
    s = emu_stream(stream);
    if (s == NULL)
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    if (to == NULL || !is_device_range(from, bytes))
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (bytes == 0)
        return emu_leave(CUDA_SUCCESS);
    result = emu_submit(s, copy_op((uintptr_t)to, (uintptr_t)from, bytes));
    if (result == CUDA_SUCCESS && s->capture == NULL && !emu_host_pinned(to, bytes)) {
        emu_drain(s);
        result = s->context->sticky;
    }
    return emu_leave(result);
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    CUstream s;

    EMU_ENTER(cuMemcpyDtoDAsync);
    s = emu_stream(stream);
    if (s == NULL)
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    if (!is_device_range(to, bytes) || !is_device_range(from, bytes))
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (bytes == 0)
        return emu_leave(CUDA_SUCCESS);
    return emu_leave(emu_submit(s, copy_op((uintptr_t)to, (uintptr_t)from, bytes)));
}

static CUresult set(CUstream stream, CUdeviceptr address, uint32_t value, uint32_t width,
                    size_t count)
{
    emu_op_t *op;

    if (stream == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (count > SIZE_MAX / 4 || address % width != 0 || !is_device_range(address, count * width))
        return CUDA_ERROR_INVALID_VALUE;
    if (count == 0)
        return CUDA_SUCCESS;
    op = emu_op_create(EMU_OP_SET);
    op->to = (uintptr_t)address;
    op->bytes = count * width;
    op->value = value;
    op->width = width;
    return emu_submit(stream, op);
}

CUresult cuMemsetD8_v2(CUdeviceptr address, unsigned char value, size_t count)
{
    EMU_ENTER(cuMemsetD8);
    return emu_leave(set(emu_stream(NULL), address, value, 1, count));
}

CUresult cuMemsetD32_v2(CUdeviceptr address, unsigned int value, size_t count)
{
    EMU_ENTER(cuMemsetD32);
    return emu_leave(set(emu_stream(NULL), address, value, 4, count));
}

CUresult cuMemsetD8Async(CUdeviceptr address, unsigned char value, size_t count, CUstream stream)
{
    EMU_ENTER(cuMemsetD8Async);
    return emu_leave(set(emu_stream(stream), address, value, 1, count));
}

CUresult cuMemsetD32Async(CUdeviceptr address, unsigned int value, size_t count, CUstream stream)
{
    EMU_ENTER(cuMemsetD32Async);
    return emu_leave(set(emu_stream(stream), address, value, 4, count));
}
