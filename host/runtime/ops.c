/* SPDX-License-Identifier: MIT */
#include "host/runtime/ops.h"

#include <ferrum/util.h>

#include <stdarg.h>
#include <stdio.h>

ferrum_status_t ferrum_ops_init(ferrum_module_t *module, ferrum_device_t *device,
                                ferrum_ops_t *out_ops, ferrum_error_t *err)
{
    const ferrum_quant_llm_ops_t *quant = ferrum_module_quant_llm(module);
    ferrum_ops_t ops = {.module = module,
                        .device = device,
                        .backend = ferrum_module_backend(module),
                        .quant = quant,
                        .linear = quant->linear,
                        .stacked = quant->stacked_experts,
                        .marlin = quant->marlin_stack,
                        .moe = ferrum_module_moe_fused(module),
                        .logger = ferrum_module_host(module)->logger};
    ops.info.head = (ferrum_head_t)FERRUM_HEAD(ferrum_device_info_t);
    FERRUM_TRY(ops.backend->device_info(device, &ops.info, err));
    *out_ops = ops;
    return FERRUM_OK;
}

int ferrum_ops_has(const ferrum_ops_t *ops, const char *table, const char *name)
{
    return ferrum_module_op_resolution(ops->module, table, name) != FERRUM_RESOLVED_STUB;
}

void ferrum_ops_log(const ferrum_ops_t *ops, ferrum_log_level_t level, const char *fmt, ...)
{
    const ferrum_logger_t *logger = ops->logger;
    if (!logger || !logger->log || level > logger->level)
        return;
    char line[512];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    logger->log(logger->self, level, line);
}
