/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE /* RTLD_NODELETE */
#include "backends/cuda/driver.h"

#include <dlfcn.h>
#include <string.h>

const char *ferrum_cuda_result_name(CUresult result)
{
#define NAME(name, value) {name, #name},
    static const struct {
        CUresult result;
        const char *name;
    } names[] = {FERRUM_CUDA_RESULTS(NAME)};
#undef NAME

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].result == result)
            return names[i].name;
    return "an unknown CUDA error";
}

ferrum_status_t ferrum_cuda_result_status(CUresult result)
{
    /* DEVICE_LOST is what the driver documents as sticky: the process must restart to go on. */
    static const struct {
        CUresult result;
        ferrum_status_t status;
    } table[] = {
        {CUDA_SUCCESS, FERRUM_OK},
        {CUDA_ERROR_OUT_OF_MEMORY, FERRUM_OUT_OF_MEMORY},
        {CUDA_ERROR_NO_DEVICE, FERRUM_NOT_FOUND},
        {CUDA_ERROR_INVALID_DEVICE, FERRUM_NOT_FOUND},
        {CUDA_ERROR_INVALID_IMAGE, FERRUM_UNSUPPORTED},
        {CUDA_ERROR_NO_BINARY_FOR_GPU, FERRUM_UNSUPPORTED},
        {CUDA_ERROR_INVALID_PTX, FERRUM_UNSUPPORTED},
        {CUDA_ERROR_UNSUPPORTED_PTX_VERSION, FERRUM_UNSUPPORTED},
        {CUDA_ERROR_NOT_SUPPORTED, FERRUM_UNSUPPORTED},
        {CUDA_ERROR_STUB_LIBRARY, FERRUM_UNSUPPORTED},
        {CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, FERRUM_UNSUPPORTED},
        {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, FERRUM_BUSY},
        {CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, FERRUM_BUSY},
        {CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, FERRUM_BUSY},
        {CUDA_ERROR_CAPTURED_EVENT, FERRUM_BUSY},
        {CUDA_ERROR_ECC_UNCORRECTABLE, FERRUM_DEVICE_LOST},
        {CUDA_ERROR_ILLEGAL_ADDRESS, FERRUM_DEVICE_LOST},
        {CUDA_ERROR_LAUNCH_TIMEOUT, FERRUM_DEVICE_LOST},
        {CUDA_ERROR_CONTEXT_IS_DESTROYED, FERRUM_DEVICE_LOST},
        {CUDA_ERROR_ASSERT, FERRUM_DEVICE_LOST},
        {CUDA_ERROR_HARDWARE_STACK_ERROR, FERRUM_DEVICE_LOST},
        {CUDA_ERROR_ILLEGAL_INSTRUCTION, FERRUM_DEVICE_LOST},
        {CUDA_ERROR_MISALIGNED_ADDRESS, FERRUM_DEVICE_LOST},
        {CUDA_ERROR_INVALID_ADDRESS_SPACE, FERRUM_DEVICE_LOST},
        {CUDA_ERROR_INVALID_PC, FERRUM_DEVICE_LOST},
        {CUDA_ERROR_LAUNCH_FAILED, FERRUM_DEVICE_LOST},
    };

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].result == result)
            return table[i].status;
    return FERRUM_DEVICE_ERROR;
}

ferrum_status_t ferrum_cuda_result_check(CUresult result, const char *what, ferrum_error_t *err)
{
    const ferrum_status_t status = ferrum_cuda_result_status(result);

    if (status == FERRUM_OK)
        return FERRUM_OK;
    return ferrum_fail(err, status,
                       status == FERRUM_NOT_FOUND ? FERRUM_REASON_NO_DEVICE : FERRUM_REASON_OTHER,
                       "%s failed with %s", what, ferrum_cuda_result_name(result));
}

static ferrum_status_t find_functions(ferrum_cuda_driver_t *driver, const char *library,
                                      ferrum_error_t *err)
{
#define FUNCTION(name, symbol, parameters) {#symbol, offsetof(ferrum_cuda_driver_t, name)},
    static const struct {
        const char *symbol;
        size_t offset;
    } functions[] = {FERRUM_CUDA_DRIVER_API(FUNCTION)};
#undef FUNCTION

    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *found = dlsym(driver->library, functions[i].symbol);
        if (!found)
            return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NO_DRIVER,
                               "%s has no %s: it is too old; install an NVIDIA driver for CUDA "
                               "%d.0 or newer",
                               library, functions[i].symbol, FERRUM_CUDA_DRIVER_MIN / 1000);
        /* ISO C has no conversion from an object to a function pointer; POSIX says this works. */
        memcpy((char *)driver + functions[i].offset, &found, sizeof found);
    }
    return FERRUM_OK;
}

static ferrum_status_t initialise(ferrum_cuda_driver_t *driver, const char *library,
                                  ferrum_error_t *err)
{
    int devices = 0;

    FERRUM_TRY(find_functions(driver, library, err));
    FERRUM_TRY(ferrum_cuda_result_check(driver->cuDriverGetVersion(&driver->version),
                                        "cuDriverGetVersion", err));
    if (driver->version < FERRUM_CUDA_DRIVER_MIN)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NO_DRIVER,
                           "the NVIDIA driver is too old: it supports CUDA %d.%d, the cuda backend "
                           "needs one for %d.0 or newer",
                           driver->version / 1000, driver->version % 1000 / 10,
                           FERRUM_CUDA_DRIVER_MIN / 1000);
    const CUresult result = driver->cuInit(0);
    if (result == CUDA_ERROR_NO_DEVICE ||
        (result == CUDA_SUCCESS && driver->cuDeviceGetCount(&devices) == CUDA_SUCCESS &&
         devices == 0))
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NO_DEVICE,
                           "the NVIDIA driver sees no CUDA device (is CUDA_VISIBLE_DEVICES set?)");
    if (result != CUDA_SUCCESS)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NO_DRIVER,
                           "the NVIDIA driver does not start: cuInit says %s",
                           ferrum_cuda_result_name(result));
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_driver_open(const ferrum_host_t *host, ferrum_cuda_driver_t *out_driver,
                                        ferrum_error_t *err)
{
    const char *named = host->option ? host->option(host->self, "FERRUM_CUDA_DRIVER") : NULL;
    const char *library = named && *named ? named : "libcuda.so.1";
    /* A driver has threads and exit handlers of its own: once loaded it stays. */
    ferrum_cuda_driver_t driver = {.library =
                                       dlopen(library, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)};

    if (!driver.library) {
        const char *why = dlerror();
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NO_DRIVER,
                           "no NVIDIA driver: %.160s", why ? why : library);
    }
    const ferrum_status_t status = initialise(&driver, library, err);
    if (status == FERRUM_OK)
        *out_driver = driver;
    else
        dlclose(driver.library);
    return status;
}

void ferrum_cuda_driver_close(ferrum_cuda_driver_t *driver)
{
    if (driver->library)
        dlclose(driver->library);
    driver->library = NULL;
}
