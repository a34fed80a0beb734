/* SPDX-License-Identifier: MIT */
/**
 * @file ops.h
 * @brief One opened device with its resolved tables: what host code passes around instead of
 *        looking anything up while a model runs.
 *
 * No pointer in it is NULL (the loader filled missing entries with stubs). It borrows everything
 * and owns nothing; the runtime that it came from must outlive it.
 */
#ifndef FERRUM_HOST_OPS_H
#define FERRUM_HOST_OPS_H

#include <ferrum/loader.h>

/** Resolved operations of one device. Immutable once filled. */
typedef struct ferrum_ops {
    ferrum_module_t *module;
    ferrum_device_t *device;
    const ferrum_backend_ops_t *backend;
    const ferrum_quant_llm_ops_t *quant;
    const ferrum_linear_ops_t *linear;
    const ferrum_stacked_experts_ops_t *stacked;
    const ferrum_marlin_stack_ops_t *marlin;
    const ferrum_moe_fused_ops_t *moe;
    ferrum_device_info_t info;     /**< of the device */
    const ferrum_logger_t *logger; /**< the host's */
    uint32_t load_trace;           /**< log the form that each layer's experts are loaded in */
    ferrum_precision_t precision;  /**< what expert_ffn objects are asked for by default */
} ferrum_ops_t;

/** Fill @p out_ops for @p device, which was opened by @p module. [any-thread] */
ferrum_status_t ferrum_ops_init(ferrum_module_t *module, ferrum_device_t *device,
                                ferrum_ops_t *out_ops, ferrum_error_t *err);

/** Whether the plugin (or the loader, by composing) provides `table.name`. Walks the list of
 *  operations: for loading and planning, not for the hot path. [any-thread] */
int ferrum_ops_has(const ferrum_ops_t *ops, const char *table, const char *name);

/** Log one formatted line at @p level if the logger wants it. [any-thread] */
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
void ferrum_ops_log(const ferrum_ops_t *ops, ferrum_log_level_t level, const char *fmt, ...);

#endif /* FERRUM_HOST_OPS_H */
