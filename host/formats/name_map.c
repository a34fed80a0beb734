/* SPDX-License-Identifier: MIT */
#include "host/formats/name_map.h"

#include <inttypes.h>
#include <string.h>

#include <ferrum/util.h>

#include "host/formats/string_view.h"

/* Where a name stands: alone, under a layer, or under an expert of a layer. */
typedef enum scope {
    SCOPE_MODEL,
    SCOPE_LAYER,
    SCOPE_EXPERT
} scope_t;

#define HF_LAYERS "model.layers."
#define HF_EXPERTS "mlp.experts."
#define GGUF_LAYERS "blk."

/* The one table. From GGUF to HF the first of several rows wins. */
static const struct {
    scope_t scope;
    const char *hf;
    const char *gguf;
} names[] = {
    {SCOPE_MODEL, "model.embed_tokens", "token_embd"},
    {SCOPE_MODEL, "model.norm", "output_norm"},
    {SCOPE_MODEL, "lm_head", "output"},
    {SCOPE_LAYER, "input_layernorm", "attn_norm"},
    {SCOPE_LAYER, "post_attention_layernorm", "ffn_norm"},
    {SCOPE_LAYER, "self_attn.q_proj", "attn_q"},
    {SCOPE_LAYER, "self_attn.k_proj", "attn_k"},
    {SCOPE_LAYER, "self_attn.v_proj", "attn_v"},
    {SCOPE_LAYER, "self_attn.o_proj", "attn_output"},
    {SCOPE_LAYER, "self_attn.q_norm", "attn_q_norm"},
    {SCOPE_LAYER, "self_attn.k_norm", "attn_k_norm"},
    {SCOPE_LAYER, "mlp.gate", "ffn_gate_inp"},
    {SCOPE_LAYER, "mlp.router", "ffn_gate_inp"},
    {SCOPE_LAYER, "mlp.gate_proj", "ffn_gate"},
    {SCOPE_LAYER, "mlp.up_proj", "ffn_up"},
    {SCOPE_LAYER, "mlp.down_proj", "ffn_down"},
    {SCOPE_EXPERT, "gate_proj", "ffn_gate_exps"},
    {SCOPE_EXPERT, "up_proj", "ffn_up_exps"},
    {SCOPE_EXPERT, "down_proj", "ffn_down_exps"},
};

/* Virtual names: several tensors as one, rows after rows. */
static const struct {
    scope_t scope;
    const char *fused;
    const char *parts[FERRUM_FUSED_MAX_PARTS];
} fused_names[] = {
    {SCOPE_LAYER,
     "self_attn.qkv_proj",
     {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}},
    {SCOPE_LAYER, "mlp.gate_up_proj", {"mlp.gate_proj", "mlp.up_proj", NULL}},
    {SCOPE_EXPERT, "gate_up_proj", {"gate_proj", "up_proj", NULL}},
};

/* A name taken apart. */
typedef struct parts {
    scope_t scope;
    uint32_t layer;
    uint32_t expert;
    ferrum_string_view_t stem; /* without prefix and suffix */
    const char *suffix;        /* ".weight" or ".bias" */
} parts_t;

static bool skip_prefix(ferrum_string_view_t *text, const char *prefix)
{
    size_t length = strlen(prefix);
    if (text->length < length || memcmp(text->data, prefix, length) != 0)
        return false;
    text->data += length;
    text->length -= length;
    return true;
}

/* "12." -> 12; no sign, no leading zero, at most nine digits. */
static bool skip_number(ferrum_string_view_t *text, uint32_t *out_number)
{
    uint32_t number = 0;
    size_t digits = 0;
    while (digits < text->length && digits < 10 && text->data[digits] >= '0' &&
           text->data[digits] <= '9')
        number = number * 10 + (uint32_t)(text->data[digits++] - '0');
    if (digits == 0 || digits > 9 || (digits > 1 && text->data[0] == '0'))
        return false;
    text->data += digits;
    text->length -= digits;
    *out_number = number;
    return skip_prefix(text, ".");
}

static bool cut_suffix(ferrum_string_view_t *text, const char **out_suffix)
{
    static const char *const suffixes[] = {".weight", ".bias"};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        size_t length = strlen(suffixes[i]);
        if (text->length > length &&
            memcmp(text->data + text->length - length, suffixes[i], length) == 0) {
            text->length -= length;
            *out_suffix = suffixes[i];
            return true;
        }
    }
    return false;
}

static bool parse_hf(const char *name, parts_t *out_parts)
{
    memset(out_parts, 0, sizeof *out_parts);
    out_parts->stem = ferrum_view(name);
    if (!cut_suffix(&out_parts->stem, &out_parts->suffix))
        return false;
    out_parts->scope = SCOPE_MODEL;
    if (!skip_prefix(&out_parts->stem, HF_LAYERS))
        return true;
    out_parts->scope = SCOPE_LAYER;
    if (!skip_number(&out_parts->stem, &out_parts->layer))
        return false;
    if (!skip_prefix(&out_parts->stem, HF_EXPERTS))
        return true;
    out_parts->scope = SCOPE_EXPERT;
    return skip_number(&out_parts->stem, &out_parts->expert);
}

