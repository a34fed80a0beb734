/* SPDX-License-Identifier: MIT */
/* Composed expert_ffn objects: what they need, how they are made and described. */
#include "compose.h"
#include "sys.h"
#include "text.h"

static const ferrum_backend_ops_t *backend_of(const ferrum_compose_t *compose)
{
    return &compose->tables->backend;
}

/* ---- what a layer may ask for ---- */

static ferrum_status_t refuse(ferrum_error_t *err, ferrum_reason_t reason, const char *what)
{
    return ferrum_fail(err, FERRUM_UNSUPPORTED, reason,
                       "this backend has no expert_ffn of its own, and the composed one does not "
                       "do %s",
                       what);
}

static ferrum_status_t check_kind(const ferrum_compose_t *compose, bool gptq, ferrum_error_t *err)
{
    if (gptq ? compose->has_gptq : compose->has_gguf)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NOT_IMPLEMENTED,
                       "expert_ffn of %s weights cannot be composed: the backend lacks %s",
                       gptq ? "GPTQ" : "GGUF", compose->lacks);
}

static ferrum_status_t check_activation(uint32_t kind, ferrum_error_t *err)
{
    return kind == FERRUM_ACTIVATION_SILU_MUL
               ? FERRUM_OK
               : refuse(err, FERRUM_REASON_ACTIVATION, "activations other than silu(gate) * up");
}

static ferrum_status_t ask(const ferrum_compose_t *compose, ferrum_device_t *device,
                           const ferrum_problem_t *problem, ferrum_error_t *err)
{
    if (ferrum_tables_how(compose->tables, "quant_llm", "supports") == FERRUM_RESOLVED_STUB)
        return FERRUM_OK; /* its loaders will say */
    return compose->tables->quant_llm.supports(device, problem, err);
}

/* moe_fused.supports: a question about expert_ffn becomes two about stacks. */
static ferrum_status_t composed_supports(const ferrum_compose_t *compose, ferrum_device_t *device,
                                         const ferrum_problem_t *problem, ferrum_error_t *err)
{
    if (!problem || problem->head.size < FERRUM_PROBLEM_MIN_SIZE ||
        problem->kind != FERRUM_PROBLEM_EXPERT_FFN)
        return compose->native_supports(device, problem, err);
    bool gptq = problem->format == FERRUM_FORMAT_GPTQ;
    FERRUM_TRY(check_kind(compose, gptq, err));
    FERRUM_TRY(check_activation(problem->activation, err));
    if (problem->has_bias)
        return refuse(err, FERRUM_REASON_BIAS, "expert biases");
    if ((problem->format_down == FERRUM_FORMAT_GPTQ) != gptq)
        return refuse(err, FERRUM_REASON_FORMAT, "GGUF and GPTQ weights in one layer");
    ferrum_problem_t part = {.head = FERRUM_HEAD(ferrum_problem_t),
                             .kind = gptq ? FERRUM_PROBLEM_MARLIN_STACK
                                          : FERRUM_PROBLEM_STACKED_EXPERTS,
                             .format = problem->format,
                             .bits = problem->bits,
                             .group_size = problem->group_size,
                             .act_order = problem->act_order,
                             .asymmetric = problem->asymmetric,
                             .k = problem->k,
                             .n = problem->n,
                             .experts = problem->experts,
                             .top_k = problem->top_k,
                             .activation_dtype = problem->activation_dtype};
    FERRUM_TRY(ask(compose, device, &part, err));
    part.format = problem->format_down;
    part.k = problem->n;
    part.n = problem->k;
    return ask(compose, device, &part, err);
}

/* ---- making one ---- */

static const ferrum_expert_weights_t *weights_of(const ferrum_expert_ffn_desc_t *desc, int role)
{
    return role == FERRUM_GATE ? desc->gate : role == FERRUM_UP ? desc->up : desc->down;
}

