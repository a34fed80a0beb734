/* SPDX-License-Identifier: MIT */
#include "tests/cuda_emu/fixture.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

fixture_driver_t cu;
CUcontext fixture_context;
CUmodule fixture_module;

static char *image;
static uint32_t random_state = 1;

static void check(CUresult result, const char *what)
{
    if (result == CUDA_SUCCESS)
        return;
    fprintf(stderr, "%s: %d; %s\n", what, (int)result, cu.fault != NULL ? cu.fault() : "");
    exit(1);
}

static void load_image(void)
{
    const char *path = getenv("FERRUM_TEST_CUDA_IMAGE");
    FILE *file = path == NULL ? NULL : fopen(path, "rb");
    const size_t limit = (size_t)16 << 20;

    image = calloc(1, limit);
    if (image == NULL)
        exit(1);
    strcpy(image, "EMU");
    if (file != NULL) {
        if (fread(image, 1, limit, file) == 0)
            exit(1);
        fclose(file);
    }
}

bool fixture_open(void)
{
    const char *path = getenv("FERRUM_CUDA_DRIVER");
    const char *build = getenv("FERRUM_TEST_BUILDDIR");
    char own[1024];
    void *library;

    if (path == NULL) {
        snprintf(own, sizeof own, "%s/tests/cuda_emu/.libs/libcuda-emu-test.so",
                 build == NULL ? "." : build);
        path = own;
    }
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return false;
    }
#define RESOLVE(name, symbol, parameters)                                                          \
    *(void **)(&cu.name) = dlsym(library, #symbol);                                                \
    if (cu.name == NULL) {                                                                         \
        fprintf(stderr, "%s lacks " #symbol "\n", path);                                           \
        return false;                                                                              \
    }
    FERRUM_CUDA_DRIVER_API(RESOLVE)
#undef RESOLVE
    *(void **)(&cu.reset) = dlsym(library, "ferrum_emu_reset");
    *(void **)(&cu.set) = dlsym(library, "ferrum_emu_set");
    *(void **)(&cu.fault) = dlsym(library, "ferrum_emu_fault");
    *(void **)(&cu.count) = dlsym(library, "ferrum_emu_count");
    load_image();
    return true;
}

void fixture_begin(void)
{
    if (cu.reset != NULL)
        cu.reset();
    check(cu.cuInit(0), "cuInit");
    check(cu.cuDevicePrimaryCtxRetain(&fixture_context, 0), "cuDevicePrimaryCtxRetain");
    check(cu.cuCtxSetCurrent(fixture_context), "cuCtxSetCurrent");
    check(cu.cuModuleLoadData(&fixture_module, image), "cuModuleLoadData");
}

void fixture_end(void)
{
    check(cu.cuCtxSynchronize(), "cuCtxSynchronize");
    if (cu.count != NULL && (cu.count("memory") != 0 || cu.count("streams") != 0 ||
                             cu.count("events") != 0 || cu.count("graphs") != 0)) {
        fprintf(stderr, "a test left memory, streams, events or graphs behind\n");
        exit(1);
    }
    check(cu.cuModuleUnload(fixture_module), "cuModuleUnload");
    check(cu.cuDevicePrimaryCtxRelease(0), "cuDevicePrimaryCtxRelease");
}

CUfunction fixture_kernel(const char *name)
{
    CUfunction function = NULL;

    check(cu.cuModuleGetFunction(&function, fixture_module, name), name);
    return function;
}

CUdeviceptr fixture_upload(const void *data, size_t bytes)
{
    CUdeviceptr address = 0;

    check(cu.cuMemAlloc(&address, bytes), "cuMemAlloc");
    check(cu.cuMemcpyHtoD(address, data, bytes), "cuMemcpyHtoD");
    return address;
}

void fixture_download(void *to, CUdeviceptr from, size_t bytes)
{
    check(cu.cuMemcpyDtoH(to, from, bytes), "cuMemcpyDtoH");
}

void fixture_free(CUdeviceptr address)
{
    check(cu.cuMemFree(address), "cuMemFree");
}

void fixture_launch(const char *name, uint32_t blocks, uint32_t threads, uint32_t shared_bytes,
                    void **params)
{
    check(cu.cuLaunchKernel(fixture_kernel(name), blocks, 1, 1, threads, 1, 1, shared_bytes, NULL,
                            params, NULL),
          name);
}

CUresult fixture_wait(void)
{
    return cu.cuCtxSynchronize();
}

uint32_t fixture_random(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

static double float_value(uint32_t bits, int exponent_bits, int fraction_bits)
{
    const uint32_t fraction = bits & ((1u << fraction_bits) - 1);
    const int exponent = (int)(bits >> fraction_bits & ((1u << exponent_bits) - 1));
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const double sign = bits >> (exponent_bits + fraction_bits) & 1u ? -1.0 : 1.0;

    if (exponent == (1 << exponent_bits) - 1)
        return fraction != 0 ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0)
        return sign * ldexp((double)fraction, 1 - bias - fraction_bits);
    return sign *
           ldexp((double)(fraction + (1u << fraction_bits)), exponent - bias - fraction_bits);
}

double fixture_f16_value(uint16_t bits)
{
    return float_value(bits, 5, 10);
}

double fixture_bf16_value(uint16_t bits)
{
    return float_value(bits, 8, 7);
}
