/* SPDX-License-Identifier: MIT */
/* `ferrum generate`: a prompt in, a continuation out. Only the text goes to stdout, so that it can
 * be piped; --json puts one object there instead. */
#include "tools/ferrum/cli.h"

#include <errno.h>
#include <ferrum/swap.h>
#include <ferrum/util.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct generate_flags {
    char *model, *prompt, *file;
    int tokens, top_k, window, json, no_echo, ignore_end, special, capacity;
    long long seed;
    float temperature, top_p, min_p, penalty;
    const char **swap_after; /* numbers of tokens as they were written, NULL at the end; or NULL */
} generate_flags_t;

/* One --swap-at. */
typedef struct planned_swap {
    unsigned long after;
    const char *backend;
    bool done;
} planned_swap_t;

/* All of them, in the order in which they were given. */
typedef struct swap_plan {
    ferrum_runtime_t *runtime;
    planned_swap_t *swaps;
    size_t count;
    ferrum_status_t status; /* of the one that failed */
    ferrum_error_t error;
    json_t *report;
} swap_plan_t;

/* What the token callback needs. */
typedef struct sink {
    bool json;
    bool broken;      /* stdout could not be written */
    const char *echo; /* the prompt, until it has been printed; NULL: nothing to print */
    size_t echo_bytes;
    char *text;
    size_t text_bytes, text_capacity;
    json_t *tokens;
    unsigned long generated;
    swap_plan_t *plan;
} sink_t;

static bool sink_append(sink_t *sink, const char *text, size_t bytes)
{
    if (sink->text_bytes + bytes > sink->text_capacity) {
        size_t capacity = (sink->text_bytes + bytes) * 2;
        char *grown = realloc(sink->text, capacity);
        if (grown == NULL)
            return false;
        sink->text = grown;
        sink->text_capacity = capacity;
    }
    if (bytes > 0)
        memcpy(sink->text + sink->text_bytes, text, bytes);
    sink->text_bytes += bytes;
    return true;
}

/* The prompt goes out with the first token, so that a failing prefill prints nothing. */
static void print_echo(sink_t *sink)
{
    if (sink->echo != NULL && fwrite(sink->echo, 1, sink->echo_bytes, stdout) != sink->echo_bytes)
        sink->broken = true;
    sink->echo = NULL;
}

/* ---- changing the backend on the way ---- */

static size_t count_texts(const char *const *texts)
{
    size_t count = 0;
    while (texts != NULL && texts[count] != NULL)
        count++;
    return count;
}

/* Numbers come from --swap-at, backends from the arguments that are left. */
static int read_plan(const char *const *numbers, const char *const *backends, swap_plan_t *plan)
{
    size_t count = count_texts(numbers), given = count_texts(backends);
    if (given > count)
        return cli_error(CLI_USAGE, "generate: unexpected argument \"%s\"", backends[count]);
    if (given < count)
        return cli_error(CLI_USAGE, "--swap-at %s: name the backend behind it: --swap-at %s cpu",
                         numbers[given], numbers[given]);
    plan->swaps = calloc(count + 1, sizeof *plan->swaps);
    if (plan->swaps == NULL)
        return cli_error(CLI_RESOURCES, "out of memory");
    for (size_t i = 0; i < count; i++) {
        char *end;
        errno = 0;
        plan->swaps[i].after = strtoul(numbers[i], &end, 10);
        plan->swaps[i].backend = backends[i];
        if (errno != 0 || *end != '\0' || numbers[i][0] == '-' || plan->swaps[i].after == 0)
            return cli_error(CLI_USAGE, "--swap-at %s: the number of tokens must be 1 or more",
                             numbers[i]);
    }
    plan->count = count;
    return CLI_OK;
}

static bool swap_now(swap_plan_t *plan, planned_swap_t *swap)
{
    ferrum_swap_options_t options = {.head = FERRUM_HEAD(ferrum_swap_options_t),
                                     .backend = swap->backend};
    ferrum_swap_report_t report = {.head = FERRUM_HEAD(ferrum_swap_report_t)};
    plan->error = (ferrum_error_t)FERRUM_ERROR_INIT;
    plan->status = ferrum_runtime_swap(plan->runtime, &options, &report, &plan->error);
    swap->done = true;
    if (plan->status != FERRUM_OK)
        return false;
    fflush(stdout);
    fprintf(stderr,
            "ferrum: swapped %s for %s after %lu tokens: paused %.2f ms, took %.1f ms; the old "
            "one: %s\n",
            report.from, report.to, swap->after, report.pause_ms, report.total_ms, report.detail);
    json_t *entry =
        json_pack("{s:i, s:s, s:s, s:f, s:f}", "after", (int)swap->after, "from", report.from, "to",
                  report.to, "pause_ms", report.pause_ms, "total_ms", report.total_ms);
    return json_array_append_new(plan->report, entry) == 0;
}

