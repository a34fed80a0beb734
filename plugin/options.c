/* SPDX-License-Identifier: MIT */
#include "options.h"
#include "sys.h"
#include "text.h"

#include <stdlib.h>

/* The one list of variables, sorted by name. */
static const ferrum_option_info_t table[] = {
    {"FERRUM_BACKEND", FERRUM_OPTION_TEXT, "auto",
     "Backend: a name (strict), an ordered list a,b, a path with a '/', or auto (best score)"},
    {"FERRUM_CACHE_DIR", FERRUM_OPTION_TEXT, "",
     "Where plugins in quarantine are recorded; unset: $XDG_CACHE_HOME/ferrum or ~/.cache/ferrum"},
    {"FERRUM_CPU_MASK", FERRUM_OPTION_TEXT, "",
     "Processor features that the cpu backend may use, for testing lower instruction sets"},
    {"FERRUM_CUDA_DEVICE", FERRUM_OPTION_UINT, "0", "Ordinal of the device that is opened"},
    {"FERRUM_CUDA_DRIVER", FERRUM_OPTION_TEXT, "libcuda.so.1",
     "CUDA driver library of the cuda backend"},
    {"FERRUM_CUDA_GEMM", FERRUM_OPTION_TEXT, "own",
     "Dense products on CUDA: own (a row's bits never depend on the batch), auto, cublaslt or a "
     "path"},
    {"FERRUM_CUDA_WGMMA", FERRUM_OPTION_ON_IF_1, "0",
     "Expert products of many rows by Hopper's warpgroup instructions; a row's bits may depend "
     "on its batch then"},
    {"FERRUM_DISABLE_UNLOAD", FERRUM_OPTION_ON_IF_1, "0",
     "Keep plugins mapped after their last use (for sanitizers and profilers)"},
    {"FERRUM_KV_CAPACITY", FERRUM_OPTION_UINT, "512",
     "Positions of the KV cache per request, at most the model's own limit"},
    {"FERRUM_KV_MAX_BLOCKS", FERRUM_OPTION_UINT, "",
     "Blocks in the paged KV pool; unset: enough for FERRUM_PAGED_MAX_SEQS full requests"},
    {"FERRUM_LOG_LEVEL", FERRUM_OPTION_UINT, "1",
     "Messages shown: 0 errors, 1 warnings, 2 information, 3 debugging"},
    {"FERRUM_MAX_BATCHED_TOKENS", FERRUM_OPTION_UINT, "2048",
     "Largest number of tokens in one pass over the layers"},
    {"FERRUM_MOE_BATCHED", FERRUM_OPTION_OFF_IF_0, "1",
     "Decode several requests in one shared pass"},
    {"FERRUM_MOE_BATCHED_DECODE", FERRUM_OPTION_OFF_IF_0, "1",
     "Batched expert kernels in the shared decode pass"},
    {"FERRUM_MOE_BATCH_THRESHOLD", FERRUM_OPTION_UINT, "4",
     "Fewest requests for which the shared decode pass is used"},
    {"FERRUM_MOE_BLOCK_SIZE", FERRUM_OPTION_UINT, "",
     "Alignment block of expert GEMMs: 8, 16, 32, 48 or 64; unset: chosen by size"},
    {"FERRUM_MOE_BUCKETED", FERRUM_OPTION_OFF_IF_0, "1", "Group tokens by expert for GPTQ stacks"},
    {"FERRUM_MOE_DEVICE_ROUTE", FERRUM_OPTION_TRISTATE, "",
     "1 forces routing on the device, 0 forbids it; unset: where the plan supports it"},
    {"FERRUM_MOE_DIRECT_DISPATCH", FERRUM_OPTION_ON_IF_1, "0",
     "No indirect launches in batched prefill"},
    {"FERRUM_MOE_FUSED_GATE_UP_SILU", FERRUM_OPTION_OFF_IF_0, "1",
     "Use the fused gate, up and SiLU kernel where there is one"},
    {"FERRUM_MOE_GRAPH", FERRUM_OPTION_ON_IF_1, "0", "Capture passes and replay them"},
    {"FERRUM_MOE_HOST_ROUTE", FERRUM_OPTION_ON_IF_1, "0", "Route on the host in the bucketed path"},
    {"FERRUM_MOE_HOST_TOPK", FERRUM_OPTION_ON_IF_1, "0",
     "Route on the host in batched prefill of GGUF stacks"},
    {"FERRUM_MOE_LARGE_M_BLOCK_SIZE", FERRUM_OPTION_UINT, "",
     "Alignment block with device routing from FERRUM_MOE_LARGE_M_MIN_PAIRS pairs on"},
    {"FERRUM_MOE_LARGE_M_MIN_PAIRS", FERRUM_OPTION_UINT, "1024",
     "Pairs from which FERRUM_MOE_LARGE_M_BLOCK_SIZE applies"},
    {"FERRUM_MOE_LOAD_TRACE", FERRUM_OPTION_IF_PRESENT, "",
     "Log which form each layer's experts are loaded in"},
    {"FERRUM_MOE_PATH", FERRUM_OPTION_TEXT, "auto",
     "Path through MoE layers: auto, expert_ffn, bucketed, stacked or per-pair"},
    {"FERRUM_MOE_PREFILL_THRESHOLD", FERRUM_OPTION_UINT, "32",
     "Requests from which batched decode uses the GEMM path of prefill"},
    {"FERRUM_MOE_PROFILE", FERRUM_OPTION_IF_PRESENT, "", "Time the parts of the MoE layers"},
    {"FERRUM_NUMA", FERRUM_OPTION_TEXT, "none",
     "Large blocks of weights: none (the node of the thread that packs them) or interleave"},
    {"FERRUM_PAGED_MAX_SEQS", FERRUM_OPTION_UINT, "32", "Requests that the KV pool is sized for"},
    {"FERRUM_PIN", FERRUM_OPTION_TRISTATE, "",
     "Bind threads to cores: 1 always, 0 never; unset: when there is a thread for every core"},
    {"FERRUM_PLUGIN_PATH", FERRUM_OPTION_PATHS, "",
     "Directories that are searched for plugins before the installed one"},
    {"FERRUM_PRECISION", FERRUM_OPTION_TEXT, "accurate",
     "Arithmetic of expert_ffn: accurate, or fast (int8 activations)"},
    {"FERRUM_PREFIX_CACHE", FERRUM_OPTION_ON_IF_1, "0", "Keep KV blocks of prompts for reuse"},
    {"FERRUM_PROBE", FERRUM_OPTION_TEXT, "auto",
     "Plugins probed in a child process first: auto (those nobody named), child (all) or none"},
    {"FERRUM_PROBE_PROGRAM", FERRUM_OPTION_TEXT, "",
     "The program that does this; unset: the installed ferrum-probe"},
    {"FERRUM_PROBE_SECONDS", FERRUM_OPTION_UINT, "10",
     "Time after which such a child is taken for hung"},
    {"FERRUM_THREADS", FERRUM_OPTION_UINT, "",
     "Threads per session; unset: one per core that the process may use"},
    {"FERRUM_USE_VLLM_PAGED_ATTN", FERRUM_OPTION_TRISTATE, "",
     "Layout of the KV pool: 1 vLLM's, 0 FlashAttention's; unset: vLLM's where a device has both"},
    {"FERRUM_VLLM_MOE", FERRUM_OPTION_ON_IF_1, "0", "Fused expert GEMM over aligned blocks"},
    {"FERRUM_VLLM_MOE_PAIR_IDS", FERRUM_OPTION_ON_IF_1, "0",
     "Alignment by pair ids instead of packed rows"},
    {"FERRUM_VLLM_MOE_ZERO_WS", FERRUM_OPTION_ON_IF_1, "0",
     "Clear GEMM workspaces before every phase"},
};
enum {
    OPTION_COUNT = sizeof table / sizeof table[0]
};

