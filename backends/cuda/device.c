/* SPDX-License-Identifier: MIT */
/* Devices: options, the primary context, the kernels, and host memory. */
#include "backends/cuda/device.h"

#include "backends/common/ffn.h"
#include "backends/cuda/cublaslt.h"
#include "backends/cuda/entries.h"

#include <stdlib.h>
#include <string.h>

enum {
    CACHE_LINE = 64,
    LEAST_CAPABILITY = 80,
    WGMMA_CAPABILITY = 90
};

void *ferrum_cuda_host_alloc(const ferrum_host_t *host, uint64_t bytes, const char *what,
                             ferrum_error_t *err)
{
    const ferrum_allocator_t *allocator = host->allocator;
    void *ptr =
        bytes < SIZE_MAX / 2 ? allocator->alloc(allocator->self, (size_t)bytes, CACHE_LINE) : NULL;

    if (ptr)
        return memset(ptr, 0, (size_t)bytes);
    (void)ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                      "cannot allocate %llu bytes of host memory for %s", (unsigned long long)bytes,
                      what);
    return NULL;
}

void ferrum_cuda_host_free(const ferrum_host_t *host, void *ptr, uint64_t bytes)
{
    if (ptr)
        host->allocator->free(host->allocator->self, ptr, (size_t)bytes);
}

void *ferrum_cuda_object_new(ferrum_device_t *device, size_t bytes, const char *what,
                             ferrum_error_t *err)
{
    void *object = ferrum_cuda_host_alloc(device->host, bytes, what, err);

    if (object)
        ferrum_cuda_device_retain(device);
    return object;
}

void ferrum_cuda_object_free(ferrum_device_t *device, void *object, size_t bytes)
{
    ferrum_cuda_host_free(device->host, object, bytes);
    ferrum_cuda_device_release(device);
}

static ferrum_status_t check_host(const ferrum_host_t *host, ferrum_error_t *err)
{
    FERRUM_CHECK_STRUCT(host, FERRUM_HOST_MIN_SIZE, err);
    FERRUM_CHECK_STRUCT(host->allocator, FERRUM_ALLOCATOR_MIN_SIZE, err);
    FERRUM_CHECK_POINTER((const void *)host->allocator->alloc, err);
    FERRUM_CHECK_POINTER((const void *)host->allocator->free, err);
    return FERRUM_OK;
}

/** What the caller or the option FERRUM_CUDA_DEVICE asks for. */
static ferrum_status_t choose(const ferrum_host_t *host, const ferrum_device_options_t *options,
                              uint32_t *out_ordinal, ferrum_dtype_t *out_act, ferrum_error_t *err)
{
    const char *text = host->option ? host->option(host->self, "FERRUM_CUDA_DEVICE") : NULL;
    uint32_t ordinal = 0;
    ferrum_dtype_t act = FERRUM_DTYPE_F16;

    if (text && *text) {
        char *end;
        const unsigned long number = strtoul(text, &end, 10);
        if (*end != '\0' || *text < '0' || *text > '9' || number > INT32_MAX)
            return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NO_DEVICE,
                               "FERRUM_CUDA_DEVICE is \"%.40s\", expected a device number", text);
        ordinal = (uint32_t)number;
    }
    if (options) {
        FERRUM_CHECK_STRUCT(options, FERRUM_DEVICE_OPTIONS_MIN_SIZE, err);
        if (options->ordinal != 0)
            ordinal = options->ordinal;
        if (options->set_activation_dtype)
            act = options->activation_dtype;
    }
    if (act != FERRUM_DTYPE_F16 && act != FERRUM_DTYPE_BF16)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_DTYPE,
                           "the cuda backend computes with f16 or bf16 activations, not %s",
                           ferrum_dtype_name(act));
    *out_ordinal = ordinal;
    *out_act = act;
    return FERRUM_OK;
}

static int attribute(const ferrum_device_t *device, CUdevice_attribute which)
{
    int value = 0;
    (void)device->driver.cuDeviceGetAttribute(&value, which, device->id);
    return value;
}

