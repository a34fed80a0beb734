/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include <ferrum/util.h>

#include "host/formats/json_text.h"
#include "host/formats/model_config.h"

#define CONFIG "config.json"
#define QUANTIZE "quantize_config.json"
#define GENERATION "generation_config.json"

static ferrum_status_t refuse(ferrum_reason_t reason, const char *label, const char *field,
                              const char *value, ferrum_error_t *err)
{
    return ferrum_fail(err, FERRUM_UNSUPPORTED, reason, "%.100s: %s \"%.60s\" is not supported",
                       label, field, value);
}

/* A text field that must have one value when it is there. */
static ferrum_status_t require_text(const json_t *root, const char *label, const char *field,
                                    const char *only, ferrum_reason_t reason, ferrum_error_t *err)
{
    const char *value = only;
    FERRUM_TRY(ferrum_json_string(root, label, field, false, &value, err));
    return strcmp(value, only) == 0 ? FERRUM_OK : refuse(reason, label, field, value, err);
}

/* eos_token_id is a number or a list of them; adds those that are new. */
static ferrum_status_t add_eos(const json_t *root, const char *label, ferrum_model_config_t *c,
                               ferrum_error_t *err)
{
    const json_t *value = json_object_get(root, "eos_token_id");
    bool list = json_is_array(value);
    size_t count = list ? json_array_size(value) : value && !json_is_null(value) ? 1 : 0;
    for (size_t i = 0; i < count; i++) {
        const json_t *item = list ? json_array_get(value, i) : value;
        if (!json_is_integer(item))
            return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_DTYPE,
                               "%.140s: eos_token_id is not an integer or a list of them", label);
        if (ferrum_model_config_is_eos(c, json_integer_value(item)))
            continue;
        if (c->eos_count == FERRUM_MODEL_MAX_EOS_TOKENS)
            return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_LENGTH,
                               "%.140s: more than %d eos tokens", label,
                               FERRUM_MODEL_MAX_EOS_TOKENS);
        c->eos_tokens[c->eos_count++] = json_integer_value(item);
    }
    return FERRUM_OK;
}

/* Older files have rope_theta and rope_scaling, newer ones rope_parameters. */
static ferrum_status_t read_rope(const json_t *root, ferrum_model_config_t *c, ferrum_error_t *err)
{
    static const char *const tables[] = {"rope_scaling", "rope_parameters"};
    c->rope_theta = 1e6;
    FERRUM_TRY(ferrum_json_f64(root, CONFIG, "rope_theta", false, &c->rope_theta, err));
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        const json_t *table = json_object_get(root, tables[i]);
        if (!table || json_is_null(table))
            continue;
        if (!json_is_object(table))
            return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_DTYPE,
                               CONFIG ": the field \"%s\" is not an object", tables[i]);
        FERRUM_TRY(require_text(table, CONFIG, "rope_type", "default", FERRUM_REASON_OTHER, err));
        FERRUM_TRY(require_text(table, CONFIG, "type", "default", FERRUM_REASON_OTHER, err));
        FERRUM_TRY(ferrum_json_f64(table, CONFIG, "rope_theta", false, &c->rope_theta, err));
    }
    return FERRUM_OK;
}

/* What the Qwen3-MoE classes can express and Ferrum does not compute. */
static ferrum_status_t refuse_variants(const json_t *root, ferrum_error_t *err)
{
    bool attention_bias = false;
    uint32_t sparse_step = 1;
    FERRUM_TRY(require_text(root, CONFIG, "hidden_act", "silu", FERRUM_REASON_ACTIVATION, err));
    FERRUM_TRY(ferrum_json_bool(root, CONFIG, "attention_bias", false, &attention_bias, err));
    if (attention_bias)
        return refuse(FERRUM_REASON_BIAS, CONFIG, "attention_bias", "true", err);
    FERRUM_TRY(ferrum_json_u32(root, CONFIG, "decoder_sparse_step", false, &sparse_step, err));
    if (sparse_step != 1 || json_array_size(json_object_get(root, "mlp_only_layers")) > 0)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_LAYOUT,
                           CONFIG ": layers without experts (mlp_only_layers, "
                                  "decoder_sparse_step) are not supported");
    return FERRUM_OK;
}

static ferrum_status_t read_window(const json_t *root, ferrum_model_config_t *c,
                                   ferrum_error_t *err)
{
    bool use = false;
    FERRUM_TRY(ferrum_json_bool(root, CONFIG, "use_sliding_window", false, &use, err));
    if (!use)
        return FERRUM_OK;
    return ferrum_json_u32(root, CONFIG, "sliding_window", true, &c->sliding_window, err);
}

