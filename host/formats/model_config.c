/* SPDX-License-Identifier: MIT */
#include "host/formats/model_config.h"

#include <inttypes.h>
#include <math.h>

#include <ferrum/util.h>

bool ferrum_model_config_is_sparse(const ferrum_model_config_t *config)
{
    return config->experts_used > 0 && config->experts_used < config->experts;
}

bool ferrum_model_config_is_eos(const ferrum_model_config_t *config, int64_t token)
{
    for (uint32_t i = 0; i < config->eos_count; i++)
        if (config->eos_tokens[i] == token)
            return true;
    return false;
}

static ferrum_status_t fail_value(const char *what, uint64_t value, const char *wanted,
                                  uint64_t other, ferrum_error_t *err)
{
    return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                       "model config: %s is %" PRIu64 ", %s %" PRIu64, what, value, wanted, other);
}

static ferrum_status_t check_ranges(const ferrum_model_config_t *c, ferrum_error_t *err)
{
    const struct {
        const char *name;
        uint64_t value, least, most;
    } ranges[] = {
        {"the number of layers", c->layers, 1, FERRUM_MODEL_MAX_LAYERS},
        {"the hidden size", c->hidden, 1, FERRUM_MODEL_MAX_HIDDEN},
        {"the number of attention heads", c->heads, 1, FERRUM_MODEL_MAX_HIDDEN},
        {"the number of key/value heads", c->kv_heads, 1, FERRUM_MODEL_MAX_HIDDEN},
        {"the head size", c->head_dim, 2, FERRUM_MODEL_MAX_HEAD_DIM},
        {"the width of all heads", (uint64_t)c->heads * c->head_dim, 2, FERRUM_MODEL_MAX_HIDDEN},
        {"the dense FFN width", c->intermediate, 0, FERRUM_MODEL_MAX_HIDDEN},
        {"the vocabulary size", c->vocab, 1, FERRUM_MODEL_MAX_VOCAB},
        {"the context length", c->context_length, 1, FERRUM_MODEL_MAX_CONTEXT},
        {"the number of eos tokens", c->eos_count, 0, FERRUM_MODEL_MAX_EOS_TOKENS},
        {"the number of experts", c->experts, 0, FERRUM_MODEL_MAX_EXPERTS},
        {"the expert FFN width", c->expert_intermediate, c->experts ? 1 : 0,
         FERRUM_MODEL_MAX_HIDDEN},
        {"the number of experts per token", c->experts_used, c->experts ? 1 : 0, c->experts},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (ranges[i].value < ranges[i].least)
            return fail_value(ranges[i].name, ranges[i].value, "below", ranges[i].least, err);
        if (ranges[i].value > ranges[i].most)
            return fail_value(ranges[i].name, ranges[i].value, "above", ranges[i].most, err);
    }
    return FERRUM_OK;
}

static ferrum_status_t check_gptq(const ferrum_gptq_config_t *gptq, ferrum_error_t *err)
{
    if (!gptq->present)
        return FERRUM_OK;
    if (gptq->bits != 4 && gptq->bits != 8)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_BITS,
                           "model config: GPTQ with %" PRIu32 " bits is not supported; 4 and 8 are",
                           gptq->bits);
    if (gptq->group_size > FERRUM_MODEL_MAX_HIDDEN)
        return fail_value("the GPTQ group size", gptq->group_size, "above", FERRUM_MODEL_MAX_HIDDEN,
                          err);
    return FERRUM_OK;
}

static ferrum_status_t check_tokens(const ferrum_model_config_t *c, ferrum_error_t *err)
{
    if (c->bos_token < -1 || c->bos_token >= (int64_t)c->vocab)
        return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                           "model config: bos token %" PRId64
                           " is outside the vocabulary of %" PRIu32,
                           c->bos_token, c->vocab);
    for (uint32_t i = 0; i < c->eos_count; i++)
        if (c->eos_tokens[i] < 0 || c->eos_tokens[i] >= (int64_t)c->vocab)
            return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                               "model config: eos token %" PRId64
                               " is outside the vocabulary of %" PRIu32,
                               c->eos_tokens[i], c->vocab);
    return FERRUM_OK;
}

ferrum_status_t ferrum_model_config_validate(const ferrum_model_config_t *c, ferrum_error_t *err)
{
    FERRUM_TRY(check_ranges(c, err));
    if (c->heads % c->kv_heads)
        return fail_value("the number of attention heads", c->heads,
                          "which the key/value heads do not divide:", c->kv_heads, err);
    if (c->head_dim % 2)
        return fail_value("the head size", c->head_dim, "not a multiple of", 2, err);
    /* Written so that NaN fails too. */
    if (!(c->rms_eps > 0.0 && c->rms_eps < 1.0))
        return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                           "model config: the RMS norm epsilon is %g, not between 0 and 1",
                           c->rms_eps);
    if (!(c->rope_theta > 0.0 && isfinite(c->rope_theta)))
        return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                           "model config: the RoPE base is %g, not a positive number",
                           c->rope_theta);
    FERRUM_TRY(check_tokens(c, err));
    return check_gptq(&c->gptq, err);
}

ferrum_status_t ferrum_model_config_from_base(const ferrum_model_config_t *base, uint32_t experts,
                                              uint32_t experts_used, uint32_t expert_intermediate,
                                              bool norm_topk_prob,
                                              ferrum_model_config_t *out_config,
                                              ferrum_error_t *err)
{
    ferrum_model_config_t config = *base;
    config.experts = experts;
    config.experts_used = experts_used;
    config.expert_intermediate = expert_intermediate;
    config.norm_topk_prob = norm_topk_prob;
    if (experts == 0)
        return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_EXPERTS,
                           "model config: a MoE model needs at least one expert");
    FERRUM_TRY(ferrum_model_config_validate(&config, err));
    *out_config = config;
    return FERRUM_OK;
}