struct ferrum_options {
    char *values[OPTION_COUNT]; /* NULL: unset */
};

/* Row of @p name, or OPTION_COUNT. */
static size_t find_option(const char *name)
{
    size_t low = 0, high = OPTION_COUNT;
    while (name && low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(name, table[middle].name);
        if (order == 0)
            return middle;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return OPTION_COUNT;
}

static bool parse_uint(const char *text, uint64_t *out)
{
    uint64_t value = 0;
    if (!text || !*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || !ferrum_mul_u64(value, 10, &value) ||
            !ferrum_add_u64(value, (uint64_t)(*text - '0'), &value))
            return false;
    }
    *out = value;
    return true;
}

const ferrum_option_info_t *ferrum_option_table(size_t *out_count)
{
    if (out_count)
        *out_count = OPTION_COUNT;
    return table;
}

ferrum_status_t ferrum_options_new(ferrum_options_t **out_options, ferrum_error_t *err)
{
    if (!out_options)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL, "out_options is NULL");
    ferrum_options_t *options = ferrum_sys->alloc(sizeof *options);
    if (!options)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory for the options");
    *out_options = options;
    return FERRUM_OK;
}

ferrum_status_t ferrum_options_set(ferrum_options_t *options, const char *name, const char *value,
                                   ferrum_error_t *err)
{
    if (!options || !name)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "options or option name is NULL");
    size_t row = find_option(name);
    if (row == OPTION_COUNT)
        return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_NONE,
                           "there is no option %s; `ferrum env` lists them", name);
    char *copy = NULL;
    if (value) {
        size_t bytes = strlen(value) + 1;
        copy = ferrum_sys->alloc(bytes);
        if (!copy)
            return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                               "no memory for the value of %s", name);
        memcpy(copy, value, bytes);
    }
    ferrum_sys->release(options->values[row]);
    options->values[row] = copy;
    return FERRUM_OK;
}