static ferrum_status_t read_experts(const json_t *root, ferrum_model_config_t *c,
                                    ferrum_error_t *err)
{
    const char *count = json_object_get(root, "num_experts") ? "num_experts" : "num_local_experts";
    if (!json_object_get(root, count))
        count = "num_experts";
    FERRUM_TRY(ferrum_json_u32(root, CONFIG, count, true, &c->experts, err));
    FERRUM_TRY(
        ferrum_json_u32(root, CONFIG, "moe_intermediate_size", true, &c->expert_intermediate, err));
    c->experts_used = 8;
    FERRUM_TRY(ferrum_json_u32(root, CONFIG, "num_experts_per_tok", false, &c->experts_used, err));
    c->norm_topk_prob = true;
    return ferrum_json_bool(root, CONFIG, "norm_topk_prob", false, &c->norm_topk_prob, err);
}

static ferrum_status_t read_config(const json_t *root, ferrum_model_config_t *c,
                                   ferrum_error_t *err)
{
    const char *type = NULL;
    memset(c, 0, sizeof *c);
    FERRUM_TRY(ferrum_json_string(root, CONFIG, "model_type", true, &type, err));
    if (strcmp(type, "qwen3_moe") != 0)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_OTHER,
                           CONFIG ": model_type \"%.60s\" is not supported; \"qwen3_moe\" is",
                           type);
    (void)snprintf(c->architecture, sizeof c->architecture, "qwen3moe");
    FERRUM_TRY(refuse_variants(root, err));
    FERRUM_TRY(ferrum_json_u32(root, CONFIG, "num_hidden_layers", true, &c->layers, err));
    FERRUM_TRY(ferrum_json_u32(root, CONFIG, "hidden_size", true, &c->hidden, err));
    FERRUM_TRY(ferrum_json_u32(root, CONFIG, "num_attention_heads", true, &c->heads, err));
    c->kv_heads = c->heads;
    FERRUM_TRY(ferrum_json_u32(root, CONFIG, "num_key_value_heads", false, &c->kv_heads, err));
    c->head_dim = c->heads ? c->hidden / c->heads : 0;
    FERRUM_TRY(ferrum_json_u32(root, CONFIG, "head_dim", false, &c->head_dim, err));
    FERRUM_TRY(ferrum_json_u32(root, CONFIG, "intermediate_size", false, &c->intermediate, err));
    FERRUM_TRY(ferrum_json_u32(root, CONFIG, "vocab_size", true, &c->vocab, err));
    c->context_length = 32768;
    FERRUM_TRY(
        ferrum_json_u32(root, CONFIG, "max_position_embeddings", false, &c->context_length, err));
    c->rms_eps = 1e-6;
    FERRUM_TRY(ferrum_json_f64(root, CONFIG, "rms_norm_eps", false, &c->rms_eps, err));
    FERRUM_TRY(read_rope(root, c, err));
    FERRUM_TRY(read_window(root, c, err));
    FERRUM_TRY(
        ferrum_json_bool(root, CONFIG, "tie_word_embeddings", false, &c->tie_word_embeddings, err));
    c->qk_norm = true;
    c->bos_token = -1;
    FERRUM_TRY(ferrum_json_i64(root, CONFIG, "bos_token_id", false, &c->bos_token, err));
    FERRUM_TRY(add_eos(root, CONFIG, c, err));
    return read_experts(root, c, err);
}

/* Per-module rules: those that only leave modules unquantised ("-:") show in the tensors. */
static ferrum_status_t check_dynamic(const json_t *root, const char *label, ferrum_error_t *err)
{
    const char *rule;
    json_t *ignored;
    json_object_foreach(json_object_get(root, "dynamic"), rule, ignored)
    {
        if (strncmp(rule, "-:", 2) != 0)
            return refuse(FERRUM_REASON_OTHER, label, "the per-module rule", rule, err);
    }
    return FERRUM_OK;
}

