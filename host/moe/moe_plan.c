/* SPDX-License-Identifier: MIT */
#include "host/moe/moe_plan.h"

#include <ferrum/util.h>

#include <stdio.h>
#include <string.h>

/* An operation that a path cannot do without. */
typedef struct needed_op {
    const char *table;
    const char *name;
} needed_op_t;

static const needed_op_t ffn_needs[] = {
    {"moe_fused", "expert_ffn_create"}, {"moe_fused", "expert_ffn_forward"}, {NULL, NULL}};
static const needed_op_t bucketed_needs[] = {{"quant_llm", "load_gptq_stacked"},
                                             {"backend", "fused_silu_mul_split"},
                                             {"backend", "embedding_lookup"},
                                             {"moe_fused", "moe_combine"},
                                             {NULL, NULL}};
static const needed_op_t stacked_needs[] = {{"quant_llm", "load_quant_experts"},
                                            {"stacked_experts", "gemv_moe_id"},
                                            {"stacked_experts", "gemm_moe_id"},
                                            {"moe_fused", "silu_mul_batched"},
                                            {"moe_fused", "silu_mul_stacked"},
                                            {"moe_fused", "weighted_sum_batched"},
                                            {"moe_fused", "weighted_sum_batched_offset"},
                                            {"moe_fused", "weighted_sum_residual_stacked"},
                                            {NULL, NULL}};
static const needed_op_t per_pair_needs[] = {{"linear", "forward"},
                                             {"backend", "fused_silu_mul_split"},
                                             {"backend", "scaled_add_inplace"},
                                             {NULL, NULL}};

static ferrum_status_t check_ops(const ferrum_ops_t *ops, const needed_op_t *needs,
                                 ferrum_error_t *err)
{
    for (; needs->table; needs++)
        if (!ferrum_ops_has(ops, needs->table, needs->name))
            return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NOT_IMPLEMENTED,
                               "the backend lacks %s.%s", needs->table, needs->name);
    return FERRUM_OK;
}

static bool is_gptq(const ferrum_moe_problem_t *problem)
{
    return problem->gate == FERRUM_FORMAT_GPTQ;
}

/* Ask `supports` about one role, or for EXPERT_FFN about gate (or up) with down. */
static ferrum_status_t ask(const ferrum_ops_t *ops, const ferrum_moe_problem_t *moe,
                           ferrum_problem_kind_t kind, ferrum_weight_format_t format, bool down,
                           ferrum_error_t *err)
{
    bool fused = kind == FERRUM_PROBLEM_EXPERT_FFN;
    ferrum_problem_t problem = {.head = FERRUM_HEAD(ferrum_problem_t),
                                .kind = kind,
                                .format = format,
                                .format_down = fused ? moe->down : 0,
                                .bits = moe->bits,
                                .group_size = moe->group_size,
                                .act_order = moe->act_order,
                                .asymmetric = moe->asymmetric,
                                .k = down ? moe->intermediate : moe->hidden,
                                .n = down ? moe->hidden : moe->intermediate,
                                .experts = moe->num_experts,
                                .top_k = moe->top_k,
                                .activation_dtype = ops->info.activation_dtype,
                                .precision = fused ? ops->precision : 0};
    if (fused)
        return ops->moe->supports(ops->device, &problem, err);
    if (is_gptq(moe) && !down)
        problem.n *= 2; /* gate and up are joined */
    return ops->quant->supports(ops->device, &problem, err);
}

static ferrum_status_t check_roles(const ferrum_ops_t *ops, const ferrum_moe_problem_t *moe,
                                   ferrum_problem_kind_t kind, ferrum_error_t *err)
{
    FERRUM_TRY(ask(ops, moe, kind, moe->gate, false, err));
    if (moe->up != moe->gate)
        FERRUM_TRY(ask(ops, moe, kind, moe->up, false, err));
    return kind == FERRUM_PROBLEM_EXPERT_FFN ? FERRUM_OK
                                             : ask(ops, moe, kind, moe->down, true, err);
}

static ferrum_status_t check_form(const ferrum_moe_problem_t *moe, bool wants_gptq,
                                  ferrum_error_t *err)
{
    if (is_gptq(moe) == wants_gptq)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_FORMAT, "it takes only %s experts",
                       wants_gptq ? "GPTQ" : "GGUF");
}

