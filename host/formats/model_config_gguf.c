/* SPDX-License-Identifier: MIT */
#include <string.h>

#include <ferrum/util.h>

#include "host/formats/model_config.h"

#define DEFAULT_CONTEXT 32768u
#define DEFAULT_EPS 1e-6
#define MOE_ARCHITECTURE "qwen3moe"
#define LONG_ROPE_THETA 1e6
#define SHORT_ROPE_THETA 1e4

/* Architectures with experts, which a dense model cannot stand for. */
static const char *const moe_architectures[] = {"qwen3moe", "qwen2moe", "mixtral", "deepseek2",
                                                "olmoe",    "gpt-oss",  "glm4moe"};

/* Keys of one architecture: "<architecture>.<name>". */
typedef struct section {
    const ferrum_gguf_t *gguf;
    char architecture[FERRUM_MODEL_ARCHITECTURE_BYTES];
    char key[FERRUM_MODEL_ARCHITECTURE_BYTES + 64];
    ferrum_error_t *err;
} section_t;

static const char *key_of(section_t *s, const char *name)
{
    (void)snprintf(s->key, sizeof s->key, "%s.%s", s->architecture, name);
    return s->key;
}

static bool has(section_t *s, const char *name)
{
    return ferrum_gguf_find_key(s->gguf, key_of(s, name)) != NULL;
}

static ferrum_status_t need_u32(section_t *s, const char *name, uint32_t *out)
{
    return ferrum_gguf_get_u32(s->gguf, key_of(s, name), out, s->err);
}

/* An optional key leaves *out, which holds the default. */
static ferrum_status_t opt_u32(section_t *s, const char *name, uint32_t *out)
{
    return has(s, name) ? need_u32(s, name, out) : FERRUM_OK;
}

static ferrum_status_t opt_f64(section_t *s, const char *name, double *out)
{
    return has(s, name) ? ferrum_gguf_get_f64(s->gguf, s->key, out, s->err) : FERRUM_OK;
}

static ferrum_status_t opt_bool(section_t *s, const char *name, bool *out)
{
    return has(s, name) ? ferrum_gguf_get_bool(s->gguf, s->key, out, s->err) : FERRUM_OK;
}

static ferrum_status_t open_section(const ferrum_gguf_t *gguf, section_t *s, ferrum_error_t *err)
{
    ferrum_string_view_t name;
    memset(s, 0, sizeof *s);
    s->gguf = gguf;
    s->err = err;
    FERRUM_TRY(ferrum_gguf_get_string(gguf, "general.architecture", &name, err));
    if (name.length == 0 || name.length >= sizeof s->architecture ||
        memchr(name.data, 0, name.length))
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_OTHER,
                           "%.80s: general.architecture \"%.*s\" is not supported",
                           ferrum_gguf_path(gguf), FERRUM_VIEW_ARGS(name));
    memcpy(s->architecture, name.data, name.length);
    return FERRUM_OK;
}

/* The vocabulary: its key, else the rows of the embedding. */
static ferrum_status_t read_vocab(section_t *s, uint32_t *out_vocab)
{
    const ferrum_gguf_tensor_t *embedding;
    if (has(s, "vocab_size"))
        return need_u32(s, "vocab_size", out_vocab);
    embedding = ferrum_gguf_find_tensor(s->gguf, "token_embd.weight");
    if (!embedding)
        return ferrum_fail(s->err, FERRUM_NOT_FOUND, FERRUM_REASON_OTHER,
                           "%.100s: neither metadata key %s nor tensor token_embd.weight is there",
                           ferrum_gguf_path(s->gguf), s->key);
    if (embedding->dims[1] > FERRUM_MODEL_MAX_VOCAB)
        return ferrum_fail(s->err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                           "%.120s: token_embd.weight has too many rows",
                           ferrum_gguf_path(s->gguf));
    *out_vocab = (uint32_t)embedding->dims[1];
    return FERRUM_OK;
}

static ferrum_status_t read_token(section_t *s, const char *key, int64_t *out_token)
{
    uint32_t token;
    *out_token = -1;
    if (!ferrum_gguf_find_key(s->gguf, key))
        return FERRUM_OK;
    FERRUM_TRY(ferrum_gguf_get_u32(s->gguf, key, &token, s->err));
    *out_token = token;
    return FERRUM_OK;
}

static ferrum_status_t read_tokens(section_t *s, ferrum_model_config_t *c)
{
    static const char *const eos_keys[] = {"tokenizer.ggml.eos_token_id",
                                           "tokenizer.ggml.eot_token_id"};
    FERRUM_TRY(read_token(s, "tokenizer.ggml.bos_token_id", &c->bos_token));
    for (size_t i = 0; i < sizeof eos_keys / sizeof eos_keys[0]; i++) {
        int64_t token;
        FERRUM_TRY(read_token(s, eos_keys[i], &token));
        if (token >= 0 && !ferrum_model_config_is_eos(c, token))
            c->eos_tokens[c->eos_count++] = token;
    }
    return FERRUM_OK;
}

static ferrum_status_t refuse_rope_scaling(section_t *s)
{
    ferrum_string_view_t type;
    if (!has(s, "rope.scaling.type"))
        return FERRUM_OK;
    FERRUM_TRY(ferrum_gguf_get_string(s->gguf, s->key, &type, s->err));
    if (ferrum_view_equal(type, ferrum_view("none")))
        return FERRUM_OK;
    return ferrum_fail(s->err, FERRUM_UNSUPPORTED, FERRUM_REASON_OTHER,
                       "%.80s: RoPE scaling \"%.*s\" is not supported", ferrum_gguf_path(s->gguf),
                       FERRUM_VIEW_ARGS(type));
}

