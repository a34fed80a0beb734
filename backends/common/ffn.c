/* SPDX-License-Identifier: MIT */
#include "backends/common/ffn.h"
#include "backends/common/check.h"

#include <math.h>
#include <string.h>

ferrum_status_t ferrum_check_ffn_desc(const ferrum_expert_ffn_desc_t *desc, uint32_t *out_local,
                                      ferrum_error_t *err)
{
    FERRUM_CHECK_STRUCT(desc, FERRUM_EXPERT_FFN_DESC_MIN_SIZE, err);
    const uint32_t local = desc->local_experts ? desc->local_experts : desc->num_experts;
    if (desc->hidden == 0 || desc->intermediate == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "expert_ffn_create: hidden is %u and intermediate %u", desc->hidden,
                           desc->intermediate);
    if (local == 0 || (uint64_t)desc->first_expert + local > desc->num_experts)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_EXPERTS,
                           "expert_ffn_create: experts %u on for %u do not lie within %u",
                           desc->first_expert, local, desc->num_experts);
    if (desc->precision > FERRUM_PRECISION_FAST)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_PRECISION,
                           "expert_ffn_create: unknown precision %u", desc->precision);
    *out_local = local;
    return FERRUM_OK;
}

ferrum_status_t ferrum_precision_option(const ferrum_host_t *host,
                                        ferrum_precision_t *out_precision, ferrum_error_t *err)
{
    const char *text = host->option ? host->option(host->self, "FERRUM_PRECISION") : NULL;

    if (text && *text && strcmp(text, "accurate") != 0 && strcmp(text, "fast") != 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_PRECISION,
                           "FERRUM_PRECISION=%.40s is neither accurate nor fast", text);
    *out_precision =
        text && strcmp(text, "fast") == 0 ? FERRUM_PRECISION_FAST : FERRUM_PRECISION_ACCURATE;
    return FERRUM_OK;
}

static ferrum_status_t check_role_shape(const ferrum_ffn_role_t *role, uint32_t experts, uint32_t n,
                                        uint32_t k, ferrum_error_t *err)
{
    if (experts == role->experts && n == role->n && k == role->k)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                       "expert_ffn_create: %s is [%u, %u, %u], expected [%u, %u, %u]", role->name,
                       experts, n, k, role->experts, role->n, role->k);
}

ferrum_status_t ferrum_check_ffn_role(const ferrum_ffn_role_t *role,
                                      const ferrum_expert_weights_t *source, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_check_struct("expert_ffn_create", role->name, source,
                                   FERRUM_EXPERT_WEIGHTS_MIN_SIZE, err));
    if (!source->gguf == !source->gptq)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_FORMAT,
                           "expert_ffn_create: %s needs either GGUF or GPTQ weights", role->name);
    if (source->gptq) {
        FERRUM_TRY(ferrum_check_struct("expert_ffn_create", role->name, source->gptq[0],
                                       FERRUM_GPTQ_MIN_SIZE, err));
        return check_role_shape(role, role->experts, source->gptq[0]->n, source->gptq[0]->k, err);
    }
    FERRUM_TRY(ferrum_check_struct("expert_ffn_create", role->name, source->gguf,
                                   FERRUM_GGUF_WEIGHTS_MIN_SIZE, err));
    return check_role_shape(role, source->gguf->experts, source->gguf->rows, source->gguf->cols,
                            err);
}

ferrum_status_t ferrum_check_ffn_bias(const ferrum_ffn_role_t *role,
                                      const ferrum_expert_weights_t *source, bool own,
                                      ferrum_error_t *err)
{
    if (!source->bias || !own)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_BIAS,
                       "expert_ffn_create: %s has a bias and its GPTQ matrices have one too",
                       role->name);
}

ferrum_status_t ferrum_check_activation_kind(ferrum_activation_kind_t kind, ferrum_error_t *err)
{
    if (kind <= FERRUM_ACTIVATION_GELU_MUL)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_ACTIVATION,
                       "activation %u is not known here", kind);
}

ferrum_status_t ferrum_activation_from(const ferrum_activation_t *source,
                                       ferrum_activation_t *out_activation, ferrum_error_t *err)
{
    ferrum_activation_t activation = {.head = FERRUM_HEAD(ferrum_activation_t),
                                      .kind = FERRUM_ACTIVATION_SILU_MUL};

    if (source) {
        FERRUM_CHECK_STRUCT(source, FERRUM_ACTIVATION_MIN_SIZE, err);
        activation.kind = source->kind;
        activation.alpha = source->alpha;
        activation.limit = source->limit;
    }
    FERRUM_TRY(ferrum_check_activation_kind(activation.kind, err));
    if (activation.kind == FERRUM_ACTIVATION_SWIGLU_CLAMPED &&
        !(isfinite(activation.alpha) && activation.limit > 0.0f))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_ACTIVATION,
                           "clamped SwiGLU needs a finite alpha and a limit above 0, not %g and %g",
                           (double)activation.alpha, (double)activation.limit);
    *out_activation = activation;
    return FERRUM_OK;
}
