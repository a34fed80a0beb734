/* SPDX-License-Identifier: MIT */
/**
 * @file generation.h
 * @brief One opened plugin file with its device: what a runtime serves with, and what a swap
 *        exchanges.
 */
#ifndef FERRUM_HOST_GENERATION_H
#define FERRUM_HOST_GENERATION_H

#include "host/moe/moe_env.h"
#include "host/runtime/ops.h"

/** Immutable once opened. */
typedef struct ferrum_generation {
    uint64_t number; /**< 1 for the one that a runtime opens with */
    ferrum_module_t *module;
    ferrum_device_t *device;
    ferrum_ops_t ops;
} ferrum_generation_t;

/**
 * Select a plugin and open its device. [any-thread]
 * Errors: those of ferrum_loader_select and device_open; UNSUPPORTED for a backend that takes no
 * weight format at all.
 */
ferrum_status_t ferrum_generation_open(ferrum_loader_t *loader, const char *spec,
                                       const ferrum_moe_env_t *env, uint64_t number,
                                       ferrum_generation_t **out_generation, ferrum_error_t *err);
/**
 * Close the device and unload the plugin; everything that the host made on it has been released.
 * NULL is ignored.
 * @param timeout_ms longest wait for host memory that others still hold
 * @param out_held   non-zero: another reference keeps the module; the report is then empty. May be
 *                   NULL
 */
void ferrum_generation_close(ferrum_generation_t *generation, uint32_t timeout_ms,
                             ferrum_unload_report_t *out_report, int *out_held);

#endif /* FERRUM_HOST_GENERATION_H */