/* Routing that a Qwen3-MoE model does not have and Ferrum's model code does not compute. */
static ferrum_status_t refuse_variants(section_t *s)
{
    static const struct {
        const char *name;
        uint32_t most; /* largest value that means "as usual" */
    } limits[] = {
        {"expert_gating_func", 1}, /* 0: unset, 1: softmax */
        {"expert_shared_count", 0},
        {"expert_group_count", 1},
        {"leading_dense_block_count", 0},
    };
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        uint32_t value = 0;
        FERRUM_TRY(opt_u32(s, limits[i].name, &value));
        if (value > limits[i].most)
            return ferrum_fail(s->err, FERRUM_UNSUPPORTED, FERRUM_REASON_ROUTING,
                               "%.100s: %s = %u is not supported", ferrum_gguf_path(s->gguf),
                               s->key, value);
    }
    return FERRUM_OK;
}

/* What dense and MoE models have in common; not validated yet. */
static ferrum_status_t read_base(section_t *s, double rope_theta, ferrum_model_config_t *c)
{
    uint32_t value_length;
    memset(c, 0, sizeof *c);
    memcpy(c->architecture, s->architecture, sizeof c->architecture);
    FERRUM_TRY(need_u32(s, "block_count", &c->layers));
    FERRUM_TRY(need_u32(s, "embedding_length", &c->hidden));
    FERRUM_TRY(need_u32(s, "attention.head_count", &c->heads));
    c->kv_heads = c->heads;
    FERRUM_TRY(opt_u32(s, "attention.head_count_kv", &c->kv_heads));
    c->rms_eps = DEFAULT_EPS;
    FERRUM_TRY(opt_f64(s, "attention.layer_norm_rms_epsilon", &c->rms_eps));
    c->context_length = DEFAULT_CONTEXT;
    FERRUM_TRY(opt_u32(s, "context_length", &c->context_length));
    c->rope_theta = rope_theta;
    FERRUM_TRY(opt_f64(s, "rope.freq_base", &c->rope_theta));
    FERRUM_TRY(opt_u32(s, "feed_forward_length", &c->intermediate));
    FERRUM_TRY(opt_u32(s, "attention.sliding_window", &c->sliding_window));
    FERRUM_TRY(read_vocab(s, &c->vocab));
    c->head_dim = c->heads ? c->hidden / c->heads : 0;
    FERRUM_TRY(opt_u32(s, "attention.key_length", &c->head_dim));
    value_length = c->head_dim;
    FERRUM_TRY(opt_u32(s, "attention.value_length", &value_length));
    if (value_length != c->head_dim)
        return ferrum_fail(s->err, FERRUM_UNSUPPORTED, FERRUM_REASON_HEAD_DIM,
                           "%.100s: heads with %u key and %u value features are not supported",
                           ferrum_gguf_path(s->gguf), c->head_dim, value_length);
    FERRUM_TRY(refuse_rope_scaling(s));
    c->tie_word_embeddings = ferrum_gguf_find_tensor(s->gguf, "output.weight") == NULL;
    return read_tokens(s, c);
}

ferrum_status_t ferrum_model_config_from_gguf(const ferrum_gguf_t *gguf,
                                              ferrum_model_config_t *out_config,
                                              ferrum_error_t *err)
{
    section_t s;
    ferrum_model_config_t c;
    uint32_t experts;
    uint32_t experts_used;
    uint32_t expert_intermediate;
    bool norm_topk_prob = true;
    FERRUM_TRY(open_section(gguf, &s, err));
    if (strcmp(s.architecture, MOE_ARCHITECTURE) != 0)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_OTHER,
                           "%.100s: architecture \"%s\" is not supported; \"" MOE_ARCHITECTURE
                           "\" is",
                           ferrum_gguf_path(gguf), s.architecture);
    FERRUM_TRY(read_base(&s, LONG_ROPE_THETA, &c));
    c.qk_norm = true;
    FERRUM_TRY(need_u32(&s, "expert_count", &experts));
    FERRUM_TRY(need_u32(&s, "expert_used_count", &experts_used));
    FERRUM_TRY(need_u32(&s, "expert_feed_forward_length", &expert_intermediate));
    FERRUM_TRY(opt_bool(&s, "expert_weights_norm", &norm_topk_prob));
    FERRUM_TRY(opt_bool(&s, "expert_norm_topk_prob", &norm_topk_prob));
    FERRUM_TRY(refuse_variants(&s));
    return ferrum_model_config_from_base(&c, experts, experts_used, expert_intermediate,
                                         norm_topk_prob, out_config, err);
}

ferrum_status_t ferrum_model_config_dense_from_gguf(const ferrum_gguf_t *gguf,
                                                    ferrum_model_config_t *out_config,
                                                    ferrum_error_t *err)
{
    section_t s;
    ferrum_model_config_t c;
    FERRUM_TRY(open_section(gguf, &s, err));
    for (size_t i = 0; i < sizeof moe_architectures / sizeof moe_architectures[0]; i++)
        if (strcmp(s.architecture, moe_architectures[i]) == 0)
            return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_EXPERTS,
                               "%.80s: architecture \"%s\" is a mixture of experts; read it with "
                               "ferrum_model_config_from_gguf, the MoE config parser",
                               ferrum_gguf_path(gguf), s.architecture);
    bool qwen3 = strcmp(s.architecture, "qwen3") == 0;
    FERRUM_TRY(read_base(&s, qwen3 ? LONG_ROPE_THETA : SHORT_ROPE_THETA, &c));
    c.qk_norm = qwen3;
    FERRUM_TRY(ferrum_model_config_validate(&c, err));
    *out_config = c;
    return FERRUM_OK;
}
