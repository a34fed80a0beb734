/* SPDX-License-Identifier: MIT */
/* Questions about problems. Loaders and ops refuse through the same checks. */
#include "backends/cuda/entries.h"
#include "backends/cuda/kv.h"
#include "backends/cuda/problems.h"

ferrum_status_t ferrum_cuda_supports(ferrum_device_t *device, const ferrum_problem_t *problem,
                                     ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_STRUCT(problem, FERRUM_PROBLEM_MIN_SIZE, err);
    if (problem->activation_dtype != device->act)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_DTYPE,
                           "this CUDA device was opened for %s activations, not %s",
                           ferrum_dtype_name(device->act),
                           ferrum_dtype_name(problem->activation_dtype));
    switch (problem->kind) {
    case FERRUM_PROBLEM_PAGED_ATTENTION:
        return ferrum_cuda_check_kv_layout(problem->kv_layout, problem->head_dim, err);
    case FERRUM_PROBLEM_GRAPH:
        return FERRUM_OK;
    default:
        return ferrum_cuda_check_moe_problem(problem, err);
    }
}
