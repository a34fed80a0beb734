/* SPDX-License-Identifier: MIT */
/**
 * @file driver.h
 * @brief The driver's functions, found at run time, and its results as Ferrum's statuses.
 */
#ifndef FERRUM_CUDA_DRIVER_H
#define FERRUM_CUDA_DRIVER_H

#include "backends/cuda/driver_api.h"

#include <ferrum/host.h>
#include <ferrum/util.h>

/** Least version of the driver (1000*major + 10*minor): it has all functions of the list and takes
 *  kernels with more than 4096 bytes of parameters. */
#define FERRUM_CUDA_DRIVER_MIN 12010

#define FERRUM_CUDA_POINTER(name, symbol, parameters) CUresult(*name) parameters;
typedef struct ferrum_cuda_driver {
    void *library;
    int version;
    FERRUM_CUDA_DRIVER_API(FERRUM_CUDA_POINTER)
} ferrum_cuda_driver_t;
#undef FERRUM_CUDA_POINTER

/**
 * Open libcuda.so.1, or the library that the option FERRUM_CUDA_DRIVER names, find every function
 * and initialise it. UNSUPPORTED with NO_DRIVER: there is none, or it is too old; with NO_DEVICE:
 * there is no device.
 */
ferrum_status_t ferrum_cuda_driver_open(const ferrum_host_t *host, ferrum_cuda_driver_t *out_driver,
                                        ferrum_error_t *err);
void ferrum_cuda_driver_close(ferrum_cuda_driver_t *driver);

/** Name of a result: "CUDA_ERROR_ILLEGAL_ADDRESS". */
const char *ferrum_cuda_result_name(CUresult result);
/** Status that a result means for the caller; see the table in driver.c. */
ferrum_status_t ferrum_cuda_result_status(CUresult result);
/** Fail with the status of @p result, saying that @p what failed, unless it is success. */
ferrum_status_t ferrum_cuda_result_check(CUresult result, const char *what, ferrum_error_t *err);

#endif /* FERRUM_CUDA_DRIVER_H */
