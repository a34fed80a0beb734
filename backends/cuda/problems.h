/* SPDX-License-Identifier: MIT */
/**
 * @file problems.h
 * @brief Which problems over quantised weights and routed experts this backend takes; loaders and
 * ops refuse through the same checks.
 */
#ifndef FERRUM_CUDA_PROBLEMS_H
#define FERRUM_CUDA_PROBLEMS_H

#include "backends/cuda/weights.h"

#include <ferrum/moe_fused.h>

/** The answer of `supports` for all kinds but attention and graphs. */
ferrum_status_t ferrum_cuda_check_moe_problem(const ferrum_problem_t *problem, ferrum_error_t *err);
/** A row's scores fit into shared memory. */
ferrum_status_t ferrum_cuda_check_route_experts(uint32_t experts, ferrum_error_t *err);
/** A count per expert fits into shared memory. */
ferrum_status_t ferrum_cuda_check_plan_experts(uint32_t experts, ferrum_error_t *err);

#endif /* FERRUM_CUDA_PROBLEMS_H */
