/* SPDX-License-Identifier: MIT */
/**
 * @file activation.h
 * @brief What stands between gate/up and down, element by element; see ferrum_activation_kind_t.
 */
#ifndef FERRUM_CPU_ACTIVATION_H
#define FERRUM_CPU_ACTIVATION_H

#include "backends/cpu/objects.h"

#include <ferrum/moe_fused.h>

/** out = act(gate, up) over @p n elements; out may be gate or up. */
void ferrum_cpu_activate(const ferrum_vector_ops_t *vector, const ferrum_activation_t *activation,
                         const float *gate, const float *up, float *out, size_t n);

#endif /* FERRUM_CPU_ACTIVATION_H */
