/* SPDX-License-Identifier: MIT */
/* `ferrum inspect`: metadata, tensors and memory need of a model, without loading it. */
#include "tools/ferrum/inspect_held.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum {
    KV_POSITIONS = 4096,
    FORMATS = 64
};

/* How much of the file each format takes. */
typedef struct share {
    const char *name;
    uint64_t bytes;
    uint32_t tensors;
} share_t;

typedef struct shares {
    share_t item[FORMATS];
    size_t count;
    uint64_t bytes; /* of all tensors */
} shares_t;

static void add_share(shares_t *shares, const char *name, uint64_t bytes)
{
    size_t i = 0;
    while (i < shares->count && strcmp(shares->item[i].name, name) != 0)
        i++;
    if (i == FORMATS)
        return;
    if (i == shares->count)
        shares->item[shares->count++] = (share_t){name, 0, 0};
    shares->item[i].bytes += bytes;
    shares->item[i].tensors++;
    shares->bytes += bytes;
}

static void format_dims(const uint64_t *dims, uint32_t count, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < count && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%llu", i ? "x" : "",
                                 (unsigned long long)dims[i]);
}

/* Long arrays and texts are cut: a vocabulary does not belong on a terminal. */
static void print_key(const ferrum_gguf_key_t *key)
{
    printf("  %-48.*s %-6s ", (int)key->name.length, key->name.data,
           ferrum_gguf_type_name(key->type));
    switch (key->type) {
    case FERRUM_GGUF_STRING: {
        ferrum_string_view_t text;
        ferrum_gguf_array_strings(key, &text);
        printf("%.*s%s\n", (int)(text.length > 60 ? 60 : text.length), text.data,
               text.length > 60 ? "..." : "");
        break;
    }
    case FERRUM_GGUF_ARRAY:
        printf("%llu x %s\n", (unsigned long long)key->count,
               ferrum_gguf_type_name(key->item_type));
        break;
    case FERRUM_GGUF_F32:
    case FERRUM_GGUF_F64:
        printf("%g\n", ferrum_gguf_item_f64(key, 0));
        break;
    default:
        printf("%lld\n", (long long)ferrum_gguf_item_i64(key, 0));
    }
}

static void print_tensor_line(const char *name, int name_bytes, const char *format,
                              const char *dims, uint64_t bytes)
{
    char text[24];
    printf("  %-48.*s %-7s %-20s %s\n", name_bytes, name, format, dims, cli_bytes(bytes, text));
}

static const char *gguf_format_name(const ferrum_gguf_tensor_t *tensor)
{
    return tensor->traits ? tensor->traits->name : "unsupported";
}

static void list_gguf(const ferrum_gguf_t *gguf, bool each, shares_t *shares)
{
    if (each) {
        printf("metadata\n");
        for (uint32_t i = 0; i < ferrum_gguf_key_count(gguf); i++)
            print_key(ferrum_gguf_key_at(gguf, i));
        printf("tensors\n");
    }
    for (uint32_t i = 0; i < ferrum_gguf_tensor_count(gguf); i++) {
        const ferrum_gguf_tensor_t *tensor = ferrum_gguf_tensor_at(gguf, i);
        add_share(shares, gguf_format_name(tensor), tensor->bytes);
        if (each) {
            char dims[96];
            format_dims(tensor->dims, tensor->dims_count, dims, sizeof dims);
            print_tensor_line(tensor->name.data, (int)tensor->name.length, gguf_format_name(tensor),
                              dims, tensor->bytes);
        }
    }
}

static void list_safetensors(const ferrum_safetensors_t *checkpoint, bool each, shares_t *shares)
{
    if (each)
        printf("tensors\n");
    for (uint32_t i = 0; i < ferrum_safetensors_tensor_count(checkpoint); i++) {
        const ferrum_safetensors_tensor_t *tensor = ferrum_safetensors_tensor_at(checkpoint, i);
        const char *dtype = ferrum_safetensors_dtype_name(tensor->dtype);
        add_share(shares, dtype, tensor->bytes);
        if (each) {
            char dims[96];
            format_dims(tensor->dims, tensor->dims_count, dims, sizeof dims);
            print_tensor_line(tensor->name.data, (int)tensor->name.length, dtype, dims,
                              tensor->bytes);
        }
    }
}

static uint64_t kv_bytes(const ferrum_model_config_t *config, uint64_t positions)
{
    return 2 * (uint64_t)config->layers * config->kv_heads * config->head_dim * sizeof(float) *
           positions;
}

