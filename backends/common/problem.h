/* SPDX-License-Identifier: MIT */
/**
 * @file problem.h
 * @brief What `supports` of every backend refuses alike.
 */
#ifndef FERRUM_BACKENDS_COMMON_PROBLEM_H
#define FERRUM_BACKENDS_COMMON_PROBLEM_H

#include <ferrum/quant_llm.h>

/** No more experts per token than there are. */
ferrum_status_t ferrum_check_top_k(const ferrum_problem_t *problem, ferrum_error_t *err);
/** A routing problem: top_k, score function, groups. */
ferrum_status_t ferrum_check_route(const ferrum_problem_t *problem, ferrum_error_t *err);
/** A stack of experts: the format that its matrices have, which its kind allows. */
ferrum_status_t ferrum_check_stack_format(const ferrum_problem_t *problem,
                                          ferrum_weight_format_t *out_format, ferrum_error_t *err);

#endif /* FERRUM_BACKENDS_COMMON_PROBLEM_H */
