/* SPDX-License-Identifier: MIT */
/* The driver: modules, functions and launches. Kernels are the ones linked into this library. */
#include "tests/cuda_emu/driver.h"

#include <stdlib.h>
#include <string.h>

static ferrum_emu_kernel_t *kernels;
static bool duplicate;

void ferrum_emu_register(ferrum_emu_kernel_t *kernel)
{
    duplicate = duplicate || emu_kernel_find(kernel->name) != NULL;
    kernel->next = kernels;
    kernels = kernel;
}

ferrum_emu_kernel_t *emu_kernel_find(const char *name)
{
    for (ferrum_emu_kernel_t *k = kernels; k != NULL; k = k->next) {
        if (strcmp(k->name, name) == 0)
            return k;
    }
    return NULL;
}

void emu_kernels_reset(void)
{
    for (ferrum_emu_kernel_t *k = kernels; k != NULL; k = k->next)
        k->runs = 0;
}

/* A fat binary, bare or wrapped, an ELF file, PTX, or the tag of a build for the emulator only. */
static bool is_image(const void *image)
{
    static const uint32_t magics[] = {0xba55ed50u, 0x466243b1u, 0x464c457fu};
    uint32_t magic;

    memcpy(&magic, image, sizeof magic);
    for (size_t i = 0; i < sizeof magics / sizeof magics[0]; i++) {
        if (magic == magics[i])
            return true;
    }
    return memcmp(image, "EMU", 4) == 0 || memcmp(image, "//", 2) == 0;
}

