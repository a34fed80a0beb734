/* SPDX-License-Identifier: MIT */
#include <ferrum/util.h>

#include <string.h>

#include "host/model/model_internal.h"

ferrum_status_t ferrum_model_encode(const ferrum_model_t *model, const char *text,
                                    size_t text_bytes, int parse_special, uint32_t *out_tokens,
                                    size_t capacity, size_t *out_count, ferrum_error_t *err)
{
    if (!model || !text || !out_count || (!out_tokens && capacity != 0))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "encoding needs a model, text and room for tokens");
    if (!model->shared->tokenizer)
        return ferrum_fail(err, model->shared->tokenizer_error.status,
                           model->shared->tokenizer_error.reason, "%s",
                           model->shared->tokenizer_error.message);
    ferrum_token_list_t list = {0};
    ferrum_encode_flags_t flags = FERRUM_ENCODE_ADD_BOS;
    if (parse_special)
        flags |= FERRUM_ENCODE_PARSE_SPECIAL;
    ferrum_status_t status =
        ferrum_tokenizer_encode(model->shared->tokenizer, text, text_bytes, flags, &list, err);
    if (status == FERRUM_OK) {
        *out_count = list.count;
        if (list.count > capacity)
            status =
                ferrum_fail(err, FERRUM_RESOURCE_EXHAUSTED, FERRUM_REASON_LENGTH,
                            "the text has %zu tokens, there is room for %zu", list.count, capacity);
        else if (list.count != 0)
            memcpy(out_tokens, list.ids, list.count * sizeof *out_tokens);
    }
    ferrum_token_list_free(&list);
    return status;
}

const char *ferrum_model_token_bytes(const ferrum_model_t *model, uint32_t token, size_t *out_bytes)
{
    if (!model || !model->shared->tokenizer ||
        token >= ferrum_tokenizer_vocab_size(model->shared->tokenizer))
        return NULL;
    ferrum_string_view_t bytes = ferrum_tokenizer_bytes(model->shared->tokenizer, (int32_t)token);
    if (out_bytes)
        *out_bytes = bytes.length;
    return bytes.data ? bytes.data : "";
}

int ferrum_model_is_end(const ferrum_model_t *model, uint32_t token)
{
    if (!model)
        return 0;
    if (ferrum_model_config_is_eos(model->config, (int64_t)token))
        return 1;
    return model->shared->tokenizer &&
           ferrum_tokenizer_eos(model->shared->tokenizer) == (int64_t)token;
}
