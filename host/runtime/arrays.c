/* SPDX-License-Identifier: MIT */
#include "host/runtime/arrays.h"

#include <ferrum/util.h>

#include <stdlib.h>

ferrum_status_t ferrum_host_array_reserve(ferrum_host_array_t *array, uint64_t count,
                                          size_t element_bytes, ferrum_error_t *err)
{
    uint64_t bytes;
    if (!ferrum_mul_u64(count, element_bytes, &bytes) || bytes > PTRDIFF_MAX)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OVERFLOW,
                           "%llu elements of %zu bytes do not fit the address space",
                           (unsigned long long)count, element_bytes);
    if (bytes <= array->bytes && array->data)
        return FERRUM_OK;
    void *data = malloc(bytes ? (size_t)bytes : 1);
    if (!data)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory for %llu bytes of scratch", (unsigned long long)bytes);
    free(array->data);
    array->data = data;
    array->bytes = bytes;
    return FERRUM_OK;
}

void ferrum_host_array_free(ferrum_host_array_t *array)
{
    free(array->data);
    *array = (ferrum_host_array_t){0};
}

ferrum_status_t ferrum_device_array_reserve(const ferrum_ops_t *ops, ferrum_dtype_t dtype,
                                            uint64_t count, ferrum_device_array_t *array,
                                            ferrum_error_t *err)
{
    if (array->buffer && count <= array->count)
        return FERRUM_OK;
    ferrum_buffer_t *buffer;
    FERRUM_TRY(ops->backend->buffer_alloc(ops->device, dtype, count, &buffer, err));
    ops->backend->buffer_release(array->buffer);
    array->buffer = buffer;
    array->count = count;
    return FERRUM_OK;
}

void ferrum_device_array_free(const ferrum_ops_t *ops, ferrum_device_array_t *array)
{
    if (array->buffer)
        ops->backend->buffer_release(array->buffer);
    *array = (ferrum_device_array_t){0};
}