static bool swaps_due(swap_plan_t *plan, unsigned long generated)
{
    for (size_t i = 0; i < plan->count; i++)
        if (plan->swaps[i].after == generated && !swap_now(plan, &plan->swaps[i]))
            return false;
    return true;
}

static void mention_missed(const swap_plan_t *plan, unsigned long generated)
{
    for (size_t i = 0; i < plan->count; i++)
        if (!plan->swaps[i].done)
            fprintf(stderr, "ferrum: --swap-at %lu: only %lu tokens were generated\n",
                    plan->swaps[i].after, generated);
}

/* ---- tokens ---- */

static int on_token(void *arg, uint32_t token, const char *text, size_t bytes)
{
    sink_t *sink = arg;
    print_echo(sink);
    if (sink->json) {
        if (json_array_append_new(sink->tokens, json_integer(token)) != 0 ||
            !sink_append(sink, text, bytes))
            return 1;
    } else if (sink->broken || fwrite(text, 1, bytes, stdout) != bytes || fflush(stdout) != 0) {
        sink->broken = true;
        return 1;
    }
    if (!swaps_due(sink->plan, ++sink->generated))
        return 1;
    return cli_interrupted;
}

static int check_flags(const generate_flags_t *flags)
{
    if (flags->model == NULL)
        return cli_error(CLI_USAGE, "generate needs a model: -m FILE.gguf or -m DIRECTORY");
    if ((flags->prompt != NULL) == (flags->file != NULL))
        return cli_error(CLI_USAGE, "generate needs a prompt: either -p TEXT or -f FILE");
    if (flags->tokens < 0)
        return cli_error(CLI_USAGE, "-n %d: the number of tokens cannot be negative",
                         flags->tokens);
    if (!(flags->temperature >= 0) || !isfinite(flags->temperature))
        return cli_error(CLI_USAGE, "--temperature %g: must be 0 (greedy) or positive",
                         (double)flags->temperature);
    if (!(flags->top_p >= 0 && flags->top_p <= 1) || !(flags->min_p >= 0 && flags->min_p <= 1))
        return cli_error(CLI_USAGE, "--top-p and --min-p must lie between 0 and 1");
    if (flags->top_k < 0 || flags->window < 0 || flags->capacity < 0 || !(flags->penalty >= 0))
        return cli_error(CLI_USAGE, "sampling options cannot be negative");
    return CLI_OK;
}

static ferrum_status_t encode(const ferrum_model_t *model, const char *text, size_t bytes,
                              int special, uint32_t **out_tokens, size_t *out_count,
                              ferrum_error_t *err)
{
    /* A token stands for at least one byte, except that NFC may make text longer (at most 3x). */
    size_t capacity = bytes * 3 + 16;
    uint32_t *tokens = malloc(capacity * sizeof *tokens);
    if (tokens == NULL) {
        snprintf(err->message, sizeof err->message, "out of memory for the prompt");
        return FERRUM_OUT_OF_MEMORY;
    }
    ferrum_status_t status =
        ferrum_model_encode(model, text, bytes, special, tokens, capacity, out_count, err);
    if (status != FERRUM_OK)
        free(tokens);
    else
        *out_tokens = tokens;
    return status;
}

/* Said before the first token and not after the last one that fits. */
static ferrum_status_t check_room(const ferrum_model_t *model, size_t prompt, int tokens,
                                  ferrum_error_t *err)
{
    ferrum_model_info_t info = {.head = FERRUM_HEAD(ferrum_model_info_t)};
    ferrum_status_t status = ferrum_model_get_info(model, &info, err);
    size_t need = prompt + (tokens > 0 ? (size_t)tokens - 1 : 0);
    if (status == FERRUM_OK && need > info.kv_capacity)
        status = ferrum_fail(err, FERRUM_RESOURCE_EXHAUSTED, FERRUM_REASON_LENGTH,
                             "%zu prompt tokens and -n %d need %zu positions, the cache has a "
                             "capacity of %u; raise --kv-capacity (the model allows %u)",
                             prompt, tokens, need, info.kv_capacity, info.context_length);
    return status;
}