static ferrum_status_t check_path(const ferrum_ops_t *ops, const ferrum_moe_problem_t *moe,
                                  ferrum_moe_path_t path, ferrum_error_t *err)
{
    switch (path) {
    case FERRUM_MOE_PATH_EXPERT_FFN:
        FERRUM_TRY(check_ops(ops, ffn_needs, err));
        return check_roles(ops, moe, FERRUM_PROBLEM_EXPERT_FFN, err);
    case FERRUM_MOE_PATH_BUCKETED:
        FERRUM_TRY(check_form(moe, true, err));
        FERRUM_TRY(check_ops(ops, bucketed_needs, err));
        return check_roles(ops, moe, FERRUM_PROBLEM_MARLIN_STACK, err);
    case FERRUM_MOE_PATH_STACKED:
        FERRUM_TRY(check_form(moe, false, err));
        FERRUM_TRY(check_ops(ops, stacked_needs, err));
        return check_roles(ops, moe, FERRUM_PROBLEM_STACKED_EXPERTS, err);
    default:
        FERRUM_TRY(check_ops(ops, per_pair_needs, err));
        return check_roles(ops, moe, FERRUM_PROBLEM_LINEAR, err);
    }
}

static ferrum_status_t check_all(const ferrum_ops_t *ops, const ferrum_moe_problem_t *problems,
                                 uint32_t count, ferrum_moe_path_t path, ferrum_error_t *err)
{
    for (uint32_t i = 0; i < count; i++)
        FERRUM_TRY(check_path(ops, &problems[i], path, err));
    return FERRUM_OK;
}

/* auto: the order of moe_plan.h, all refusals in one message. */
static ferrum_status_t choose_path(const ferrum_ops_t *ops, const ferrum_moe_env_t *env,
                                   const ferrum_moe_problem_t *problems, uint32_t count,
                                   ferrum_moe_path_t *out_path, ferrum_error_t *err)
{
    char refusals[FERRUM_ERROR_MESSAGE_BYTES] = "";
    ferrum_reason_t reason = FERRUM_REASON_NONE;
    const ferrum_moe_path_t order[] = {FERRUM_MOE_PATH_EXPERT_FFN, FERRUM_MOE_PATH_STACKED,
                                       FERRUM_MOE_PATH_BUCKETED, FERRUM_MOE_PATH_PER_PAIR};
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        ferrum_error_t why = FERRUM_ERROR_INIT;
        if (order[i] == FERRUM_MOE_PATH_BUCKETED && !env->bucketed)
            continue;
        if (order[i] == FERRUM_MOE_PATH_EXPERT_FFN &&
            ferrum_module_op_resolution(ops->module, "moe_fused", "expert_ffn_create") ==
                FERRUM_RESOLVED_COMPOSED)
            continue; /* the paths below do the same without the detour */
        if (check_all(ops, problems, count, order[i], &why) == FERRUM_OK) {
            *out_path = order[i];
            return FERRUM_OK;
        }
        size_t used = strlen(refusals);
        (void)snprintf(refusals + used, sizeof refusals - used, "%s%s: %.60s", used ? "; " : "",
                       ferrum_moe_path_name(order[i]), why.message);
        reason = why.reason;
    }
    return ferrum_fail(err, FERRUM_UNSUPPORTED, reason,
                       "backend %.30s has no path for these experts (%.190s)",
                       ferrum_module_name(ops->module), refusals);
}

static bool supports_route(const ferrum_ops_t *ops, const ferrum_moe_problem_t *moe,
                           ferrum_error_t *err)
{
    ferrum_problem_t problem = {.head = FERRUM_HEAD(ferrum_problem_t),
                                .kind = FERRUM_PROBLEM_ROUTE,
                                .experts = moe->num_experts,
                                .top_k = moe->top_k,
                                .activation_dtype = ops->info.activation_dtype};
    return ops->moe->supports(ops->device, &problem, err) == FERRUM_OK;
}

