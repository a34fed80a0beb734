/* SPDX-License-Identifier: MIT */
#include "backends/cpu/check.h"
#include "backends/cpu/entries.h"

#include <string.h>

static ferrum_status_t buffer_bytes(ferrum_dtype_t dtype, uint64_t count, uint64_t *out_bytes,
                                    ferrum_error_t *err)
{
    const uint32_t element_bytes = ferrum_dtype_bytes(dtype);

    if (element_bytes == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_DTYPE,
                           "%u is not a buffer dtype", dtype);
    if (!ferrum_mul_u64(count, element_bytes, out_bytes) || *out_bytes > SIZE_MAX / 2)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                           "a buffer of %llu elements of %s overflows the address space",
                           (unsigned long long)count, ferrum_dtype_name(dtype));
    return FERRUM_OK;
}

static ferrum_buffer_t *buffer_new(ferrum_device_t *device, ferrum_dtype_t dtype, uint64_t count,
                                   void *data, ferrum_error_t *err)
{
    ferrum_buffer_t *buffer = ferrum_cpu_object_new(device, sizeof *buffer, "a buffer", err);
    if (!buffer)
        return NULL;
    atomic_init(&buffer->refs, 1);
    buffer->device = device;
    buffer->dtype = dtype;
    buffer->count = count;
    buffer->data = data;
    return buffer;
}

ferrum_status_t ferrum_cpu_buffer_alloc(ferrum_device_t *device, ferrum_dtype_t dtype,
                                        uint64_t count, ferrum_buffer_t **out_buffer,
                                        ferrum_error_t *err)
{
    ferrum_cpu_memory_t memory;
    uint64_t bytes;

    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(out_buffer, err);
    FERRUM_TRY(buffer_bytes(dtype, count, &bytes, err));
    FERRUM_TRY(ferrum_cpu_alloc(device, bytes, "a buffer", &memory, err));
    ferrum_buffer_t *buffer = buffer_new(device, dtype, count, memory.ptr, err);
    if (!buffer) {
        ferrum_cpu_free(device, &memory);
        return FERRUM_OUT_OF_MEMORY;
    }
    memset(memory.ptr, 0, memory.bytes);
    buffer->owned = memory;
    *out_buffer = buffer;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_buffer_wrap_host(ferrum_device_t *device, void *ptr,
                                            ferrum_dtype_t dtype, uint64_t count,
                                            ferrum_buffer_t **out_buffer, ferrum_error_t *err)
{
    uint64_t bytes;

    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(ptr, err);
    FERRUM_CHECK_POINTER(out_buffer, err);
    FERRUM_TRY(buffer_bytes(dtype, count, &bytes, err));
    if ((uintptr_t)ptr % ferrum_dtype_bytes(dtype) != 0)
        return FERRUM_REFUSE(err, FERRUM_REASON_ALIGNMENT,
                             "the address is not aligned to an element of %s",
                             ferrum_dtype_name(dtype));
    ferrum_buffer_t *buffer = buffer_new(device, dtype, count, ptr, err);
    if (!buffer)
        return FERRUM_OUT_OF_MEMORY;
    *out_buffer = buffer;
    return FERRUM_OK;
}

void ferrum_cpu_buffer_retain(ferrum_buffer_t *buffer)
{
    ferrum_cpu_ref(&buffer->refs);
}

void ferrum_cpu_buffer_release(ferrum_buffer_t *buffer)
{
    if (!buffer || !ferrum_cpu_unref(&buffer->refs))
        return;
    ferrum_cpu_free(buffer->device, &buffer->owned);
    ferrum_cpu_object_free(buffer->device, buffer, sizeof *buffer);
}

ferrum_status_t ferrum_cpu_buffer_info(const ferrum_buffer_t *buffer,
                                       ferrum_buffer_info_t *out_info, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(buffer, err);
    const ferrum_buffer_info_t info = {
        .head = FERRUM_HEAD(ferrum_buffer_info_t),
        .dtype = buffer->dtype,
        .count = buffer->count,
        .host_ptr = buffer->data,
    };
    return ferrum_fill_struct(__func__, out_info, FERRUM_BUFFER_INFO_MIN_SIZE, &info, err);
}
