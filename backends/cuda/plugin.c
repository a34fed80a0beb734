/* SPDX-License-Identifier: MIT */
/* The exported query, the probe, and the tables. */
#include "backends/cuda/check.h"
#include "backends/cuda/entries.h"
#include "backends/cuda/limits.h"

#include <ferrum/plugin.h>

#include <string.h>

#define FILL_ENTRY(ops, prefix, entry) .entry = ferrum_cuda_##prefix##entry,

static const ferrum_backend_ops_t backend_ops = {.head = FERRUM_HEAD(ferrum_backend_ops_t),
                                                 FERRUM_BACKEND_ENTRIES(FILL_ENTRY)};

static const ferrum_linear_ops_t linear_ops = {.head = FERRUM_HEAD(ferrum_linear_ops_t),
                                               FERRUM_LINEAR_ENTRIES(FILL_ENTRY)};

static const ferrum_stacked_experts_ops_t stacked_experts_ops = {
    .head = FERRUM_HEAD(ferrum_stacked_experts_ops_t), FERRUM_STACKED_EXPERTS_ENTRIES(FILL_ENTRY)};

static const ferrum_marlin_stack_ops_t marlin_stack_ops = {
    .head = FERRUM_HEAD(ferrum_marlin_stack_ops_t), FERRUM_MARLIN_STACK_ENTRIES(FILL_ENTRY)};

static const ferrum_moe_fused_ops_t moe_fused_ops = {.head = FERRUM_HEAD(ferrum_moe_fused_ops_t),
                                                     .supports = ferrum_cuda_supports,
                                                     FERRUM_MOE_FUSED_ENTRIES(FILL_ENTRY)};

static const ferrum_quant_llm_ops_t quant_llm_ops = {.head = FERRUM_HEAD(ferrum_quant_llm_ops_t),
                                                     .linear = &linear_ops,
                                                     .stacked_experts = &stacked_experts_ops,
                                                     .marlin_stack = &marlin_stack_ops,
                                                     FERRUM_QUANT_LLM_ENTRIES(FILL_ENTRY)};

static const ferrum_limits_ops_t limits_ops = {.head = FERRUM_HEAD(ferrum_limits_ops_t),
                                               .measure = ferrum_cuda_limits_measure};

enum {
    SCORE = 1000 /* any GPU is preferred to the widest CPU kernels */
};

static ferrum_status_t describe(const ferrum_cuda_driver_t *driver, ferrum_probe_t *result,
                                ferrum_error_t *err)
{
    char name[80] = "";
    CUdevice device;
    int count = 0;

    FERRUM_TRY(ferrum_cuda_result_check(driver->cuDeviceGetCount(&count), "cuDeviceGetCount", err));
    FERRUM_TRY(ferrum_cuda_result_check(driver->cuDeviceGet(&device, 0), "cuDeviceGet", err));
    FERRUM_TRY(ferrum_cuda_result_check(driver->cuDeviceGetName(name, sizeof name - 1, device),
                                        "cuDeviceGetName", err));
    result->score = SCORE;
    result->device_count = (uint32_t)count;
    (void)snprintf(result->summary, sizeof result->summary, "%s%s, driver for CUDA %d.%d", name,
                   count > 1 ? " and others" : "", driver->version / 1000,
                   driver->version % 1000 / 10);
    return FERRUM_OK;
}

static ferrum_status_t probe(const ferrum_host_t *host, ferrum_probe_t *out_probe,
                             ferrum_error_t *err)
{
    ferrum_probe_t result = {.head = FERRUM_HEAD(ferrum_probe_t)};
    ferrum_cuda_driver_t driver;

    FERRUM_TRY(ferrum_cuda_driver_open(host, &driver, err));
    const ferrum_status_t status = describe(&driver, &result, err);
    ferrum_cuda_driver_close(&driver);
    FERRUM_TRY(status);
    return ferrum_fill_struct(__func__, out_probe, FERRUM_PROBE_MIN_SIZE, &result, err);
}

static const void *get_interface(const char *id, uint32_t min_version)
{
    static const struct {
        const char *id;
        const void *table;
    } interfaces[] = {
        {FERRUM_INTERFACE_BACKEND, &backend_ops},
        {FERRUM_INTERFACE_QUANT_LLM, &quant_llm_ops},
        {FERRUM_INTERFACE_MOE_FUSED, &moe_fused_ops},
        {FERRUM_INTERFACE_LIMITS, &limits_ops},
    };

    if (!id || min_version > FERRUM_ABI_MINOR)
        return NULL;
    for (size_t i = 0; i < sizeof interfaces / sizeof interfaces[0]; i++)
        if (strcmp(interfaces[i].id, id) == 0)
            return interfaces[i].table;
    return NULL;
}

ferrum_status_t ferrum_plugin_query_v1(const ferrum_host_t *host, ferrum_plugin_t *out_plugin)
{
    static const ferrum_plugin_t plugin = {
        .head = FERRUM_HEAD(ferrum_plugin_t),
        .abi_minor = FERRUM_ABI_MINOR,
        .abi_minor_min = 0,
        .name = "cuda",
        .version = FERRUM_CUDA_VERSION,
        .description = "Quantised MoE on NVIDIA GPUs",
        .license = "MIT",
        .flags = FERRUM_PLUGIN_PINNED, /* the driver keeps threads and handlers of its own */
        .probe = probe,
        .get_interface = get_interface,
    };

    if (!host || !out_plugin)
        return FERRUM_INVALID_ARGUMENT;
    if (host->head.size < FERRUM_HOST_MIN_SIZE || host->abi_minor_min > plugin.abi_minor ||
        host->abi_minor < plugin.abi_minor_min)
        return FERRUM_VERSION_MISMATCH;
    return ferrum_fill_struct(__func__, out_plugin, FERRUM_PLUGIN_MIN_SIZE, &plugin, NULL) ==
                   FERRUM_OK
               ? FERRUM_OK
               : FERRUM_VERSION_MISMATCH;
}
