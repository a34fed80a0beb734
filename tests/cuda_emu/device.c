/* SPDX-License-Identifier: MIT */
/* The driver: start, errors, devices and contexts. */
#include "tests/cuda_emu/driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CUctx_st emu_contexts[EMU_MAX_DEVICES];

bool emu_initialised;
uint64_t emu_epoch;

#define MAX_STACK 16
static _Thread_local struct {
    uint64_t epoch;
    int depth;
    CUcontext stack[MAX_STACK];
} mine;

CUcontext emu_context(void)
{
    if (mine.epoch != emu_epoch) {
        mine.epoch = emu_epoch;
        mine.depth = 0;
    }
    return mine.depth == 0 ? NULL : mine.stack[mine.depth - 1];
}

bool emu_is_fatal(CUresult result)
{
    switch (result) {
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_LAUNCH_FAILED:
        return true;
    default:
        return false;
    }
}

CUresult cuInit(unsigned int flags)
{
    EMU_ENTER(cuInit);
    if (flags != 0)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (emu_options.devices == 0)
        return emu_leave(CUDA_ERROR_NO_DEVICE);
    emu_initialised = true;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuDriverGetVersion(int *out_version)
{
    EMU_ENTER(cuDriverGetVersion);
    *out_version = (int)emu_options.version;
    return emu_leave(CUDA_SUCCESS);
}

static const char *result_name(CUresult error)
{
#define CASE(name, value)                                                                          \
    case name:                                                                                     \
        return #name;
    switch (error) {
        FERRUM_CUDA_RESULTS(CASE)
    }
#undef CASE
    return NULL;
}

CUresult cuGetErrorName(CUresult error, const char **out_name)
{
    *out_name = result_name(error);
    return *out_name == NULL ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char **out_text)
{
    return cuGetErrorName(error, out_text);
}

/* By the name without suffix (the version is ignored: there is one of each) or the exported one. */
CUresult cuGetProcAddress_v2(const char *symbol, void **out_function, int version, uint64_t flags,
                             CUdriverProcAddressQueryResult *out_status)
{
    typedef void (*function_t)(void);
    static const struct {
        const char *name;
        const char *symbol;
        function_t function;
    } functions[] = {
#define ENTRY(name, symbol, parameters) {#name, #symbol, (function_t)symbol},
        FERRUM_CUDA_DRIVER_API(ENTRY)
#undef ENTRY
    };

    EMU_ENTER(cuGetProcAddress);
    (void)version;
    (void)flags;
    *out_function = NULL;
    for (size_t i = 0; i < EMU_CALLS; i++) {
        if (strcmp(symbol, functions[i].name) == 0 || strcmp(symbol, functions[i].symbol) == 0)
            memcpy(out_function, &functions[i].function, sizeof *out_function);
    }
    if (out_status != NULL)
        *out_status = *out_function == NULL;
    return emu_leave(*out_function == NULL ? CUDA_ERROR_NOT_FOUND : CUDA_SUCCESS);
}

static bool is_device(CUdevice device)
{
    return device >= 0 && (uint64_t)device < emu_options.devices;
}

CUresult cuDeviceGetCount(int *out_count)
{
    EMU_ENTER(cuDeviceGetCount);
    *out_count = (int)emu_options.devices;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuDeviceGet(CUdevice *out_device, int ordinal)
{
    EMU_ENTER(cuDeviceGet);
    if (!is_device(ordinal))
        return emu_leave(CUDA_ERROR_INVALID_DEVICE);
    *out_device = ordinal;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuDeviceGetName(char *out_name, int bytes, CUdevice device)
{
    EMU_ENTER(cuDeviceGetName);
    if (!is_device(device))
        return emu_leave(CUDA_ERROR_INVALID_DEVICE);
    snprintf(out_name, (size_t)bytes, "Emulated GPU");
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuDeviceGetUuid_v2(CUuuid *out_uuid, CUdevice device)
{
    EMU_ENTER(cuDeviceGetUuid);
    if (!is_device(device))
        return emu_leave(CUDA_ERROR_INVALID_DEVICE);
    *out_uuid = (CUuuid){{'e', 'm', 'u', (char)('0' + device)}};
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuDeviceTotalMem_v2(size_t *out_bytes, CUdevice device)
{
    EMU_ENTER(cuDeviceTotalMem);
    if (!is_device(device))
        return emu_leave(CUDA_ERROR_INVALID_DEVICE);
    *out_bytes = emu_options.memory;
    return emu_leave(CUDA_SUCCESS);
}

static int shared_optin(void)
{
    return emu_options.sm == 80 ? 163 * 1024 : emu_options.sm == 90 ? 227 * 1024 : 99 * 1024;
}

CUresult cuDeviceGetAttribute(int *out_value, CUdevice_attribute attribute, CUdevice device)
{
    const struct {
        CUdevice_attribute attribute;
        int value;
    } values[] = {
        {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024},
        {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, 0x7fffffff},
        {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y, 65535},
        {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z, 65535},
        {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 48 * 1024},
        {CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32},
        {CU_DEVICE_ATTRIBUTE_CLOCK_RATE, 1000000},
        {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 2},
        {CU_DEVICE_ATTRIBUTE_INTEGRATED, 0},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_MODE, 0},
        {CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, device + 1},
        {CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID, 0},
        {CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, 1000000},
        {CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, 64},
        {CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, 1 << 20},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, (int)emu_options.sm / 10},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, (int)emu_options.sm % 10},
        {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, shared_optin() + 1024},
        {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, shared_optin()},
    };

    EMU_ENTER(cuDeviceGetAttribute);
    if (!is_device(device))
        return emu_leave(CUDA_ERROR_INVALID_DEVICE);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        if (values[i].attribute == attribute) {
            *out_value = values[i].value;
            return emu_leave(CUDA_SUCCESS);
        }
    }
    return emu_leave(CUDA_ERROR_INVALID_VALUE);
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *out_context, CUdevice device)
{
    CUcontext context;

    EMU_ENTER(cuDevicePrimaryCtxRetain);
    if (!is_device(device))
        return emu_leave(CUDA_ERROR_INVALID_DEVICE);
    context = &emu_contexts[device];
    if (context->retained++ == 0) {
        context->device = device;
        context->sticky = CUDA_SUCCESS;
        context->default_stream = (struct CUstream_st){.context = context};
        context->default_stream.last = &context->default_stream.first;
    }
    *out_context = context;
    return emu_leave(CUDA_SUCCESS);
}

void emu_context_free(CUcontext context)
{
    emu_drain_context(context);
    while (context->streams != NULL) {
        CUstream stream = context->streams;

        context->streams = stream->next;
        free(stream);
    }
    while (context->modules != NULL) {
        CUmodule module = context->modules;

        context->modules = module->next;
        while (module->functions != NULL) {
            CUfunction function = module->functions;

            module->functions = function->next;
            free(function);
        }
        free(module);
    }
    emu_memory_free_device(context->device);
    *context = (struct CUctx_st){.device = context->device};
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    EMU_ENTER(cuDevicePrimaryCtxRelease);
    if (!is_device(device))
        return emu_leave(CUDA_ERROR_INVALID_DEVICE);
    if (emu_contexts[device].retained == 0)
        return emu_leave(CUDA_ERROR_INVALID_CONTEXT);
    if (--emu_contexts[device].retained == 0)
        emu_context_free(&emu_contexts[device]);
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned int flags)
{
    EMU_ENTER(cuDevicePrimaryCtxSetFlags);
    if (!is_device(device))
        return emu_leave(CUDA_ERROR_INVALID_DEVICE);
    emu_contexts[device].flags = flags;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *out_flags, int *out_active)
{
    EMU_ENTER(cuDevicePrimaryCtxGetState);
    if (!is_device(device))
        return emu_leave(CUDA_ERROR_INVALID_DEVICE);
    *out_flags = emu_contexts[device].flags;
    *out_active = emu_contexts[device].retained > 0;
    return emu_leave(CUDA_SUCCESS);
}

static bool is_context(CUcontext context)
{
    return context >= emu_contexts && context < emu_contexts + EMU_MAX_DEVICES &&
           context->retained > 0;
}

CUresult cuCtxSetCurrent(CUcontext context)
{
    EMU_ENTER(cuCtxSetCurrent);
    if (context == NULL) {
        mine.depth -= mine.depth > 0;
        return emu_leave(CUDA_SUCCESS);
    }
    if (!is_context(context))
        return emu_leave(CUDA_ERROR_INVALID_CONTEXT);
    if (mine.depth == 0)
        mine.depth = 1;
    mine.stack[mine.depth - 1] = context;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuCtxGetCurrent(CUcontext *out_context)
{
    EMU_ENTER(cuCtxGetCurrent);
    *out_context = emu_context();
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    EMU_ENTER(cuCtxPushCurrent);
    if (!is_context(context) || mine.depth == MAX_STACK)
        return emu_leave(CUDA_ERROR_INVALID_CONTEXT);
    mine.stack[mine.depth++] = context;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuCtxPopCurrent_v2(CUcontext *out_context)
{
    EMU_ENTER(cuCtxPopCurrent);
    if (mine.depth == 0)
        return emu_leave(CUDA_ERROR_INVALID_CONTEXT);
    mine.depth--;
    if (out_context != NULL)
        *out_context = mine.stack[mine.depth];
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuCtxGetDevice(CUdevice *out_device)
{
    CUcontext context;

    EMU_ENTER(cuCtxGetDevice);
    context = emu_context();
    if (context == NULL)
        return emu_leave(CUDA_ERROR_INVALID_CONTEXT);
    *out_device = context->device;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuCtxSynchronize(void)
{
    CUcontext context;
    CUresult result;

    EMU_ENTER(cuCtxSynchronize);
    context = emu_context();
    result = emu_unsafe_during_capture();
    if (result != CUDA_SUCCESS)
        return emu_leave(result);
    emu_drain_context(context);
    return emu_leave(context->sticky);
}