static ferrum_status_t check_role(const ferrum_composed_ffn_t *ffn,
                                  const ferrum_expert_weights_t *w, int role, ferrum_error_t *err)
{
    static const char *const names[] = {"gate", "up", "down"};
    uint32_t n = role == FERRUM_DOWN ? ffn->hidden : ffn->intermediate;
    uint32_t k = role == FERRUM_DOWN ? ffn->intermediate : ffn->hidden;
    bool right;
    if (!w || w->head.size < FERRUM_EXPERT_WEIGHTS_MIN_SIZE || !w->gguf == !w->gptq)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "%s must have either gguf or gptq weights", names[role]);
    if (!w->gptq == ffn->gptq)
        return refuse(err, FERRUM_REASON_FORMAT, "GGUF and GPTQ weights in one layer");
    if (w->bias)
        return refuse(err, FERRUM_REASON_BIAS, "expert biases");
    if (w->gguf) {
        right = w->gguf->experts == ffn->local_experts && w->gguf->rows == n && w->gguf->cols == k;
    } else {
        right = true;
        for (uint32_t e = 0; e < ffn->local_experts && right; e++) {
            right = w->gptq[e] && w->gptq[e]->n == n && w->gptq[e]->k == k;
            if (right && w->gptq[e]->bias)
                return refuse(err, FERRUM_REASON_BIAS, "expert biases");
        }
    }
    if (!right)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "the weights of %s are not %u experts of [%u, %u]", names[role],
                           ffn->local_experts, n, k);
    return FERRUM_OK;
}

static ferrum_status_t check_desc(const ferrum_compose_t *compose,
                                  const ferrum_expert_ffn_desc_t *desc, ferrum_composed_ffn_t *ffn,
                                  ferrum_error_t *err)
{
    if (!desc || desc->head.size < FERRUM_EXPERT_FFN_DESC_MIN_SIZE || !desc->gate)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "the description of the layer or its gate weights are NULL");
    ffn->hidden = desc->hidden;
    ffn->intermediate = desc->intermediate;
    ffn->num_experts = desc->num_experts;
    ffn->first_expert = desc->first_expert;
    ffn->local_experts = desc->local_experts ? desc->local_experts : desc->num_experts;
    ffn->gptq = desc->gate->gptq != NULL;
    if (!ffn->hidden || !ffn->intermediate || !ffn->num_experts || ffn->num_experts > INT32_MAX ||
        ffn->local_experts > ffn->num_experts ||
        ffn->first_expert > ffn->num_experts - ffn->local_experts)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_RANGE,
                           "experts %u..+%u of %u, hidden %u, intermediate %u are no layer",
                           ffn->first_expert, ffn->local_experts, ffn->num_experts, ffn->hidden,
                           ffn->intermediate);
    FERRUM_TRY(check_kind(compose, ffn->gptq, err));
    if (desc->activation)
        FERRUM_TRY(check_activation(desc->activation->kind, err));
    if (desc->precision > FERRUM_PRECISION_FAST)
        return refuse(err, FERRUM_REASON_PRECISION, "this precision");
    for (int role = 0; role < FERRUM_ROLES; role++)
        FERRUM_TRY(check_role(ffn, weights_of(desc, role), role, err));
    return FERRUM_OK;
}

static uint64_t source_bytes(const ferrum_expert_weights_t *w, uint32_t experts)
{
    uint64_t bytes = 0;
    if (w->gguf)
        return w->gguf->bytes;
    for (uint32_t e = 0; e < experts; e++)
        bytes +=
            4 * (w->gptq[e]->qweight_count + w->gptq[e]->qzeros_count + w->gptq[e]->g_idx_count) +
            ferrum_dtype_bytes(w->gptq[e]->scales_dtype) * w->gptq[e]->scales_count;
    return bytes;
}

static ferrum_status_t load_role(ferrum_composed_ffn_t *ffn, const ferrum_expert_weights_t *w,
                                 int role, ferrum_error_t *err)
{
    const ferrum_quant_llm_ops_t *ops = &ffn->compose->tables->quant_llm;
    ferrum_expert_stack_info_t info = {.head = FERRUM_HEAD(ferrum_expert_stack_info_t)};
    if (!ffn->gptq) {
        FERRUM_TRY(ops->load_quant_experts(ffn->device, w->gguf, &ffn->stacked[role], err));
        FERRUM_TRY(ops->stacked_experts->info(ffn->stacked[role], &info, err));
    } else {
        FERRUM_TRY(ops->load_gptq_stacked(ffn->device, w->gptq, ffn->local_experts,
                                          &ffn->marlin[role], err));
        FERRUM_TRY(ops->marlin_stack->info(ffn->marlin[role], &info, err));
        if (info.requires_vllm)
            return refuse(err, FERRUM_REASON_LAYOUT, "stacks that need gemm_phase_vllm");
    }
    ffn->bytes += info.bytes;
    ffn->source_bytes += source_bytes(w, ffn->local_experts);
    ffn->error_bound += 2.0f * info.error_bound; /* silu(gate) * up carries both errors on */
    return FERRUM_OK;
}

