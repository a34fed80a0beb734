/* SPDX-License-Identifier: MIT */
/**
 * @file arrays.h
 * @brief Scratch that grows on demand and never shrinks, on the host and on the device.
 *
 * Once every array has met its largest size, a step that reserves the same sizes again allocates
 * nothing. Growing does not keep the contents.
 */
#ifndef FERRUM_HOST_ARRAYS_H
#define FERRUM_HOST_ARRAYS_H

#include "host/runtime/ops.h"

/** Host memory. Zeroed is empty. */
typedef struct ferrum_host_array {
    void *data;
    uint64_t bytes; /**< capacity */
} ferrum_host_array_t;

/** At least @p count elements of @p element_bytes. Errors: OUT_OF_MEMORY (also on overflow); the
 *  array is then unchanged. */
ferrum_status_t ferrum_host_array_reserve(ferrum_host_array_t *array, uint64_t count,
                                          size_t element_bytes, ferrum_error_t *err);
void ferrum_host_array_free(ferrum_host_array_t *array);

/** Device memory. Zeroed is empty. */
typedef struct ferrum_device_array {
    ferrum_buffer_t *buffer; /**< NULL while empty */
    uint64_t count;          /**< capacity in elements */
} ferrum_device_array_t;

/** At least @p count elements of @p dtype, which is the same on every call for one array. On
 *  failure the array is unchanged. [one-per-context] */
ferrum_status_t ferrum_device_array_reserve(const ferrum_ops_t *ops, ferrum_dtype_t dtype,
                                            uint64_t count, ferrum_device_array_t *array,
                                            ferrum_error_t *err);
void ferrum_device_array_free(const ferrum_ops_t *ops, ferrum_device_array_t *array);

#endif /* FERRUM_HOST_ARRAYS_H */