static void print_config(const ferrum_model_config_t *config)
{
    printf("model     %s: %u layers, hidden %u, %u/%u heads x %u, vocabulary %u, context %u\n",
           config->architecture, config->layers, config->hidden, config->heads, config->kv_heads,
           config->head_dim, config->vocab, config->context_length);
    if (config->experts > 0)
        printf("experts   %u per layer, top-%u, intermediate %u%s\n", config->experts,
               config->experts_used, config->expert_intermediate,
               config->norm_topk_prob ? ", renormalised" : "");
    if (config->gptq.present) {
        printf("GPTQ      %u bits, ", config->gptq.bits);
        if (config->gptq.group_size > 0)
            printf("group %u", config->gptq.group_size);
        else
            printf("per channel");
        printf("%s, %s, zeros stored %s\n", config->gptq.desc_act ? ", act-order" : "",
               config->gptq.sym ? "symmetric" : "asymmetric",
               config->gptq.zero_convention == FERRUM_ZERO_STORED ? "as they are" : "minus one");
    }
}

/* What the backend would make of the bytes in the file. */
static double held_ratio(const held_t *held, const shares_t *shares)
{
    return shares->bytes > 0 ? (double)held->bytes / (double)shares->bytes : 0;
}

static void print_summary(const ferrum_model_config_t *config, const shares_t *shares,
                          const held_t *held)
{
    char text[24], other[24];
    printf("weights   %s:", cli_bytes(shares->bytes, text));
    for (size_t i = 0; i < shares->count; i++)
        printf("%s %s %s (%u)", i ? "," : "", shares->item[i].name,
               cli_bytes(shares->item[i].bytes, other), shares->item[i].tensors);
    printf("\n");
    if (held != NULL)
        printf("loaded    %s by %s (%s): %.3f x the weights\n", cli_bytes(held->bytes, text),
               held->backend, held->detail, held_ratio(held, shares));
    if (config != NULL) {
        uint64_t kv = kv_bytes(config, KV_POSITIONS);
        printf("memory    %s = weights + %s of KV cache for %d positions on cpu\n",
               cli_bytes(shares->bytes + kv, text), cli_bytes(kv, other), KV_POSITIONS);
    }
}

static int print_json(const char *path, const ferrum_model_config_t *config, const shares_t *shares,
                      const held_t *held)
{
    json_t *formats = json_object();
    for (size_t i = 0; i < shares->count; i++)
        json_object_set_new(formats, shares->item[i].name,
                            json_pack("{s:I, s:i}", "bytes", (json_int_t)shares->item[i].bytes,
                                      "tensors", (int)shares->item[i].tensors));
    json_t *root = json_pack("{s:s, s:I, s:o}", "path", path, "weight_bytes",
                             (json_int_t)shares->bytes, "formats", formats);
    if (root != NULL && held != NULL)
        json_object_set_new(root, "loaded",
                            json_pack("{s:s, s:I, s:f}", "backend", held->backend, "bytes",
                                      (json_int_t)held->bytes, "per_weight_byte",
                                      held_ratio(held, shares)));
    if (root != NULL && config != NULL)
        json_object_set_new(
            root, "config",
            json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:I}",
                      "architecture", config->architecture, "layers", (int)config->layers, "hidden",
                      (int)config->hidden, "heads", (int)config->heads, "kv_heads",
                      (int)config->kv_heads, "head_dim", (int)config->head_dim, "vocab",
                      (int)config->vocab, "experts", (int)config->experts, "top_k",
                      (int)config->experts_used, "intermediate", (int)config->expert_intermediate,
                      "context_length", (int)config->context_length, "kv_bytes_per_position",
                      (json_int_t)kv_bytes(config, 1)));
    if (root == NULL)
        return cli_error(CLI_RESOURCES, "out of memory for the result");
    json_dumpf(root, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(root);
    return CLI_OK;
}

/* A file whose tensors are fine but whose architecture Ferrum does not run is still worth showing:
 * the reason is printed instead of the config. */
static int report(const char *path, bool as_json, ferrum_status_t config_status,
                  const ferrum_model_config_t *config, const ferrum_error_t *err,
                  const shares_t *shares, const held_t *held)
{
    if (as_json) {
        int rc = print_json(path, config_status == FERRUM_OK ? config : NULL, shares, held);
        return rc == CLI_OK ? cli_finish_output() : rc;
    }
    if (config_status == FERRUM_OK)
        print_config(config);
    else
        printf("model     cannot be run: %s\n", err->message);
    print_summary(config_status == FERRUM_OK ? config : NULL, shares, held);
    return cli_finish_output();
}