static int print_json(const generate_flags_t *flags, ferrum_runtime_t *runtime, const char *prompt,
                      size_t prompt_bytes, sink_t *sink, const ferrum_generate_result_t *result,
                      double load_ms)
{
    double prefill_s = result->prefill_ms / 1e3, decode_s = result->decode_ms / 1e3;
    uint32_t decoded = result->generated_tokens > 0 ? result->generated_tokens - 1 : 0;
    json_t *root = json_pack(
        "{s:s, s:s, s:s%, s:s%, s:O, s:i, s:i, s:b, s:{s:f, s:f, s:f, s:f, s:f}}", "model",
        flags->model, "backend", ferrum_module_name(ferrum_runtime_module(runtime)), "prompt",
        prompt, prompt_bytes, "text", sink->text ? sink->text : "", sink->text_bytes, "tokens",
        sink->tokens, "prompt_tokens", (int)result->prompt_tokens, "generated_tokens",
        (int)result->generated_tokens, "ended", (int)result->stopped_by_end, "timings", "load_ms",
        load_ms, "prefill_ms", result->prefill_ms, "decode_ms", result->decode_ms,
        "prefill_tokens_per_second", prefill_s > 0 ? result->prompt_tokens / prefill_s : 0.0,
        "decode_tokens_per_second", decode_s > 0 ? decoded / decode_s : 0.0);
    if (root != NULL && sink->plan->count > 0)
        json_object_set(root, "swaps", sink->plan->report);
    if (root == NULL)
        return cli_error(CLI_RESOURCES, "out of memory for the result");
    json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(root);
    return cli_finish_output();
}

static int run(const generate_flags_t *flags, swap_plan_t *plan, const char *prompt,
               size_t prompt_bytes)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_runtime_t *runtime;
    ferrum_model_t *model;
    double start = cli_now();
    int rc = cli_open_model(flags->model, (uint32_t)flags->capacity, 1, &runtime, &model);
    if (rc != CLI_OK)
        return rc;
    double load_ms = (cli_now() - start) * 1e3;

    uint32_t *tokens = NULL;
    size_t count = 0;
    sink_t sink = {.json = flags->json != 0, .tokens = json_array(), .plan = plan};
    plan->runtime = runtime;
    plan->report = json_array();
    ferrum_status_t status =
        encode(model, prompt, prompt_bytes, flags->special, &tokens, &count, &err);
    ferrum_generate_result_t result = {.head = FERRUM_HEAD(ferrum_generate_result_t)};
    if (status == FERRUM_OK) {
        ferrum_generate_options_t options = {
            .head = FERRUM_HEAD(ferrum_generate_options_t),
            .max_tokens = (uint32_t)flags->tokens,
            .temperature = flags->temperature,
            .top_k = (uint32_t)flags->top_k,
            .top_p = flags->top_p,
            .min_p = flags->min_p,
            .repetition_penalty = flags->penalty,
            .repetition_window = (uint32_t)flags->window,
            .seed = (uint64_t)flags->seed,
            .ignore_end = (uint32_t)flags->ignore_end,
        };
        if (!flags->json && !flags->no_echo) {
            sink.echo = prompt;
            sink.echo_bytes = prompt_bytes;
        }
        status = check_room(model, count, flags->tokens, &err);
        if (status == FERRUM_OK)
            status = ferrum_generate(model, 0, tokens, (uint32_t)count, &options, on_token, &sink,
                                     &result, &err);
        if (status == FERRUM_OK)
            print_echo(&sink);
    }
    if (status != FERRUM_OK)
        rc = cli_fail(&err, status, CLI_FAILED);
    else if (plan->status != FERRUM_OK)
        rc = cli_fail(&plan->error, plan->status, CLI_BACKEND);
    else if (sink.broken)
        rc = cli_error(CLI_FAILED, "cannot write the output: %s", strerror(errno));
    else if (flags->json)
        rc = print_json(flags, runtime, prompt, prompt_bytes, &sink, &result, load_ms);
    else {
        putchar('\n');
        rc = cli_finish_output();
    }
    if (rc == CLI_OK)
        mention_missed(plan, sink.generated);
    if (rc == CLI_OK && cli_interrupted)
        rc = CLI_INTERRUPTED;
    json_decref(plan->report);
    json_decref(sink.tokens);
    free(sink.text);
    free(tokens);
    ferrum_model_free(model);
    ferrum_runtime_close(runtime);
    return rc;
}