const char *ferrum_options_get(const ferrum_options_t *options, const char *name)
{
    size_t row = find_option(name);
    return options && row < OPTION_COUNT ? options->values[row] : NULL;
}

uint64_t ferrum_options_uint(const ferrum_options_t *options, const char *name)
{
    size_t row = find_option(name);
    uint64_t value = 0;
    if (row == OPTION_COUNT || table[row].kind != FERRUM_OPTION_UINT)
        return 0;
    if (!options || !parse_uint(options->values[row], &value))
        (void)parse_uint(table[row].default_value, &value);
    return value;
}

int ferrum_options_switch(const ferrum_options_t *options, const char *name)
{
    size_t row = find_option(name);
    if (row == OPTION_COUNT)
        return 0;
    const char *text = options ? options->values[row] : NULL;
    switch (table[row].kind) {
    case FERRUM_OPTION_ON_IF_1:
        return text && strcmp(text, "1") == 0;
    case FERRUM_OPTION_OFF_IF_0:
        return !text || strcmp(text, "0") != 0;
    case FERRUM_OPTION_IF_PRESENT:
        return text != NULL;
    case FERRUM_OPTION_TRISTATE:
        return text && strcmp(text, "1") == 0 ? 1 : text && strcmp(text, "0") == 0 ? 0 : -1;
    default:
        return 0;
    }
}

ferrum_status_t ferrum_options_copy(const ferrum_options_t *options, ferrum_options_t **out_options,
                                    ferrum_error_t *err)
{
    ferrum_options_t *copy = NULL;
    if (!options)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL, "options is NULL");
    FERRUM_TRY(ferrum_options_new(&copy, err));
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        ferrum_status_t status = ferrum_options_set(copy, table[i].name, options->values[i], err);
        if (status != FERRUM_OK) {
            ferrum_options_free(copy);
            return status;
        }
    }
    *out_options = copy;
    return FERRUM_OK;
}

void ferrum_options_free(ferrum_options_t *options)
{
    if (!options)
        return;
    for (size_t i = 0; i < OPTION_COUNT; i++)
        ferrum_sys->release(options->values[i]);
    ferrum_sys->release(options);
}

/* ---- what from_env reports ---- */

const char *ferrum_option_complaint(const char *name, const char *value)
{
    size_t row = find_option(name);
    uint64_t number;
    if (row == OPTION_COUNT)
        return NULL;
    switch (table[row].kind) {
    case FERRUM_OPTION_UINT:
        return parse_uint(value, &number) ? NULL : "is not a decimal number";
    case FERRUM_OPTION_ON_IF_1:
    case FERRUM_OPTION_OFF_IF_0:
    case FERRUM_OPTION_TRISTATE:
        return strcmp(value, "0") == 0 || strcmp(value, "1") == 0 ? NULL : "is neither 0 nor 1";
    default:
        return NULL;
    }
}

/* Edit distance (insert, delete, replace), cut off at the length of the row buffer. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[64];
    size_t width = strlen(b);
    if (width >= sizeof row / sizeof row[0])
        return SIZE_MAX;
    for (size_t j = 0; j <= width; j++)
        row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < width; j++) {
            size_t replace = diagonal + (a[i] != b[j]);
            size_t indel = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;
            diagonal = row[j + 1];
            row[j + 1] = replace < indel ? replace : indel;
        }
    }
    return row[width];
}

const char *ferrum_option_nearest(const char *name)
{
    const char *nearest = NULL;
    size_t least = 4; /* farther names are not misspellings */
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        size_t distance = edit_distance(name, table[i].name);
        if (distance < least) {
            least = distance;
            nearest = table[i].name;
        }
    }
    return nearest;
}