static ferrum_status_t read_gptq(const json_t *root, const char *label, ferrum_gptq_config_t *gptq,
                                 ferrum_error_t *err)
{
    int64_t group_size = 128;
    const char *format = "gptq";
    memset(gptq, 0, sizeof *gptq);
    FERRUM_TRY(require_text(root, label, "quant_method", "gptq", FERRUM_REASON_FORMAT, err));
    FERRUM_TRY(require_text(root, label, "pack_dtype", "int32", FERRUM_REASON_FORMAT, err));
    FERRUM_TRY(check_dynamic(root, label, err));
    FERRUM_TRY(ferrum_json_u32(root, label, "bits", true, &gptq->bits, err));
    FERRUM_TRY(ferrum_json_i64(root, label, "group_size", false, &group_size, err));
    if (group_size == 0 || group_size > FERRUM_MODEL_MAX_HIDDEN)
        return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_GROUP_SIZE,
                           "%.120s: group_size is %lld, not positive or -1 (per channel)", label,
                           (long long)group_size);
    gptq->group_size = group_size < 0 ? 0 : (uint32_t)group_size;
    FERRUM_TRY(ferrum_json_bool(root, label, "desc_act", false, &gptq->desc_act, err));
    gptq->sym = true;
    FERRUM_TRY(ferrum_json_bool(root, label, "sym", false, &gptq->sym, err));
    FERRUM_TRY(ferrum_json_string(root, label, "checkpoint_format", false, &format, err));
    if (strcmp(format, "gptq_v2") == 0)
        gptq->zero_convention = FERRUM_ZERO_STORED;
    else if (strcmp(format, "gptq") != 0)
        return refuse(FERRUM_REASON_FORMAT, label, "checkpoint_format", format, err);
    gptq->present = true;
    return FERRUM_OK;
}

/* The three documents together; all but the first may be NULL. */
static ferrum_status_t read_all(const json_t *root, const json_t *quantize,
                                const json_t *generation, ferrum_model_config_t *out_config,
                                ferrum_error_t *err)
{
    ferrum_model_config_t c;
    FERRUM_TRY(read_config(root, &c, err));
    const json_t *embedded = json_object_get(root, "quantization_config");
    if (quantize)
        FERRUM_TRY(read_gptq(quantize, QUANTIZE, &c.gptq, err));
    else if (json_is_object(embedded))
        FERRUM_TRY(read_gptq(embedded, CONFIG " quantization_config", &c.gptq, err));
    if (generation)
        FERRUM_TRY(add_eos(generation, GENERATION, &c, err));
    return ferrum_model_config_from_base(&c, c.experts, c.experts_used, c.expert_intermediate,
                                         c.norm_topk_prob, out_config, err);
}

ferrum_status_t ferrum_model_config_from_json(const char *config_json, const char *quantize_json,
                                              ferrum_model_config_t *out_config,
                                              ferrum_error_t *err)
{
    json_t *root = NULL;
    json_t *quantize = NULL;
    ferrum_status_t status =
        ferrum_json_parse(config_json, strlen(config_json), CONFIG, &root, err);
    if (status == FERRUM_OK && quantize_json)
        status = ferrum_json_parse(quantize_json, strlen(quantize_json), QUANTIZE, &quantize, err);
    if (status == FERRUM_OK)
        status = read_all(root, quantize, NULL, out_config, err);
    json_decref(quantize);
    json_decref(root);
    return status;
}

/* NULL without an error when an optional file is not there. */
static ferrum_status_t load(const char *directory, const char *name, bool required,
                            json_t **out_root, ferrum_error_t *err)
{
    size_t bytes = strlen(directory) + 1 + strlen(name) + 1;
    char *path = malloc(bytes);
    if (!path)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OTHER,
                           "no memory to read %.160s", directory);
    (void)snprintf(path, bytes, "%s/%s", directory, name);
    *out_root = NULL;
    ferrum_error_t why = FERRUM_ERROR_INIT;
    ferrum_status_t status = ferrum_json_load(path, out_root, &why);
    if (status == FERRUM_NOT_FOUND && !required)
        status = FERRUM_OK;
    else if (status != FERRUM_OK)
        (void)ferrum_fail(err, status, why.reason, "%s", why.message);
    free(path);
    return status;
}

ferrum_status_t ferrum_model_config_from_directory(const char *directory,
                                                   ferrum_model_config_t *out_config,
                                                   ferrum_error_t *err)
{
    json_t *root = NULL;
    json_t *quantize = NULL;
    json_t *generation = NULL;
    ferrum_status_t status = load(directory, CONFIG, true, &root, err);
    if (status == FERRUM_OK)
        status = load(directory, QUANTIZE, false, &quantize, err);
    if (status == FERRUM_OK)
        status = load(directory, GENERATION, false, &generation, err);
    if (status == FERRUM_OK)
        status = read_all(root, quantize, generation, out_config, err);
    json_decref(generation);
    json_decref(quantize);
    json_decref(root);
    return status;
}
