/* SPDX-License-Identifier: MIT */
/* The exported query, the probe, and the tables. */
#include "backends/cpu/device.h"
#include "backends/cpu/entries.h"

#include <ferrum/plugin.h>

#include <string.h>

#define FILL_ENTRY(ops, prefix, entry) .entry = ferrum_cpu_##prefix##entry,

const ferrum_backend_ops_t ferrum_cpu_backend_ops = {.head = FERRUM_HEAD(ferrum_backend_ops_t),
                                                     FERRUM_BACKEND_ENTRIES(FILL_ENTRY)};

static const ferrum_linear_ops_t linear_ops = {.head = FERRUM_HEAD(ferrum_linear_ops_t),
                                               FERRUM_LINEAR_ENTRIES(FILL_ENTRY)};

static const ferrum_stacked_experts_ops_t stacked_experts_ops = {
    .head = FERRUM_HEAD(ferrum_stacked_experts_ops_t), FERRUM_STACKED_EXPERTS_ENTRIES(FILL_ENTRY)};

static const ferrum_marlin_stack_ops_t marlin_stack_ops = {
    .head = FERRUM_HEAD(ferrum_marlin_stack_ops_t), FERRUM_MARLIN_STACK_ENTRIES(FILL_ENTRY)};

const ferrum_quant_llm_ops_t ferrum_cpu_quant_llm_ops = {.head =
                                                             FERRUM_HEAD(ferrum_quant_llm_ops_t),
                                                         .linear = &linear_ops,
                                                         .stacked_experts = &stacked_experts_ops,
                                                         .marlin_stack = &marlin_stack_ops,
                                                         FERRUM_QUANT_LLM_ENTRIES(FILL_ENTRY)};

const ferrum_moe_fused_ops_t ferrum_cpu_moe_fused_ops = {.head =
                                                             FERRUM_HEAD(ferrum_moe_fused_ops_t),
                                                         .supports = ferrum_cpu_supports,
                                                         FERRUM_MOE_FUSED_ENTRIES(FILL_ENTRY)};

static ferrum_status_t probe(const ferrum_host_t *host, ferrum_probe_t *out_probe,
                             ferrum_error_t *err)
{
    ferrum_probe_t result = {.head = FERRUM_HEAD(ferrum_probe_t), .device_count = 1};
    uint32_t features;
    size_t rank = 0;

    FERRUM_TRY(ferrum_cpu_select_features(host, &features, err));
    const ferrum_kernel_set_t *set = ferrum_kernel_select(features);
    while (ferrum_kernel_sets[rank] != set)
        rank++;
    result.score = (int32_t)(10 * (ferrum_kernel_set_count - rank));
    (void)snprintf(result.summary, sizeof result.summary, "%s kernels", set->name);
    return ferrum_fill_struct(__func__, out_probe, FERRUM_PROBE_MIN_SIZE, &result, err);
}

static const void *get_interface(const char *id, uint32_t min_version)
{
    static const struct {
        const char *id;
        const void *table;
    } interfaces[] = {
        {FERRUM_INTERFACE_BACKEND, &ferrum_cpu_backend_ops},
        {FERRUM_INTERFACE_QUANT_LLM, &ferrum_cpu_quant_llm_ops},
        {FERRUM_INTERFACE_MOE_FUSED, &ferrum_cpu_moe_fused_ops},
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
        .name = "cpu",
        .version = FERRUM_CPU_VERSION,
        .description = "Quantised MoE on the host processor",
        .license = "MIT",
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
