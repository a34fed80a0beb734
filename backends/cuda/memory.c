/* SPDX-License-Identifier: MIT */
/* Device memory, and the objects on the host that stand for it. */
#include "backends/cuda/check.h"

void ferrum_cuda_enter(ferrum_device_t *device)
{
    /* Fails only when the primary context is gone, and then the call that follows says so. */
    (void)device->driver.cuCtxPushCurrent(device->primary);
}

void ferrum_cuda_leave(ferrum_device_t *device)
{
    CUcontext ours;
    (void)device->driver.cuCtxPopCurrent(&ours);
}

static ferrum_status_t refuse_allocation(ferrum_device_t *device, CUresult result, uint64_t bytes,
                                         const char *what, ferrum_error_t *err)
{
    size_t free_bytes = 0, total_bytes = 0;

    if (ferrum_cuda_result_status(result) != FERRUM_OUT_OF_MEMORY)
        return ferrum_cuda_result_check(result, "cuMemAlloc", err);
    (void)device->driver.cuMemGetInfo(&free_bytes, &total_bytes);
    return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                       "cannot allocate %llu bytes for %s: CUDA device %u has %llu of %llu free",
                       (unsigned long long)bytes, what, device->ordinal,
                       (unsigned long long)free_bytes, (unsigned long long)total_bytes);
}

/** Allocate and clear; the clearing has happened when this returns. */
static ferrum_status_t allocate(ferrum_device_t *device, uint64_t bytes, const char *what,
                                CUdeviceptr *out_address, ferrum_error_t *err)
{
    const ferrum_cuda_driver_t *driver = &device->driver;
    CUdeviceptr address = 0;

    CUresult result = driver->cuMemAlloc(&address, (size_t)bytes);
    if (result != CUDA_SUCCESS)
        return refuse_allocation(device, result, bytes, what, err);
    /* The clearing runs on the NULL stream, which contexts' streams do not wait for. */
    result = driver->cuMemsetD8(address, 0, (size_t)bytes);
    if (result == CUDA_SUCCESS)
        result = driver->cuStreamSynchronize(NULL);
    if (result != CUDA_SUCCESS) {
        (void)driver->cuMemFree(address);
        return ferrum_cuda_result_check(result, "clearing new device memory", err);
    }
    *out_address = address;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_memory_new(ferrum_device_t *device, uint64_t bytes, const char *what,
                                       ferrum_cuda_memory_t **out_memory, ferrum_error_t *err)
{
    ferrum_cuda_memory_t *memory = ferrum_cuda_object_new(device, sizeof *memory, what, err);
    ferrum_status_t status = FERRUM_OK;

    if (!memory)
        return FERRUM_OUT_OF_MEMORY;
    atomic_init(&memory->refs, 1);
    memory->device = device;
    memory->bytes = bytes;
    if (bytes > 0) {
        ferrum_cuda_enter(device);
        status = allocate(device, bytes, what, &memory->address, err);
        ferrum_cuda_leave(device);
    }
    if (status != FERRUM_OK)
        ferrum_cuda_object_free(device, memory, sizeof *memory);
    else
        *out_memory = memory;
    return status;
}

void ferrum_cuda_memory_keep(ferrum_cuda_memory_t *memory)
{
    ferrum_cuda_ref(&memory->refs);
}

void ferrum_cuda_memory_drop(ferrum_cuda_memory_t *memory)
{
    if (ferrum_cuda_unref(&memory->refs))
        ferrum_cuda_object_free(memory->device, memory, sizeof *memory);
}

void ferrum_cuda_memory_free(ferrum_cuda_memory_t *memory)
{
    if (!memory)
        return;
    ferrum_device_t *device = memory->device;
    atomic_store(&memory->freed, true);
    if (memory->address) {
        /* cuMemFree waits for all work of the device that may use the block. */
        ferrum_cuda_enter(device);
        (void)device->driver.cuMemFree(memory->address);
        ferrum_cuda_leave(device);
    }
    ferrum_cuda_memory_drop(memory);
}

ferrum_status_t ferrum_cuda_memory_write(ferrum_cuda_memory_t *memory, uint64_t offset,
                                         const void *src, uint64_t bytes, ferrum_error_t *err)
{
    ferrum_device_t *device = memory->device;

    if (bytes == 0)
        return FERRUM_OK;
    ferrum_cuda_enter(device);
    CUresult result = device->driver.cuMemcpyHtoD(memory->address + offset, src, (size_t)bytes);
    if (result == CUDA_SUCCESS)
        result = device->driver.cuStreamSynchronize(NULL);
    ferrum_cuda_leave(device);
    return ferrum_cuda_result_check(result, "cuMemcpyHtoD", err);
}