static ferrum_status_t plan_routing(const ferrum_ops_t *ops, const ferrum_moe_problem_t *moe,
                                    ferrum_moe_plan_t *plan, ferrum_error_t *err)
{
    const ferrum_moe_env_t *env = &plan->env;
    ferrum_error_t why = FERRUM_ERROR_INIT;
    bool bucketed = plan->path == FERRUM_MOE_PATH_BUCKETED;
    bool aligned = ferrum_ops_has(ops, "marlin_stack", "gemm_phase_vllm");
    bool batched = ferrum_ops_has(ops, "marlin_stack", "gemm_phase_batched");
    if (bucketed && !aligned && (env->vllm_moe || env->device_route == 1 || !batched))
        return ferrum_fail(
            err, FERRUM_UNSUPPORTED, FERRUM_REASON_NOT_IMPLEMENTED,
            "backend %.40s lacks marlin_stack.gemm_phase_vllm, which FERRUM_VLLM_MOE=1 "
            "and FERRUM_MOE_DEVICE_ROUTE=1 need",
            ferrum_module_name(ops->module));
    plan->vllm = bucketed && (env->vllm_moe || env->device_route == 1 || !batched);
    plan->env.vllm_moe = plan->vllm;
    bool route = supports_route(ops, moe, &why);
    bool possible = route && plan->path != FERRUM_MOE_PATH_PER_PAIR && (!bucketed || plan->vllm);
    if (env->device_route == 1 && !possible)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_ROUTING,
                           "FERRUM_MOE_DEVICE_ROUTE=1: %s",
                           route ? "the per-pair path routes on the host" : why.message);
    bool wanted = env->device_route == 1 || (env->device_route == -1 && !env->host_route &&
                                             (ops->info.caps & FERRUM_CAP_DEVICE_ROUTE));
    plan->device_route = possible && wanted;
    plan->backend_host_route =
        route && !env->host_route && ferrum_ops_has(ops, "moe_fused", "route_topk_into_host");
    return FERRUM_OK;
}

static ferrum_status_t check_problems(const ferrum_moe_problem_t *problems, uint32_t count,
                                      ferrum_error_t *err)
{
    if (!problems || count == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "a MoE plan needs at least one layer");
    const ferrum_moe_problem_t *first = &problems[0];
    if (first->top_k == 0 || first->top_k > first->num_experts)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_TOP_K,
                           "top_k %u of %u experts", first->top_k, first->num_experts);
    for (uint32_t i = 1; i < count; i++)
        if (problems[i].hidden != first->hidden ||
            problems[i].intermediate != first->intermediate ||
            problems[i].num_experts != first->num_experts || problems[i].top_k != first->top_k ||
            problems[i].norm_topk != first->norm_topk || is_gptq(&problems[i]) != is_gptq(first))
            return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_OTHER,
                               "MoE layer %u differs from layer 0 in its shape", i);
    return FERRUM_OK;
}

ferrum_status_t ferrum_moe_plan_resolve(const ferrum_ops_t *ops, const ferrum_moe_env_t *env,
                                        const ferrum_moe_problem_t *problems, uint32_t count,
                                        ferrum_moe_plan_t *out_plan, ferrum_error_t *err)
{
    FERRUM_TRY(check_problems(problems, count, err));
    ferrum_moe_plan_t plan = {.path = env->path,
                              .env = *env,
                              .hidden = problems[0].hidden,
                              .intermediate = problems[0].intermediate,
                              .num_experts = problems[0].num_experts,
                              .top_k = problems[0].top_k,
                              .norm_topk = problems[0].norm_topk};
    ferrum_error_t why = FERRUM_ERROR_INIT;
    if (plan.path == FERRUM_MOE_PATH_AUTO)
        FERRUM_TRY(choose_path(ops, env, problems, count, &plan.path, err));
    else if (check_all(ops, problems, count, plan.path, &why) != FERRUM_OK)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, why.reason,
                           "FERRUM_MOE_PATH=%s does not work here: %.180s",
                           ferrum_moe_path_name(plan.path), why.message);
    FERRUM_TRY(plan_routing(ops, &problems[0], &plan, err));
    uint64_t caps = ops->info.caps;
    plan.fused_gate_up = env->fused_gate_up_silu && (caps & FERRUM_CAP_MOE_GATE_UP_SILU);
    plan.gemv_batched = env->batched_decode && (caps & FERRUM_CAP_MOE_GEMV_BATCHED);
    plan.fused_gate_up_batched =
        env->fused_gate_up_silu && (caps & FERRUM_CAP_MOE_GATE_UP_SILU_BATCHED);
    (void)snprintf(plan.description, sizeof plan.description, "%s%s%s, routing on the %s",
                   ferrum_moe_path_name(plan.path),
                   plan.path != FERRUM_MOE_PATH_BUCKETED ? ""
                   : plan.vllm                           ? " (aligned GEMM"
                                                         : " (batched GEMM",
                   plan.path != FERRUM_MOE_PATH_BUCKETED ? "" : ")",
                   plan.device_route ? "device" : "host");
    ferrum_ops_log(ops, FERRUM_LOG_INFO, "MoE layers on backend %s: %s",
                   ferrum_module_name(ops->module), plan.description);
    *out_plan = plan;
    return FERRUM_OK;
}
