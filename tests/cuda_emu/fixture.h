/* SPDX-License-Identifier: MIT */
/**
 * @file fixture.h
 * @brief A driver opened at run time, for the tests here. FERRUM_CUDA_DRIVER names another than the
 * emulated one, and FERRUM_TEST_CUDA_IMAGE a file with its kernels (wrappers.cu, example.cu), so
 * the tests of the wrappers run on a GPU as well.
 */
#ifndef FERRUM_TESTS_CUDA_EMU_FIXTURE_H
#define FERRUM_TESTS_CUDA_EMU_FIXTURE_H

#include <stdbool.h>

#include "backends/cuda/driver_api.h"

/* clang-format off */
#define FIXTURE_MEMBER(name, symbol, parameters) CUresult (*name) parameters;
typedef struct fixture_driver {
    FERRUM_CUDA_DRIVER_API(FIXTURE_MEMBER)
    /* Of the emulator only; NULL with another driver. */
    void (*reset)(void);
    int (*set)(const char *name, const char *value);
    const char *(*fault)(void);
    uint64_t (*count)(const char *what);
} fixture_driver_t;
#undef FIXTURE_MEMBER
/* clang-format on */

extern fixture_driver_t cu;
extern CUcontext fixture_context;
extern CUmodule fixture_module;

/** Open the driver; false, with a message, if it cannot be had. */
bool fixture_open(void);
/** Begin and end a test: driver, context of device 0 and module; nothing may be left behind. */
void fixture_begin(void);
void fixture_end(void);

/** Each of these exits with a message if the driver refuses. */
CUfunction fixture_kernel(const char *name);
CUdeviceptr fixture_upload(const void *data, size_t bytes);
void fixture_download(void *to, CUdeviceptr from, size_t bytes);
void fixture_free(CUdeviceptr address);
/** Launch in the default stream. */
void fixture_launch(const char *name, uint32_t blocks, uint32_t threads, uint32_t shared_bytes,
                    void **params);
/** Wait for everything. */
CUresult fixture_wait(void);

/** The same numbers on every machine. */
uint32_t fixture_random(void);

/** Independent of the code under test: a value in f16 and bf16 to double, and the nearest f16/bf16.
 */
double fixture_f16_value(uint16_t bits);
double fixture_bf16_value(uint16_t bits);

#endif
