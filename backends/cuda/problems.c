/* SPDX-License-Identifier: MIT */
#include "backends/cuda/problems.h"

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

ferrum_status_t ferrum_cuda_check_activation_kind(ferrum_activation_kind_t kind,
                                                  ferrum_error_t *err)
{
    if (kind <= FERRUM_ACTIVATION_GELU_MUL)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_ACTIVATION,
                       "the cuda backend does not know activation %u", kind);
}

/** A matrix of @p format with @p k inputs and @p n outputs. */
static ferrum_status_t check_matrix(const ferrum_problem_t *problem, ferrum_weight_format_t format,
                                    uint32_t k, uint32_t n, ferrum_error_t *err)
{
    if (format == FERRUM_FORMAT_GPTQ)
        return ferrum_cuda_check_gptq_problem(problem->bits, problem->group_size, k, n,
                                              problem->asymmetric != 0, err);
    return ferrum_cuda_check_block_problem(format, k, err);
}

static ferrum_status_t check_stack(const ferrum_problem_t *problem, ferrum_error_t *err)
{
    const bool marlin = problem->kind == FERRUM_PROBLEM_MARLIN_STACK;

    /* Format 0 is f32, and "not relevant" in a problem that can only be GPTQ. */
    if (marlin && problem->format == 0)
        return check_matrix(problem, FERRUM_FORMAT_GPTQ, problem->k, problem->n, err);
    if (marlin != (problem->format == FERRUM_FORMAT_GPTQ))
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_FORMAT,
                           "weight format %u does not go into this kind of stack: GPTQ goes into a "
                           "Marlin stack, blocks into stacked experts",
                           problem->format);
    return check_matrix(problem, problem->format, problem->k, problem->n, err);
}

static ferrum_status_t check_top_k(const ferrum_problem_t *problem, ferrum_error_t *err)
{
    if (problem->experts == 0 || problem->top_k <= problem->experts)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_TOP_K, "top_k %u exceeds %u experts",
                       problem->top_k, problem->experts);
}

static ferrum_status_t check_ffn(const ferrum_problem_t *problem, ferrum_error_t *err)
{
    FERRUM_TRY(check_matrix(problem, problem->format, problem->k, problem->n, err));
    FERRUM_TRY(check_matrix(problem, problem->format_down, problem->n, problem->k, err));
    FERRUM_TRY(ferrum_cuda_check_plan_experts(problem->experts, err));
    FERRUM_TRY(ferrum_cuda_check_activation_kind(problem->activation, err));
    if (problem->precision > FERRUM_PRECISION_FAST)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_PRECISION, "unknown precision %u",
                           problem->precision);
    return FERRUM_OK;
}

static ferrum_status_t check_route(const ferrum_problem_t *problem, ferrum_error_t *err)
{
    FERRUM_TRY(check_top_k(problem, err));
    if (problem->score_function > FERRUM_SCORE_SIGMOID)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_ROUTING,
                           "the cuda backend does not know score function %u",
                           problem->score_function);
    FERRUM_TRY(ferrum_cuda_check_route_experts(problem->experts, err));
    if (problem->num_groups > 1 && problem->experts % problem->num_groups != 0)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_ROUTING,
                           "%u experts do not divide into %u groups", problem->experts,
                           problem->num_groups);
    return FERRUM_OK;
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
        FERRUM_TRY(check_top_k(problem, err));
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