static bool parse_gguf(const char *name, parts_t *out_parts)
{
    memset(out_parts, 0, sizeof *out_parts);
    out_parts->stem = ferrum_view(name);
    if (!cut_suffix(&out_parts->stem, &out_parts->suffix))
        return false;
    out_parts->scope = SCOPE_MODEL;
    if (!skip_prefix(&out_parts->stem, GGUF_LAYERS))
        return true;
    out_parts->scope = SCOPE_LAYER;
    return skip_number(&out_parts->stem, &out_parts->layer);
}

/* Known stems are short, so that the result always fits; a caller passes only those. */
static void compose_hf(const parts_t *parts, const char *stem, ferrum_tensor_name_t out_name)
{
    char expert[32] = "";
    if (parts->scope == SCOPE_EXPERT)
        (void)snprintf(expert, sizeof expert, HF_EXPERTS "%" PRIu32 ".", parts->expert);
    if (parts->scope == SCOPE_MODEL)
        (void)snprintf(out_name, FERRUM_TENSOR_NAME_BYTES, "%s%s", stem, parts->suffix);
    else
        (void)snprintf(out_name, FERRUM_TENSOR_NAME_BYTES, HF_LAYERS "%" PRIu32 ".%s%s%s",
                       parts->layer, expert, stem, parts->suffix);
}

static void compose_gguf(const parts_t *parts, const char *stem, ferrum_tensor_name_t out_name)
{
    if (parts->scope == SCOPE_MODEL)
        (void)snprintf(out_name, FERRUM_TENSOR_NAME_BYTES, "%s%s", stem, parts->suffix);
    else
        (void)snprintf(out_name, FERRUM_TENSOR_NAME_BYTES, GGUF_LAYERS "%" PRIu32 ".%s%s",
                       parts->layer, stem, parts->suffix);
}

static ferrum_status_t fail_unknown(const char *kind, const char *name, ferrum_error_t *err)
{
    return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_OTHER,
                       "\"%.150s\" is not a known %s tensor name", name, kind);
}

ferrum_status_t ferrum_name_to_gguf(const char *hf_name, ferrum_tensor_name_t out_name,
                                    int64_t *out_expert, ferrum_error_t *err)
{
    parts_t parts;
    if (!parse_hf(hf_name, &parts))
        return fail_unknown("Hugging Face", hf_name, err);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (names[i].scope == parts.scope &&
            ferrum_view_equal(parts.stem, ferrum_view(names[i].hf))) {
            compose_gguf(&parts, names[i].gguf, out_name);
            *out_expert = parts.scope == SCOPE_EXPERT ? (int64_t)parts.expert : FERRUM_NO_EXPERT;
            return FERRUM_OK;
        }
    }
    return fail_unknown("Hugging Face", hf_name, err);
}

ferrum_status_t ferrum_name_to_hf(const char *gguf_name, int64_t expert,
                                  ferrum_tensor_name_t out_name, ferrum_error_t *err)
{
    parts_t parts;
    if (!parse_gguf(gguf_name, &parts))
        return fail_unknown("GGUF", gguf_name, err);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        bool model = names[i].scope == SCOPE_MODEL;
        if (model != (parts.scope == SCOPE_MODEL) ||
            !ferrum_view_equal(parts.stem, ferrum_view(names[i].gguf)))
            continue;
        bool stacked = names[i].scope == SCOPE_EXPERT;
        if (stacked ? expert < 0 || expert > 999999999 : expert != FERRUM_NO_EXPERT)
            return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_EXPERTS,
                               "expert %" PRId64 " given for %.120s, which %s", expert, gguf_name,
                               stacked ? "stacks experts 0 and up" : "stacks no experts");
        parts.scope = names[i].scope;
        parts.expert = stacked ? (uint32_t)expert : 0;
        compose_hf(&parts, names[i].hf, out_name);
        return FERRUM_OK;
    }
    return fail_unknown("GGUF", gguf_name, err);
}

void ferrum_name_fused_parts(const char *hf_name,
                             ferrum_tensor_name_t out_parts[FERRUM_FUSED_MAX_PARTS],
                             uint32_t *out_count)
{
    parts_t parts;
    *out_count = 0;
    if (!parse_hf(hf_name, &parts))
        return;
    for (size_t row = 0; row < sizeof fused_names / sizeof fused_names[0]; row++) {
        if (fused_names[row].scope != parts.scope ||
            !ferrum_view_equal(parts.stem, ferrum_view(fused_names[row].fused)))
            continue;
        for (uint32_t i = 0; i < FERRUM_FUSED_MAX_PARTS && fused_names[row].parts[i]; i++) {
            compose_hf(&parts, fused_names[row].parts[i], out_parts[i]);
            *out_count = i + 1;
        }
    }
}
