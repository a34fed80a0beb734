/* SPDX-License-Identifier: MIT */
/**
 * @file limits.h
 * @brief What a device reaches at best, measured when asked: the figures that a benchmark puts its
 * own beside.
 *
 * An optional interface: get_interface(FERRUM_INTERFACE_LIMITS, 0) gives the table, or NULL. The
 * loader does not look at it; a host asks the plugin itself. Nothing but benchmarks needs it.
 */
#ifndef FERRUM_LIMITS_H
#define FERRUM_LIMITS_H

#include <ferrum/backend.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Interface id for ferrum_plugin_t.get_interface. */
#define FERRUM_INTERFACE_LIMITS "ferrum.limits/1"

/** Rates of one device. */
typedef struct ferrum_limits {
    ferrum_head_t head;
    uint64_t read_bytes; /**< what was read for read_gbps, far more than the caches hold */
    double read_gbps;    /**< streaming read of device memory, 1e9 bytes per second */
    double act_gops;     /**< 1e9 multiplies and adds per second of the matrix units that the
                              backend's kernels use, activations' dtype into f32 */
    double int8_gops;    /**< the same for int8 into int32 */
} ferrum_limits_t;

/** Frozen least size of ferrum_limits_t. */
#define FERRUM_LIMITS_MIN_SIZE 40u

/** The table. */
typedef struct ferrum_limits_ops {
    ferrum_head_t head;
    /**
     * Measure, in about half a second. The head of @p out_limits is set by the caller. Allocates
     * device memory and frees it before it returns; waits.
     * Errors: BUSY (a capture is in flight), OUT_OF_MEMORY. [one-per-context] Since 1.0.
     */
    ferrum_status_t (*measure)(ferrum_context_t *ctx, ferrum_limits_t *out_limits,
                               ferrum_error_t *err);
} ferrum_limits_ops_t;

/** Frozen least size of ferrum_limits_ops_t. */
#define FERRUM_LIMITS_OPS_MIN_SIZE 16u

#ifdef __cplusplus
}
#endif

#endif /* FERRUM_LIMITS_H */
