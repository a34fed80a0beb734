/* SPDX-License-Identifier: MIT */
/* Questions about problems. Loaders and ops refuse through the same checks. */
#include "backends/common/ffn.h"
#include "backends/common/gptq.h"
#include "backends/common/problem.h"
#include "backends/cpu/check.h"
#include "backends/cpu/entries.h"
#include "backends/cpu/matrix.h"
#include "backends/cpu/paged_kv.h"

/** A matrix of @p format with @p k inputs and @p n outputs. */
static ferrum_status_t check_matrix(const ferrum_device_t *device, const ferrum_problem_t *problem,
                                    ferrum_weight_format_t format, uint32_t k, uint32_t n,
                                    ferrum_error_t *err)
{
    if (format == FERRUM_FORMAT_GPTQ)
        return ferrum_check_gptq_problem(problem->bits, problem->group_size, k, n,
                                         problem->asymmetric != 0, err);
    return ferrum_cpu_check_block_problem(device, format, k, err);
}

static ferrum_status_t check_stack(const ferrum_device_t *device, const ferrum_problem_t *problem,
                                   ferrum_error_t *err)
{
    ferrum_weight_format_t format;

    FERRUM_TRY(ferrum_check_stack_format(problem, &format, err));
    return check_matrix(device, problem, format, problem->k, problem->n, err);
}

static ferrum_status_t check_ffn(const ferrum_device_t *device, const ferrum_problem_t *problem,
                                 ferrum_error_t *err)
{
    FERRUM_TRY(check_matrix(device, problem, problem->format, problem->k, problem->n, err));
    FERRUM_TRY(check_matrix(device, problem, problem->format_down, problem->n, problem->k, err));
    FERRUM_TRY(ferrum_check_activation_kind(problem->activation, err));
    if (problem->precision > FERRUM_PRECISION_FAST)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_PRECISION, "unknown precision %u",
                           problem->precision);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_supports(ferrum_device_t *device, const ferrum_problem_t *problem,
                                    ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_STRUCT(problem, FERRUM_PROBLEM_MIN_SIZE, err);
    if (problem->activation_dtype != FERRUM_DTYPE_F32)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_DTYPE,
                           "the cpu backend computes with f32 activations, not %s",
                           ferrum_dtype_name(problem->activation_dtype));
    switch (problem->kind) {
    case FERRUM_PROBLEM_LINEAR:
        return check_matrix(device, problem, problem->format, problem->k, problem->n, err);
    case FERRUM_PROBLEM_STACKED_EXPERTS:
    case FERRUM_PROBLEM_MARLIN_STACK:
        return check_stack(device, problem, err);
    case FERRUM_PROBLEM_EXPERT_FFN:
        FERRUM_TRY(ferrum_check_top_k(problem, err));
        return check_ffn(device, problem, err);
    case FERRUM_PROBLEM_ROUTE:
        return ferrum_check_route(problem, err);
    case FERRUM_PROBLEM_ALIGN:
        return FERRUM_OK;
    case FERRUM_PROBLEM_PAGED_ATTENTION:
        return ferrum_cpu_check_kv_layout(problem->kv_layout, problem->head_dim, err);
    case FERRUM_PROBLEM_GRAPH:
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NOT_IMPLEMENTED,
                           "the cpu backend does not capture graphs");
    default:
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_OTHER,
                           "the cpu backend does not know problem kind %u", problem->kind);
    }
}
