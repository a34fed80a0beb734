/* SPDX-License-Identifier: MIT */
#include "backends/cuda/check.h"
#include "backends/cuda/entries.h"

ferrum_status_t ferrum_cuda_buffer_alloc(ferrum_device_t *device, ferrum_dtype_t dtype,
                                         uint64_t count, ferrum_buffer_t **out_buffer,
                                         ferrum_error_t *err)
{
    const uint32_t element_bytes = ferrum_dtype_bytes(dtype);
    uint64_t bytes;

    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(out_buffer, err);
    if (element_bytes == 0)
        return FERRUM_REFUSE(err, FERRUM_REASON_DTYPE, "%u is not a buffer dtype", dtype);
    if (!ferrum_mul_u64(count, element_bytes, &bytes) || bytes > SIZE_MAX / 2)
        return FERRUM_REFUSE(err, FERRUM_REASON_OVERFLOW,
                             "a buffer of %llu elements of %s overflows the address space",
                             (unsigned long long)count, ferrum_dtype_name(dtype));
    ferrum_buffer_t *buffer = ferrum_cuda_object_new(device, sizeof *buffer, "a buffer", err);
    if (!buffer)
        return FERRUM_OUT_OF_MEMORY;
    const ferrum_status_t status =
        ferrum_cuda_memory_new(device, bytes, "a buffer", &buffer->memory, err);
    if (status != FERRUM_OK) {
        ferrum_cuda_object_free(device, buffer, sizeof *buffer);
        return status;
    }
    atomic_init(&buffer->refs, 1);
    buffer->dtype = dtype;
    buffer->count = count;
    *out_buffer = buffer;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_buffer_wrap_host(ferrum_device_t *device, void *ptr,
                                             ferrum_dtype_t dtype, uint64_t count,
                                             ferrum_buffer_t **out_buffer, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(ptr, err);
    FERRUM_CHECK_POINTER(out_buffer, err);
    return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NOT_IMPLEMENTED,
                       "buffer_wrap_host: kernels of the cuda backend do not read host memory; "
                       "allocate a buffer for %llu elements of %s and write to it",
                       (unsigned long long)count, ferrum_dtype_name(dtype));
}

void ferrum_cuda_buffer_retain(ferrum_buffer_t *buffer)
{
    ferrum_cuda_ref(&buffer->refs);
}

void ferrum_cuda_buffer_release(ferrum_buffer_t *buffer)
{
    if (!buffer || !ferrum_cuda_unref(&buffer->refs))
        return;
    ferrum_device_t *device = buffer->memory->device;
    ferrum_cuda_memory_free(buffer->memory);
    ferrum_cuda_object_free(device, buffer, sizeof *buffer);
}

ferrum_status_t ferrum_cuda_buffer_info(const ferrum_buffer_t *buffer,
                                        ferrum_buffer_info_t *out_info, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(buffer, err);
    const ferrum_buffer_info_t info = {
        .head = FERRUM_HEAD(ferrum_buffer_info_t),
        .dtype = buffer->dtype,
        .count = buffer->count,
    };
    return ferrum_fill_struct(__func__, out_info, FERRUM_BUFFER_INFO_MIN_SIZE, &info, err);
}