/* What rounding silu(gate) * up to the activation dtype adds. */
static float rounding_error(ferrum_dtype_t dtype)
{
    return dtype == FERRUM_DTYPE_F16 ? 1e-3f : dtype == FERRUM_DTYPE_BF16 ? 8e-3f : 1e-7f;
}

static void free_ffn(ferrum_composed_ffn_t *ffn)
{
    ferrum_compose_t *compose = ffn->compose;
    const ferrum_quant_llm_ops_t *ops = &compose->tables->quant_llm;
    for (int role = 0; role < FERRUM_ROLES; role++) {
        if (ffn->stacked[role])
            ops->stacked_experts->release(ffn->stacked[role]);
        if (ffn->marlin[role])
            ops->marlin_stack->release(ffn->marlin[role]);
    }
    (void)pthread_mutex_lock(&compose->mutex);
    bool last = --compose->live_ffns == 0;
    (void)pthread_mutex_unlock(&compose->mutex);
    if (last)
        ferrum_compose_drop_scratch(compose, NULL);
    backend_of(compose)->device_release(ffn->device);
    ferrum_sys->release(ffn);
}

static ferrum_status_t composed_create(ferrum_compose_t *compose, ferrum_device_t *device,
                                       const ferrum_expert_ffn_desc_t *desc,
                                       ferrum_expert_ffn_t **out_ffn, ferrum_error_t *err)
{
    ferrum_composed_ffn_t draft = {.compose = compose, .device = device};
    ferrum_device_info_t info = {.head = FERRUM_HEAD(ferrum_device_info_t)};
    if (!device || !out_ffn)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "device or out_ffn is NULL");
    FERRUM_TRY(check_desc(compose, desc, &draft, err));
    FERRUM_TRY(backend_of(compose)->device_info(device, &info, err));
    draft.activation_dtype = info.activation_dtype;
    draft.error_bound = rounding_error(info.activation_dtype);

    ferrum_composed_ffn_t *ffn = ferrum_sys->alloc(sizeof *ffn);
    if (!ffn)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory for a composed expert_ffn");
    memcpy(ffn, &draft, sizeof *ffn);
    atomic_init(&ffn->refs, 1);
    backend_of(compose)->device_retain(device);
    (void)pthread_mutex_lock(&compose->mutex);
    compose->live_ffns++;
    (void)pthread_mutex_unlock(&compose->mutex);
    for (int role = 0; role < FERRUM_ROLES; role++) {
        ferrum_status_t status = load_role(ffn, weights_of(desc, role), role, err);
        if (status != FERRUM_OK) {
            free_ffn(ffn);
            return status;
        }
    }
    *out_ffn = (ferrum_expert_ffn_t *)ffn;
    return FERRUM_OK;
}

static void composed_retain(ferrum_expert_ffn_t *ffn)
{
    atomic_fetch_add(&((ferrum_composed_ffn_t *)ffn)->refs, 1);
}

static void composed_release(ferrum_expert_ffn_t *ffn)
{
    if (ffn && atomic_fetch_sub(&((ferrum_composed_ffn_t *)ffn)->refs, 1) == 1)
        free_ffn((ferrum_composed_ffn_t *)ffn);
}

static ferrum_status_t composed_info(const ferrum_expert_ffn_t *object,
                                     ferrum_expert_ffn_info_t *out_info, ferrum_error_t *err)
{
    const ferrum_composed_ffn_t *ffn = (const ferrum_composed_ffn_t *)object;
    if (!ffn || !out_info || out_info->head.size < FERRUM_EXPERT_FFN_INFO_MIN_SIZE)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "ffn or out_info is NULL or too small");
    ferrum_expert_ffn_info_t info = {.head = {out_info->head.size, FERRUM_ABI_MINOR},
                                     .hidden = ffn->hidden,
                                     .intermediate = ffn->intermediate,
                                     .num_experts = ffn->num_experts,
                                     .local_experts = ffn->local_experts,
                                     .bytes = ffn->bytes,
                                     .source_bytes = ffn->source_bytes,
                                     .error_bound = ffn->error_bound};
    FERRUM_COPY_TEXT(info.kernel,
                     ffn->gptq ? "composed of gemm_phase_batched" : "composed of StackedExperts");
    memcpy(out_info, &info, info.head.size < sizeof info ? info.head.size : sizeof info);
    return FERRUM_OK;
}