int cli_generate(int argc, const char **argv)
{
    generate_flags_t flags = {.tokens = 128, .seed = 0, .temperature = 0.8F, .top_p = 0.95F};
    const struct poptOption table[] = {
        {"model", 'm', POPT_ARG_STRING, &flags.model, 0, "a .gguf file or a GPTQ directory",
         "PATH"},
        {"prompt", 'p', POPT_ARG_STRING, &flags.prompt, 0, "the prompt", "TEXT"},
        {"file", 'f', POPT_ARG_STRING, &flags.file, 0, "read the prompt from a file, - for stdin",
         "FILE"},
        {"tokens", 'n', POPT_ARG_INT, &flags.tokens, 0, "tokens to generate (default 128)", "N"},
        {"temperature", '\0', POPT_ARG_FLOAT, &flags.temperature, 0, "0 is greedy (default 0.8)",
         "T"},
        {"top-k", '\0', POPT_ARG_INT, &flags.top_k, 0, "keep the K likeliest (default 0: all)",
         "K"},
        {"top-p", '\0', POPT_ARG_FLOAT, &flags.top_p, 0,
         "keep the likeliest up to this mass (default 0.95; 0 or 1: off)", "P"},
        {"min-p", '\0', POPT_ARG_FLOAT, &flags.min_p, 0,
         "keep those at least P times the likeliest (default 0: off)", "P"},
        {"repetition-penalty", '\0', POPT_ARG_FLOAT, &flags.penalty, 0,
         "weaken tokens seen in the window (default 0: off; 1.1 is mild)", "R"},
        {"repetition-window", '\0', POPT_ARG_INT, &flags.window, 0,
         "tokens that the penalty looks back (default 64)", "N"},
        {"seed", '\0', POPT_ARG_LONGLONG, &flags.seed, 0, "same seed, same text (default 0)", "S"},
        {"kv-capacity", '\0', POPT_ARG_INT, &flags.capacity, 0,
         "positions to hold (default: FERRUM_KV_CAPACITY, else min(model, 512))", "N"},
        {"special", '\0', POPT_ARG_NONE, &flags.special, 0,
         "special tokens written in the prompt count as such", NULL},
        {"ignore-end", '\0', POPT_ARG_NONE, &flags.ignore_end, 0, "go on after an end token", NULL},
        {"no-echo", '\0', POPT_ARG_NONE, &flags.no_echo, 0, "print the continuation only", NULL},
        {"json", '\0', POPT_ARG_NONE, &flags.json, 0, "one JSON object with tokens and timings",
         NULL},
        {"swap-at", '\0', POPT_ARG_ARGV, &flags.swap_after, 0,
         "after N tokens, change to the backend that follows (name or path); repeatable",
         "N BACKEND"},
        {NULL, '\0', POPT_ARG_INCLUDE_TABLE, cli_backend_table, 0, "Backend:", NULL},
        POPT_TABLEEND};
    poptContext context;
    bool help;
    int rc = cli_parse(argc, argv, table, "generate -m MODEL -p TEXT [OPTIONS]", &context, &help);
    if (rc != CLI_OK || help)
        return rc;
    swap_plan_t plan = {.status = FERRUM_OK};
    rc = read_plan(flags.swap_after, poptGetArgs(context), &plan);
    if (rc == CLI_OK)
        rc = check_flags(&flags);
    if (rc == CLI_OK && flags.file != NULL) {
        size_t bytes;
        char *text = cli_read_text(flags.file, &bytes);
        rc = text != NULL ? run(&flags, &plan, text, bytes)
                          : cli_error(CLI_FAILED, "%s: %s", flags.file, strerror(errno));
        free(text);
    } else if (rc == CLI_OK) {
        rc = run(&flags, &plan, flags.prompt, strlen(flags.prompt));
    }
    poptFreeContext(context);
    free(plan.swaps);
    for (size_t i = 0; i < count_texts(flags.swap_after); i++)
        free((void *)(uintptr_t)flags.swap_after[i]);
    free(flags.swap_after);
    free(flags.model);
    free(flags.prompt);
    free(flags.file);
    return rc;
}