static CUresult load(CUmodule *out_module, const void *image)
{
    const CUresult unsafe = emu_unsafe_during_capture();
    CUcontext context = emu_context();
    CUmodule module;

    if (unsafe != CUDA_SUCCESS)
        return unsafe;
    if (image == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (!is_image(image))
        return CUDA_ERROR_INVALID_IMAGE;
    if (duplicate) {
        emu_report("two kernels have the same name");
        return CUDA_ERROR_INVALID_IMAGE;
    }
    module = calloc(1, sizeof *module);
    if (module == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    module->context = context;
    module->next = context->modules;
    context->modules = module;
    *out_module = module;
    return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule *out_module, const void *image)
{
    EMU_ENTER(cuModuleLoadData);
    return emu_leave(load(out_module, image));
}

CUresult cuModuleLoadDataEx(CUmodule *out_module, const void *image, unsigned int options,
                            CUjit_option *names, void **values)
{
    EMU_ENTER(cuModuleLoadDataEx);
    (void)options;
    (void)names;
    (void)values;
    return emu_leave(load(out_module, image));
}

static CUmodule *find_module(CUmodule module)
{
    CUmodule *p = &emu_context()->modules;

    while (*p != NULL && *p != module)
        p = &(*p)->next;
    return p;
}

CUresult cuModuleUnload(CUmodule module)
{
    CUmodule *p;

    EMU_ENTER(cuModuleUnload);
    p = find_module(module);
    if (*p == NULL)
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    emu_drain_context(emu_context());
    *p = module->next;
    while (module->functions != NULL) {
        CUfunction function = module->functions;

        module->functions = function->next;
        free(function);
    }
    free(module);
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuModuleGetFunction(CUfunction *out_function, CUmodule module, const char *name)
{
    ferrum_emu_kernel_t *kernel;
    CUfunction function;

    EMU_ENTER(cuModuleGetFunction);
    if (*find_module(module) == NULL)
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    for (function = module->functions; function != NULL; function = function->next) {
        if (strcmp(function->kernel->name, name) == 0) {
            *out_function = function;
            return emu_leave(CUDA_SUCCESS);
        }
    }
    kernel = emu_kernel_find(name);
    if (kernel == NULL || (kernel->capability != 0 && kernel->capability != emu_options.sm))
        return emu_leave(CUDA_ERROR_NOT_FOUND);
    function = calloc(1, sizeof *function);
    if (function == NULL)
        return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
    function->kernel = kernel;
    function->max_dynamic_bytes = 48 * 1024;
    function->next = module->functions;
    module->functions = function;
    *out_function = function;
    return emu_leave(CUDA_SUCCESS);
}

static bool is_function(CUfunction function)
{
    for (CUmodule m = emu_context()->modules; m != NULL; m = m->next) {
        for (CUfunction f = m->functions; f != NULL; f = f->next) {
            if (f == function)
                return true;
        }
    }
    return false;
}

CUresult cuFuncGetAttribute(int *out_value, CUfunction_attribute attribute, CUfunction function)
{
    CUresult result = CUDA_SUCCESS;

    EMU_ENTER(cuFuncGetAttribute);
    if (!is_function(function))
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
        *out_value = (int)function->kernel->max_threads;
        break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
        *out_value = function->max_dynamic_bytes;
        break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
        *out_value = 32;
        break;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
        *out_value = 0;
        break;
    default:
        result = CUDA_ERROR_INVALID_VALUE;
    }
    return emu_leave(result);
}

static int most_shared_bytes(void)
{
    return emu_options.sm == 80 ? 163 * 1024 : emu_options.sm == 90 ? 227 * 1024 : 99 * 1024;
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value)
{
    EMU_ENTER(cuFuncSetAttribute);
    if (!is_function(function))
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    if (attribute == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT)
        return emu_leave(CUDA_SUCCESS);
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || value < 0 ||
        value > most_shared_bytes())
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    function->max_dynamic_bytes = value;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *out_blocks, CUfunction function,
                                                     int threads, size_t shared_bytes)
{
    int blocks;

    EMU_ENTER(cuOccupancyMaxActiveBlocksPerMultiprocessor);
    if (!is_function(function) || threads <= 0 || threads > 1024)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    blocks = 2048 / threads;
    if (shared_bytes > 0 && (size_t)most_shared_bytes() / shared_bytes < (size_t)blocks)
        blocks = (int)((size_t)most_shared_bytes() / shared_bytes);
    *out_blocks = blocks;
    return emu_leave(CUDA_SUCCESS);
}

static CUresult check_launch(CUfunction function, const uint32_t grid[3], const uint32_t block[3],
                             uint32_t shared_bytes)
{
    const uint64_t threads = (uint64_t)block[0] * block[1] * block[2];

    for (int i = 0; i < 3; i++) {
        if (grid[i] == 0 || block[i] == 0 || grid[i] > (i == 0 ? 0x7fffffffu : 65535u))
            return CUDA_ERROR_INVALID_VALUE;
    }
    if (block[0] > 1024 || block[1] > 1024 || block[2] > 64 || threads > EMU_MAX_THREADS)
        return CUDA_ERROR_INVALID_VALUE;
    if (threads > function->kernel->max_threads)
        return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
    if (shared_bytes > (uint32_t)function->max_dynamic_bytes)
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

/* The values of the parameters, as they are now, in one piece of memory. */
static void copy_params(emu_op_t *op, void **params)
{
    const ferrum_emu_kernel_t *kernel = op->launch.kernel;
    size_t total = 16;
    char *data;

    for (size_t i = 0; i < kernel->param_count; i++)
        total += (kernel->param_sizes[i] + 15) / 16 * 16;
    data = calloc(1, total);
    op->params = calloc(kernel->param_count + 1, sizeof *op->params);
    if (data == NULL || op->params == NULL)
        abort();
    op->params[0] = data;
    for (size_t i = 0; i < kernel->param_count; i++) {
        op->params[i] = data;
        memcpy(data, params[i], kernel->param_sizes[i]);
        data += (kernel->param_sizes[i] + 15) / 16 * 16;
    }
}

CUresult cuLaunchKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y,
                        unsigned int grid_z, unsigned int block_x, unsigned int block_y,
                        unsigned int block_z, unsigned int shared_bytes, CUstream stream,
                        void **params, void **extra)
{
    const uint32_t grid[3] = {grid_x, grid_y, grid_z}, block[3] = {block_x, block_y, block_z};
    CUstream s;
    CUresult result;
    emu_op_t *op;

    EMU_ENTER(cuLaunchKernel);
    s = emu_stream(stream);
    if (s == NULL || !is_function(function))
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    result = check_launch(function, grid, block, shared_bytes);
    if (result != CUDA_SUCCESS)
        return emu_leave(result);
    if (extra != NULL || (params == NULL && function->kernel->param_count > 0))
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    op = emu_op_create(EMU_OP_KERNEL);
    op->launch.kernel = function->kernel;
    memcpy(op->launch.grid, grid, sizeof grid);
    memcpy(op->launch.block, block, sizeof block);
    op->launch.shared_bytes = shared_bytes;
    copy_params(op, params);
    return emu_leave(emu_submit(s, op));
}