static void composed_context_free(ferrum_compose_t *compose, ferrum_context_t *ctx)
{
    if (ctx)
        ferrum_compose_drop_scratch(compose, ctx);
    compose->native_context_free(ctx);
}

/* ---- slots: create and supports get no object that leads back to the module ---- */

static ferrum_compose_t *_Atomic slots[8];

#define SLOT(i)                                                                                    \
    static ferrum_status_t create_##i(ferrum_device_t *device,                                     \
                                      const ferrum_expert_ffn_desc_t *desc,                        \
                                      ferrum_expert_ffn_t **out_ffn, ferrum_error_t *err)          \
    {                                                                                              \
        return composed_create(atomic_load(&slots[i]), device, desc, out_ffn, err);                \
    }                                                                                              \
    static ferrum_status_t supports_##i(ferrum_device_t *device, const ferrum_problem_t *problem,  \
                                        ferrum_error_t *err)                                       \
    {                                                                                              \
        return composed_supports(atomic_load(&slots[i]), device, problem, err);                    \
    }                                                                                              \
    static void context_free_##i(ferrum_context_t *ctx)                                            \
    {                                                                                              \
        composed_context_free(atomic_load(&slots[i]), ctx);                                        \
    }
SLOT(0)
SLOT(1)
SLOT(2)
SLOT(3)
SLOT(4)
SLOT(5)
SLOT(6)
SLOT(7)

static const struct slot_functions {
    ferrum_status_t (*create)(ferrum_device_t *, const ferrum_expert_ffn_desc_t *,
                              ferrum_expert_ffn_t **, ferrum_error_t *);
    ferrum_status_t (*supports)(ferrum_device_t *, const ferrum_problem_t *, ferrum_error_t *);
    void (*context_free)(ferrum_context_t *);
} slot_functions[] = {
    {create_0, supports_0, context_free_0}, {create_1, supports_1, context_free_1},
    {create_2, supports_2, context_free_2}, {create_3, supports_3, context_free_3},
    {create_4, supports_4, context_free_4}, {create_5, supports_5, context_free_5},
    {create_6, supports_6, context_free_6}, {create_7, supports_7, context_free_7},
};

static bool claim_slot(ferrum_compose_t *compose)
{
    for (unsigned i = 0; i < sizeof slots / sizeof slots[0]; i++) {
        ferrum_compose_t *none = NULL;
        if (atomic_compare_exchange_strong(&slots[i], &none, compose)) {
            compose->slot = i;
            return true;
        }
    }
    return false;
}

/* ---- what it takes ---- */

enum {
    FOR_GGUF = 1,
    FOR_GPTQ = 2,
    FOR_BOTH = 3
};

static const struct need {
    const char *table, *name;
    unsigned kinds;
} needs[] = {
    {"backend", "add_inplace", FOR_BOTH},
    {"moe_fused", "silu_mul_batched", FOR_BOTH},
    {"quant_llm", "load_quant_experts", FOR_GGUF},
    {"stacked_experts", "release", FOR_GGUF},
    {"stacked_experts", "info", FOR_GGUF},
    {"moe_fused", "weighted_sum_batched", FOR_GGUF},
    {"backend", "embedding_lookup", FOR_GPTQ},
    {"quant_llm", "load_gptq_stacked", FOR_GPTQ},
    {"marlin_stack", "release", FOR_GPTQ},
    {"marlin_stack", "info", FOR_GPTQ},
    {"marlin_stack", "gemm_phase_batched", FOR_GPTQ},
    {"moe_fused", "moe_combine", FOR_GPTQ},
};

static bool has(const ferrum_compose_t *compose, const char *table, const char *name)
{
    return ferrum_tables_how(compose->tables, table, name) == FERRUM_RESOLVED_NATIVE;
}

static void add_lack(ferrum_compose_t *compose, const char *entry)
{
    ferrum_text_append(compose->lacks, sizeof compose->lacks, "%s%s", compose->lacks[0] ? ", " : "",
                       entry);
}

