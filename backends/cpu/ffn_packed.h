/* SPDX-License-Identifier: MIT */
/**
 * @file ffn_packed.h
 * @brief The expert FFN over packed weights: one region, two phases.
 *
 *     quantise each row of x once                                   | barrier
 *     gate and up of a block, activation on the tile in cache;
 *       who finishes a block quantises its activated rows           | barrier
 *     down; the weighted sum in slot order, by whoever has all of a
 *       run of outputs, or after one more barrier
 *
 * See ffn_plan.h for the units of work. Gate and up panels alternate in memory where both have the
 * same form, so a thread reads one stream; each thread asks for the first bytes of its next unit
 * before it ends the present one.
 */
#ifndef FERRUM_CPU_FFN_PACKED_H
#define FERRUM_CPU_FFN_PACKED_H

#include "backends/cpu/expert_ffn.h"

/** Whether all three roles are packed, with one precision. */
bool ferrum_cpu_ffn_is_packed(const ferrum_expert_ffn_t *ffn);

/** Run checked @p args. Errors: OUT_OF_MEMORY. */
ferrum_status_t ferrum_cpu_ffn_packed_forward(ferrum_context_t *ctx, const ferrum_expert_ffn_t *ffn,
                                              const ferrum_expert_ffn_args_t *args,
                                              ferrum_error_t *err);

#endif /* FERRUM_CPU_FFN_PACKED_H */
