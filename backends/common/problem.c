/* SPDX-License-Identifier: MIT */
#include "backends/common/problem.h"

#include <ferrum/moe_fused.h>
#include <ferrum/util.h>

#include <stdbool.h>

ferrum_status_t ferrum_check_top_k(const ferrum_problem_t *problem, ferrum_error_t *err)
{
    if (problem->experts == 0 || problem->top_k <= problem->experts)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_TOP_K, "top_k %u exceeds %u experts",
                       problem->top_k, problem->experts);
}

ferrum_status_t ferrum_check_route(const ferrum_problem_t *problem, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_check_top_k(problem, err));
    if (problem->score_function > FERRUM_SCORE_SIGMOID)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_ROUTING,
                           "score function %u is not known here", problem->score_function);
    if (problem->num_groups > 1 && problem->experts % problem->num_groups != 0)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_ROUTING,
                           "%u experts do not divide into %u groups", problem->experts,
                           problem->num_groups);
    return FERRUM_OK;
}

ferrum_status_t ferrum_check_stack_format(const ferrum_problem_t *problem,
                                          ferrum_weight_format_t *out_format, ferrum_error_t *err)
{
    const bool marlin = problem->kind == FERRUM_PROBLEM_MARLIN_STACK;
    /* Format 0 is f32, and "not relevant" in a problem that can only be GPTQ. */
    const ferrum_weight_format_t format =
        marlin && problem->format == 0 ? FERRUM_FORMAT_GPTQ : problem->format;

    if (marlin != (format == FERRUM_FORMAT_GPTQ))
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_FORMAT,
                           "weight format %u does not go into this kind of stack: GPTQ goes into a "
                           "Marlin stack, blocks into stacked experts",
                           format);
    *out_format = format;
    return FERRUM_OK;
}
