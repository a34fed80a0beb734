/* SPDX-License-Identifier: MIT */
#include "backends/cuda/problems.h"
#include "backends/common/ffn.h"
#include "backends/common/gptq.h"
#include "backends/common/problem.h"

enum {
    MOST_ROUTED_EXPERTS = 4096, /* three floats each fit into 48 KiB of shared memory */
    MOST_PLANNED_EXPERTS = 8192 /* and so does a count each */
};

ferrum_status_t ferrum_cuda_check_route_experts(uint32_t experts, ferrum_error_t *err)
{
    if (experts <= MOST_ROUTED_EXPERTS)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_EXPERTS,
                       "the cuda backend routes among at most %d experts, not %u",
                       MOST_ROUTED_EXPERTS, experts);
}

ferrum_status_t ferrum_cuda_check_plan_experts(uint32_t experts, ferrum_error_t *err)
{
    if (experts <= MOST_PLANNED_EXPERTS)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_EXPERTS,
                       "the cuda backend groups pairs by at most %d experts, not %u",
                       MOST_PLANNED_EXPERTS, experts);
}

/** A matrix of @p format with @p k inputs and @p n outputs. */
static ferrum_status_t check_matrix(const ferrum_problem_t *problem, ferrum_weight_format_t format,
                                    uint32_t k, uint32_t n, ferrum_error_t *err)
{
    if (format == FERRUM_FORMAT_GPTQ)
        return ferrum_check_gptq_problem(problem->bits, problem->group_size, k, n,
                                         problem->asymmetric != 0, err);
    return ferrum_cuda_check_block_problem(format, k, err);
}

static ferrum_status_t check_stack(const ferrum_problem_t *problem, ferrum_error_t *err)
{
    ferrum_weight_format_t format;

    FERRUM_TRY(ferrum_check_stack_format(problem, &format, err));
    return check_matrix(problem, format, problem->k, problem->n, err);
}

static ferrum_status_t check_ffn(const ferrum_problem_t *problem, ferrum_error_t *err)
{
    FERRUM_TRY(check_matrix(problem, problem->format, problem->k, problem->n, err));
    FERRUM_TRY(check_matrix(problem, problem->format_down, problem->n, problem->k, err));
    FERRUM_TRY(ferrum_cuda_check_plan_experts(problem->experts, err));
    FERRUM_TRY(ferrum_check_activation_kind(problem->activation, err));
    if (problem->precision > FERRUM_PRECISION_FAST)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_PRECISION, "unknown precision %u",
                           problem->precision);
    return FERRUM_OK;
}

static ferrum_status_t check_route(const ferrum_problem_t *problem, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_check_route(problem, err));
    return ferrum_cuda_check_route_experts(problem->experts, err);
}

ferrum_status_t ferrum_cuda_check_moe_problem(const ferrum_problem_t *problem, ferrum_error_t *err)
{
    switch (problem->kind) {
    case FERRUM_PROBLEM_LINEAR:
        return check_matrix(problem, problem->format, problem->k, problem->n, err);
    case FERRUM_PROBLEM_STACKED_EXPERTS:
    case FERRUM_PROBLEM_MARLIN_STACK:
        return check_stack(problem, err);
    case FERRUM_PROBLEM_EXPERT_FFN:
        FERRUM_TRY(ferrum_check_top_k(problem, err));
        return check_ffn(problem, err);
    case FERRUM_PROBLEM_ROUTE:
        return check_route(problem, err);
    case FERRUM_PROBLEM_ALIGN:
        return ferrum_cuda_check_plan_experts(problem->experts, err);
    default:
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_OTHER,
                           "the cuda backend does not know problem kind %u", problem->kind);
    }
}