static int inspect_gguf(const char *path, bool each, bool as_json)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_gguf_t *gguf;
    ferrum_model_config_t config;
    shares_t shares = {.count = 0};
    held_t held;
    int rc = CLI_OK;
    ferrum_status_t status = ferrum_gguf_open(path, &gguf, &err);
    if (status != FERRUM_OK)
        return cli_fail(&err, status, CLI_MODEL);
    status = ferrum_model_config_from_gguf(gguf, &config, &err);
    const bool asked = cli_backend.backend != NULL && status == FERRUM_OK;
    if (asked && (rc = held_of_gguf(gguf, &held)) != CLI_OK)
        goto close_gguf;
    if (!as_json)
        printf("file      %s: GGUF version %u, %u keys, %u tensors\n", path,
               ferrum_gguf_version(gguf), ferrum_gguf_key_count(gguf),
               ferrum_gguf_tensor_count(gguf));
    list_gguf(gguf, each && !as_json, &shares);
    rc = report(path, as_json, status, &config, &err, &shares, asked ? &held : NULL);
close_gguf:
    ferrum_gguf_close(gguf);
    return rc;
}

static int inspect_safetensors(const char *path, bool directory, bool each, bool as_json)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_safetensors_t *checkpoint;
    ferrum_model_config_t config;
    shares_t shares = {.count = 0};
    held_t held;
    int rc = CLI_OK;
    ferrum_status_t status = ferrum_safetensors_open(path, &checkpoint, &err);
    if (status != FERRUM_OK)
        return cli_fail(&err, status, CLI_MODEL);
    if (directory)
        status = ferrum_model_config_from_directory(path, &config, &err);
    else
        status = ferrum_fail(&err, FERRUM_UNSUPPORTED, FERRUM_REASON_OTHER,
                             "a single safetensors file has no config.json; name its directory");
    const bool asked = cli_backend.backend != NULL && status == FERRUM_OK;
    if (asked && (rc = held_of_checkpoint(checkpoint, &config, &held)) != CLI_OK)
        goto close_checkpoint;
    if (!as_json)
        printf("file      %s: safetensors, %u files, %u tensors\n", path,
               ferrum_safetensors_shard_count(checkpoint),
               ferrum_safetensors_tensor_count(checkpoint));
    list_safetensors(checkpoint, each && !as_json, &shares);
    rc = report(path, as_json, status, &config, &err, &shares, asked ? &held : NULL);
close_checkpoint:
    ferrum_safetensors_close(checkpoint);
    return rc;
}

int cli_inspect(int argc, const char **argv)
{
    int each = 0, as_json = 0;
    const struct poptOption table[] = {
        {"tensors", '\0', POPT_ARG_NONE, &each, 0, "list metadata and every tensor", NULL},
        {"json", '\0', POPT_ARG_NONE, &as_json, 0, "one JSON object", NULL},
        {"backend", 'b', POPT_ARG_STRING, &cli_backend.backend, 0,
         "say what this backend would hold of the weights", "SPEC"},
        POPT_TABLEEND};
    poptContext context;
    bool help;
    int rc = cli_parse(argc, argv, table, "inspect [--tensors] [--json] [-b SPEC] PATH", &context,
                       &help);
    if (rc != CLI_OK || help)
        return rc;
    const char *path = poptGetArg(context);
    const char *extra = path ? poptGetArg(context) : NULL;
    struct stat file;
    if (path == NULL || extra != NULL) {
        rc = cli_error(CLI_USAGE, "inspect takes one file or directory");
    } else if (stat(path, &file) != 0) {
        rc = cli_error(CLI_MODEL, "%s: no such file or directory", path);
    } else {
        const char *dot = strrchr(path, '.');
        bool tensors =
            dot != NULL && (strcmp(dot, ".safetensors") == 0 || strcmp(dot, ".json") == 0);
        rc = S_ISDIR(file.st_mode) || tensors
                 ? inspect_safetensors(path, S_ISDIR(file.st_mode), each != 0, as_json != 0)
                 : inspect_gguf(path, each != 0, as_json != 0);
    }
    poptFreeContext(context);
    return rc;
}