static ferrum_status_t find_device(ferrum_device_t *device, ferrum_error_t *err)
{
    int count = 0;

    FERRUM_TRY(
        ferrum_cuda_result_check(device->driver.cuDeviceGetCount(&count), "cuDeviceGetCount", err));
    if (device->ordinal >= (uint32_t)count)
        return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_NO_DEVICE,
                           "there is no CUDA device %u, the driver sees %d", device->ordinal,
                           count);
    FERRUM_TRY(ferrum_cuda_result_check(
        device->driver.cuDeviceGet(&device->id, (int)device->ordinal), "cuDeviceGet", err));
    device->capability = 10 * attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) +
                         attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    device->processors = attribute(device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    device->shared_bytes = attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
    if (device->capability < LEAST_CAPABILITY)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NO_DEVICE,
                           "CUDA device %u has compute capability %d.%d, the cuda backend needs "
                           "%d.%d or newer",
                           device->ordinal, device->capability / 10, device->capability % 10,
                           LEAST_CAPABILITY / 10, LEAST_CAPABILITY % 10);
    return FERRUM_OK;
}

/** Whether FERRUM_CUDA_WGMMA asks for the warpgroup kernels, which only one generation has. */
static ferrum_status_t choose_wgmma(ferrum_device_t *device, ferrum_error_t *err)
{
    const ferrum_host_t *host = device->host;
    const char *text = host->option ? host->option(host->self, "FERRUM_CUDA_WGMMA") : NULL;

    if (!text || strcmp(text, "1") != 0)
        return FERRUM_OK;
    if (device->capability != WGMMA_CAPABILITY)
        return ferrum_fail(
            err, FERRUM_UNSUPPORTED, FERRUM_REASON_OTHER,
            "FERRUM_CUDA_WGMMA is 1, but CUDA device %u has compute capability %d.%d "
            "and these kernels are for %d.%d: unset it",
            device->ordinal, device->capability / 10, device->capability % 10,
            WGMMA_CAPABILITY / 10, WGMMA_CAPABILITY % 10);
    device->wgmma = true;
    return FERRUM_OK;
}

/** Load the module and look up every kernel; the primary context is current. */
static ferrum_status_t load_kernels(ferrum_device_t *device, ferrum_error_t *err)
{
    enum {
        ANY,
        ACT,
        ACT_SM90A
    };
#define KERNEL(file, name, kind) {#name, kind},
    static const struct {
        const char *name;
        int kind;
    } kernels[] = {FERRUM_CUDA_KERNELS(KERNEL)};
#undef KERNEL
    const ferrum_cuda_driver_t *driver = &device->driver;

    const CUresult loaded = driver->cuModuleLoadData(&device->module, ferrum_cuda_image);
    if (ferrum_cuda_result_status(loaded) == FERRUM_UNSUPPORTED)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NO_DRIVER,
                           "the NVIDIA driver (for CUDA %d.%d) cannot load the kernels for "
                           "compute capability %d.%d (%s): install a newer driver",
                           driver->version / 1000, driver->version % 1000 / 10,
                           device->capability / 10, device->capability % 10,
                           ferrum_cuda_result_name(loaded));
    FERRUM_TRY(ferrum_cuda_result_check(loaded, "cuModuleLoadData", err));
    for (size_t i = 0; i < FERRUM_CUDA_KERNEL_COUNT; i++) {
        char name[64];
        if (kernels[i].kind == ACT_SM90A && device->capability != WGMMA_CAPABILITY)
            continue;
        (void)snprintf(name, sizeof name, "ferrum_%s%s%s", kernels[i].name,
                       kernels[i].kind == ANY ? "" : "_",
                       kernels[i].kind == ANY ? "" : ferrum_dtype_name(device->act));
        const CUresult result =
            driver->cuModuleGetFunction(&device->functions[i], device->module, name);
        if (result != CUDA_SUCCESS)
            return ferrum_fail(err, FERRUM_INTERNAL, FERRUM_REASON_OTHER,
                               "kernel %s is not in the image: %s", name,
                               ferrum_cuda_result_name(result));
        (void)driver->cuFuncSetAttribute(device->functions[i],
                                         CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                         device->shared_bytes);
    }
    return FERRUM_OK;
}

static void unload(ferrum_device_t *device)
{
    if (device->primary) {
        ferrum_cuda_enter(device);
        ferrum_cuda_cublaslt_close(device);
        if (device->module)
            (void)device->driver.cuModuleUnload(device->module);
        ferrum_cuda_leave(device);
        (void)device->driver.cuDevicePrimaryCtxRelease(device->id);
    }
    ferrum_cuda_driver_close(&device->driver);
}

