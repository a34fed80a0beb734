/* SPDX-License-Identifier: MIT */
/*
 * What verify_ecosystem.py compares with other software:
 *   ferrum-dump --logits-json MODEL PROMPT   {"tokens": [...], "logits": [...]} of the last
 * position ferrum-dump --dump-tensor MODEL NAME     one GGUF tensor, decoded, as raw little-endian
 * f32
 */
#include <ferrum/model.h>

#include "host/formats/gguf.h"
#include "kernels/kernels.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_TOKENS = 4096
};

static int fail(const ferrum_error_t *err)
{
    fprintf(stderr, "ferrum-dump: %s\n", err->message);
    return 1;
}

static int print_logits(const uint32_t *tokens, size_t count, const float *logits, uint32_t vocab)
{
    json_t *ids = json_array(), *values = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(ids, json_integer(tokens[i]));
    for (uint32_t i = 0; i < vocab; i++)
        json_array_append_new(values, json_real((double)logits[i]));
    json_t *root = json_pack("{s:o, s:o}", "tokens", ids, "logits", values);
    int failed = root == NULL || json_dumpf(root, stdout, JSON_REAL_PRECISION(9)) != 0;
    json_decref(root);
    return failed;
}

static int dump_logits(const char *path, const char *prompt)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_runtime_t *runtime = NULL;
    ferrum_model_t *model = NULL;
    ferrum_model_info_t info = {.head = FERRUM_HEAD(ferrum_model_info_t)};
    static uint32_t tokens[MAX_TOKENS];
    float *logits = NULL;
    size_t count;
    int rc = 1;
    if (ferrum_runtime_open(NULL, &runtime, &err) != FERRUM_OK ||
        ferrum_model_open(runtime, path, NULL, &model, &err) != FERRUM_OK ||
        ferrum_model_get_info(model, &info, &err) != FERRUM_OK ||
        ferrum_model_encode(model, prompt, strlen(prompt), 0, tokens, MAX_TOKENS, &count, &err) !=
            FERRUM_OK) {
        fail(&err);
    } else if ((logits = malloc(info.vocab * sizeof *logits)) != NULL) {
        if (ferrum_model_prefill(model, 0, tokens, (uint32_t)count, logits, &err) != FERRUM_OK)
            fail(&err);
        else
            rc = print_logits(tokens, count, logits, info.vocab);
    }
    free(logits);
    ferrum_model_free(model);
    ferrum_runtime_close(runtime);
    return rc;
}

static int dump_tensor(const char *path, const char *name)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_gguf_t *gguf;
    const ferrum_gguf_tensor_t *tensor;
    if (ferrum_gguf_open(path, &gguf, &err) != FERRUM_OK)
        return fail(&err);
    int rc = 1;
    if (ferrum_gguf_require_tensor(gguf, name, &tensor, &err) != FERRUM_OK) {
        fail(&err);
    } else {
        float *values = malloc(tensor->elements * sizeof *values);
        if (values != NULL) {
            ferrum_kernel_dequant(tensor->format)(tensor->data, values, tensor->elements);
            rc = fwrite(values, sizeof *values, tensor->elements, stdout) != tensor->elements;
        }
        free(values);
    }
    ferrum_gguf_close(gguf);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--logits-json") == 0)
        return dump_logits(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "--dump-tensor") == 0)
        return dump_tensor(argv[2], argv[3]);
    fprintf(stderr, "usage: ferrum-dump --logits-json MODEL PROMPT | --dump-tensor MODEL NAME\n");
    return 2;
}