static void find_parts(ferrum_compose_t *compose)
{
    unsigned kinds = FOR_BOTH;
    for (size_t i = 0; i < sizeof needs / sizeof needs[0]; i++) {
        if (has(compose, needs[i].table, needs[i].name))
            continue;
        kinds &= ~needs[i].kinds;
        add_lack(compose, needs[i].name);
    }
    compose->has_gemm = has(compose, "stacked_experts", "gemm_moe_id");
    compose->has_gemv = has(compose, "stacked_experts", "gemv_moe_id_batched");
    if (!compose->has_gemm && !compose->has_gemv) {
        kinds &= ~(unsigned)FOR_GGUF;
        add_lack(compose, "gemv_moe_id_batched or gemm_moe_id");
    }
    compose->has_gguf = kinds & FOR_GGUF;
    compose->has_gptq = kinds & FOR_GPTQ;
}

static void install(ferrum_compose_t *compose, ferrum_tables_t *tables)
{
    static const char *const entries[] = {"expert_ffn_create",  "expert_ffn_retain",
                                          "expert_ffn_release", "expert_ffn_info",
                                          "expert_ffn_forward", "supports"};
    const struct slot_functions *functions = &slot_functions[compose->slot];
    compose->native_context_free = tables->backend.context_free;
    compose->native_supports = tables->moe_fused.supports;
    tables->backend.context_free = functions->context_free;
    tables->moe_fused.supports = functions->supports;
    tables->moe_fused.expert_ffn_create = functions->create;
    tables->moe_fused.expert_ffn_retain = composed_retain;
    tables->moe_fused.expert_ffn_release = composed_release;
    tables->moe_fused.expert_ffn_info = composed_info;
    tables->moe_fused.expert_ffn_forward = ferrum_composed_forward;
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++)
        ferrum_tables_mark(tables, "moe_fused", entries[i], FERRUM_RESOLVED_COMPOSED);
}

ferrum_status_t ferrum_compose_expert_ffn(ferrum_tables_t *tables, const ferrum_logger_t *logger,
                                          uint32_t gemm_tokens, ferrum_compose_t **out_compose,
                                          ferrum_error_t *err)
{
    *out_compose = NULL;
    if (ferrum_tables_how(tables, "moe_fused", "expert_ffn_create") == FERRUM_RESOLVED_NATIVE &&
        ferrum_tables_how(tables, "moe_fused", "expert_ffn_forward") == FERRUM_RESOLVED_NATIVE)
        return FERRUM_OK;
    ferrum_compose_t *compose = ferrum_sys->alloc(sizeof *compose);
    if (!compose)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory to compose expert_ffn");
    compose->tables = tables;
    compose->logger = logger;
    compose->gemm_tokens = gemm_tokens;
    find_parts(compose);
    if (!compose->has_gguf && !compose->has_gptq) {
        ferrum_log(logger, FERRUM_LOG_INFO, "expert_ffn is not composed, the plugin lacks %s",
                   compose->lacks);
        ferrum_sys->release(compose);
        return FERRUM_OK;
    }
    if (pthread_mutex_init(&compose->mutex, NULL) != 0) {
        ferrum_sys->release(compose);
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no lock for the composed expert_ffn");
    }
    if (!claim_slot(compose)) {
        ferrum_log(logger, FERRUM_LOG_WARN,
                   "expert_ffn is not composed: %zu plugins already use the composed one",
                   sizeof slots / sizeof slots[0]);
        (void)pthread_mutex_destroy(&compose->mutex);
        ferrum_sys->release(compose);
        return FERRUM_OK;
    }
    install(compose, tables);
    ferrum_log(logger, FERRUM_LOG_INFO,
               "expert_ffn is composed of granular ops for%s%s weights: slower than a native one",
               compose->has_gguf ? " GGUF" : "", compose->has_gptq ? " GPTQ" : "");
    *out_compose = compose;
    return FERRUM_OK;
}

void ferrum_compose_free(ferrum_compose_t *compose)
{
    if (!compose)
        return;
    ferrum_compose_drop_scratch(compose, NULL);
    (void)pthread_mutex_destroy(&compose->mutex);
    atomic_store(&slots[compose->slot], NULL);
    ferrum_sys->release(compose);
}
