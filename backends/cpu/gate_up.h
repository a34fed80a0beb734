/* SPDX-License-Identifier: MIT */
/**
 * @file gate_up.h
 * @brief The first half of an FFN: gate and up products of a tile, then the activation, in one go.
 */
#ifndef FERRUM_CPU_GATE_UP_H
#define FERRUM_CPU_GATE_UP_H

#include "backends/cpu/activation.h"
#include "backends/cpu/grouped.h"

/** Both products. Output rows are those of @c gate; @c up reads the same input rows. */
typedef struct ferrum_cpu_gate_up {
    ferrum_cpu_product_t gate;
    ferrum_cpu_product_t up;
    ferrum_activation_t activation;
    bool gathers; /**< the gather phase, with a barrier after it, is needed */
} ferrum_cpu_gate_up_t;

/** As ferrum_cpu_product_init; both weights have the same n and k. @c activation is set before. */
ferrum_status_t ferrum_cpu_gate_up_init(ferrum_context_t *ctx, ferrum_cpu_gate_up_t *job,
                                        const ferrum_cpu_weights_t *gate,
                                        const ferrum_cpu_weights_t *up,
                                        ferrum_cpu_bucket_t *buckets, uint32_t count,
                                        ferrum_cpu_rows_t x, ferrum_cpu_rows_t y, uint64_t capacity,
                                        ferrum_error_t *err);

/** Inside a region, by all threads: gather, barrier, all tiles. */
void ferrum_cpu_gate_up_phases(const ferrum_context_t *ctx, ferrum_cpu_gate_up_t *job,
                               uint32_t thread);

/** A whole region. */
void ferrum_cpu_gate_up_run(ferrum_context_t *ctx, ferrum_cpu_gate_up_t *job);

#endif /* FERRUM_CPU_GATE_UP_H */