static ferrum_status_t load(ferrum_device_t *device, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_cuda_driver_open(device->host, &device->driver, err));
    FERRUM_TRY(find_device(device, err));
    FERRUM_TRY(choose_wgmma(device, err));
    FERRUM_TRY(ferrum_cuda_result_check(
        device->driver.cuDevicePrimaryCtxRetain(&device->primary, device->id),
        "cuDevicePrimaryCtxRetain", err));
    ferrum_cuda_enter(device);
    ferrum_status_t status = load_kernels(device, err);
    if (status == FERRUM_OK)
        status = ferrum_cuda_cublaslt_open(device, err);
    ferrum_cuda_leave(device);
    return status;
}

ferrum_status_t ferrum_cuda_device_open(const ferrum_host_t *host,
                                        const ferrum_device_options_t *options,
                                        ferrum_device_t **out_device, ferrum_error_t *err)
{
    uint32_t ordinal = 0;
    ferrum_dtype_t act = FERRUM_DTYPE_F16;
    ferrum_precision_t precision = FERRUM_PRECISION_ACCURATE;

    FERRUM_CHECK_POINTER(out_device, err);
    FERRUM_TRY(check_host(host, err));
    FERRUM_TRY(choose(host, options, &ordinal, &act, err));
    FERRUM_TRY(ferrum_precision_option(host, &precision, err));
    ferrum_device_t *device = ferrum_cuda_host_alloc(host, sizeof *device, "a device", err);
    if (!device)
        return FERRUM_OUT_OF_MEMORY;
    atomic_init(&device->refs, 1);
    device->host = host;
    device->precision = precision;
    device->ordinal = ordinal;
    device->act = act;
    const ferrum_status_t status = load(device, err);
    if (status == FERRUM_OK)
        *out_device = device;
    else
        ferrum_cuda_device_release(device);
    return status;
}

void ferrum_cuda_device_retain(ferrum_device_t *device)
{
    ferrum_cuda_ref(&device->refs);
}

void ferrum_cuda_device_release(ferrum_device_t *device)
{
    if (!device || !ferrum_cuda_unref(&device->refs))
        return;
    unload(device);
    ferrum_cuda_host_free(device->host, device, sizeof *device);
}

ferrum_status_t ferrum_cuda_device_info(const ferrum_device_t *device,
                                        ferrum_device_info_t *out_info, ferrum_error_t *err)
{
    ferrum_device_info_t info = {
        .head = FERRUM_HEAD(ferrum_device_info_t),
        .caps = FERRUM_CAP_GRAPH | FERRUM_CAP_PAGED_KV | FERRUM_CAP_PAGED_KV_VLLM |
                FERRUM_CAP_VARLEN_QKV | FERRUM_CAP_BATCHED_DECODE | FERRUM_CAP_MOE_GATE_UP_SILU |
                FERRUM_CAP_MOE_GEMV_BATCHED | FERRUM_CAP_MOE_GATE_UP_SILU_BATCHED |
                FERRUM_CAP_DEVICE_ROUTE,
    };
    size_t free_bytes = 0, total_bytes = 0;
    char products[40];
    CUcontext previous;

    FERRUM_CHECK_POINTER(device, err);
    const ferrum_cuda_driver_t *driver = &device->driver;
    if (driver->cuCtxPushCurrent(device->primary) == CUDA_SUCCESS) {
        (void)driver->cuMemGetInfo(&free_bytes, &total_bytes);
        (void)driver->cuCtxPopCurrent(&previous);
    }
    (void)driver->cuDeviceGetName(info.name, sizeof info.name - 1, device->id);
    ferrum_cuda_cublaslt_describe(device, products, sizeof products);
    (void)snprintf(info.detail, sizeof info.detail, "sm_%d, %d SMs, %s%s", device->capability,
                   device->processors, products, device->wgmma ? ", wgmma" : "");
    info.ordinal = device->ordinal;
    info.activation_dtype = device->act;
    info.memory_total_bytes = total_bytes;
    info.memory_free_bytes = free_bytes;
    return ferrum_fill_struct(__func__, out_info, FERRUM_DEVICE_INFO_MIN_SIZE, &info, err);
}
