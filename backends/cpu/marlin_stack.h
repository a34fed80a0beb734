/* SPDX-License-Identifier: MIT */
/**
 * @file marlin_stack.h
 * @brief MarlinExpertStack: the GPTQ matrices of one role of one layer.
 */
#ifndef FERRUM_CPU_MARLIN_STACK_H
#define FERRUM_CPU_MARLIN_STACK_H

#include "backends/cpu/entries.h"
#include "backends/cpu/matrix.h"

struct ferrum_marlin_stack {
    atomic_uint refs;
    ferrum_device_t *device;
    ferrum_cpu_weights_t weights;
};

#endif /* FERRUM_CPU_MARLIN_STACK_H */
