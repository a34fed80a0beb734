/* SPDX-License-Identifier: MIT */
/* `ferrum bench model`: prefill and decode speed of a model file. */
#include "tools/ferrum/bench.h"

#include <ferrum/util.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct model_flags {
    char *model, *output;
    int prompt, tokens, batch, runs;
    bench_output_t table;
} model_flags_t;

enum {
    MAX_RUNS = 100,
    PARTS = FERRUM_MODEL_PARTS,
    COLUMNS = 9 + BENCH_COUNTERS + PARTS
};

/* One phase of a run: its speed, and the model's counters before and after. */
typedef struct phase {
    double tokens_per_second;
    ferrum_context_stats_t before, after;
    double steps;
    ferrum_model_profile_t profile; /* of a run that measures it */
} phase_t;

/* head.size is 0 when the backend counts nothing. */
static ferrum_context_stats_t read_counters(const ferrum_model_t *model)
{
    ferrum_context_stats_t stats = {.head = FERRUM_HEAD(ferrum_context_stats_t)};
    if (ferrum_model_get_stats(model, &stats, NULL) != FERRUM_OK)
        stats.head.size = 0;
    return stats;
}

/* The end of a phase that was measured, and the begin of the next one. */
static ferrum_status_t take_profile(ferrum_model_t *model, phase_t *phase, ferrum_error_t *err)
{
    phase->profile = (ferrum_model_profile_t){.head = FERRUM_HEAD(ferrum_model_profile_t)};
    FERRUM_TRY(ferrum_model_profile_read(model, &phase->profile, err));
    return phase->profile.passes > 0 ? ferrum_model_profile_start(model, 1, err) : FERRUM_OK;
}

/* One run: `batch` requests, a prompt each, then shared decode steps. */
static ferrum_status_t one_run(const model_flags_t *flags, ferrum_model_t *model, uint32_t vocab,
                               uint32_t *tokens, float *logits, phase_t phases[2],
                               ferrum_error_t *err)
{
    uint32_t batch = (uint32_t)flags->batch, prompt = (uint32_t)flags->prompt;
    uint64_t state = 1;
    ferrum_status_t status = FERRUM_OK;
    uint64_t *ids = malloc(batch * sizeof *ids);
    if (ids == NULL)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE, "out of memory");
    for (uint32_t i = 0; i < prompt; i++)
        tokens[i] = (uint32_t)(bench_random(&state) % vocab);
    phase_t *prefill = &phases[0], *decode = &phases[1];
    *prefill = (phase_t){.before = read_counters(model), .steps = batch};
    *decode = (phase_t){.steps = flags->tokens};
    double start = cli_now();
    for (uint32_t i = 0; i < batch && status == FERRUM_OK; i++) {
        ids[i] = i;
        status = ferrum_model_prefill(model, i, tokens, prompt, logits, err);
    }
    prefill->tokens_per_second = (double)batch * prompt / (cli_now() - start);
    prefill->after = decode->before = read_counters(model);
    if (status == FERRUM_OK)
        status = take_profile(model, prefill, err);
    start = cli_now();
    for (int step = 0; step < flags->tokens && status == FERRUM_OK; step++) {
        if (cli_interrupted)
            status = ferrum_fail(err, FERRUM_CANCELLED, FERRUM_REASON_NONE, "interrupted");
        for (uint32_t i = 0; i < batch; i++)
            tokens[i] = (uint32_t)(bench_random(&state) % vocab);
        if (status == FERRUM_OK && batch == 1)
            status = ferrum_model_decode(model, 0, tokens[0], logits, err);
        else if (status == FERRUM_OK)
            status = ferrum_model_decode_batch(model, ids, tokens, batch, logits, err);
    }
    decode->tokens_per_second = (double)batch * flags->tokens / (cli_now() - start);
    decode->after = read_counters(model);
    if (status == FERRUM_OK)
        status = take_profile(model, decode, err);
    ferrum_model_reset(model);
    free(ids);
    return status;
}

/* Each part's share of the time of a pass. */
static void share_cells(const ferrum_model_profile_t *profile, bench_cell_t cells[PARTS])
{
    uint64_t total = 0;
    for (int i = 0; i < PARTS; i++)
        total += profile->ns[i];
    for (ferrum_model_part_t i = 0; i < PARTS; i++)
        cells[i] = (bench_cell_t){ferrum_model_part_name(i), NULL,
                                  total ? (double)profile->ns[i] / (double)total : 0, 3};
}

/* Speeds of all runs; what was counted in the last one, and where the time of one more went. */
static void print_rows(const model_flags_t *flags, const ferrum_runtime_t *runtime,
                       const ferrum_model_info_t *info, double speeds[2][MAX_RUNS],
                       const phase_t phases[2], const phase_t measured[2])
{
    bench_table_t table = {.output = flags->table};
    bench_table_begin(&table);
    for (int i = 0; i < 2; i++) {
        double min, median, max;
        bench_spread(speeds[i], (size_t)flags->runs, &min, &median, &max);
        bench_cell_t cells[COLUMNS] = {
            {"model", flags->model, 0, 0},
            {"backend", ferrum_module_name(ferrum_runtime_module(runtime)), 0, 0},
            {"threads", NULL, ferrum_runtime_threads(runtime), 0},
            {"moe", info->moe_path, 0, 0},
            {"test", i ? "decode" : "prefill", 0, 0},
            {"batch", NULL, flags->batch, 0},
            {"tokens", NULL, i ? flags->tokens : flags->prompt, 0},
            {"tokens_per_second", NULL, median, 2},
            {"best", NULL, max, 2},
        };
        bench_counters_cells(&phases[i].before, &phases[i].after, phases[i].steps,
                             cells + COLUMNS - PARTS - BENCH_COUNTERS);
        share_cells(&measured[i].profile, cells + COLUMNS - PARTS);
        bench_table_row(&table, cells, COLUMNS);
    }
    bench_table_end(&table);
}

static int run(const model_flags_t *flags)
{
    ferrum_runtime_t *runtime;
    ferrum_model_t *model;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_model_info_t info = {.head = FERRUM_HEAD(ferrum_model_info_t)};
    double speeds[2][MAX_RUNS];
    phase_t phases[2], measured[2];
    uint32_t capacity = (uint32_t)(flags->prompt + flags->tokens + 1);
    int rc = cli_open_model(flags->model, capacity, (uint32_t)flags->batch, &runtime, &model);
    if (rc != CLI_OK)
        return rc;
    ferrum_status_t status = ferrum_model_get_info(model, &info, &err);
    char held[24];
    if (status == FERRUM_OK)
        fprintf(stderr, "ferrum: %s of memory for the weights\n",
                cli_bytes(info.weight_bytes, held));
    float *logits = NULL;
    uint32_t *tokens = NULL;
    if (status == FERRUM_OK) {
        logits = malloc((size_t)flags->batch * info.vocab * sizeof *logits);
        int most = flags->prompt > flags->batch ? flags->prompt : flags->batch;
        tokens = malloc((size_t)most * sizeof *tokens);
        if (logits == NULL || tokens == NULL)
            status = ferrum_fail(&err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE, "out of memory");
    }
    for (int i = -1; i < flags->runs && status == FERRUM_OK; i++) { /* -1 warms up */
        status = one_run(flags, model, info.vocab, tokens, logits, phases, &err);
        for (int p = 0; p < 2; p++)
            speeds[p][i < 0 ? 0 : i] = phases[p].tokens_per_second;
    }
    if (status == FERRUM_OK)
        status = ferrum_model_profile_start(model, 1, &err);
    if (status == FERRUM_OK)
        status = one_run(flags, model, info.vocab, tokens, logits, measured, &err);
    if (status == FERRUM_OK)
        print_rows(flags, runtime, &info, speeds, phases, measured);
    rc = status == FERRUM_OK ? cli_finish_output() : cli_fail(&err, status, CLI_FAILED);
    free(logits);
    free(tokens);
    ferrum_model_free(model);
    ferrum_runtime_close(runtime);
    return rc;
}

static int check_flags(model_flags_t *flags)
{
    if (flags->model == NULL)
        return cli_error(CLI_USAGE, "bench model needs a model: -m FILE.gguf or -m DIRECTORY");
    if (flags->prompt <= 0 || flags->tokens <= 0 || flags->batch <= 0 || flags->runs <= 0 ||
        flags->runs > MAX_RUNS || flags->prompt > 1 << 20 || flags->tokens > 1 << 20 ||
        flags->batch > 1 << 12)
        return cli_error(CLI_USAGE, "-p, -n, --batch and --runs must be positive (runs <= %d)",
                         MAX_RUNS);
    if (!bench_output_parse(flags->output ? flags->output : "md", &flags->table))
        return cli_error(CLI_USAGE, "-o %s is not one of md, csv, json", flags->output);
    return CLI_OK;
}

int cli_bench_model(int argc, const char **argv)
{
    model_flags_t flags = {.prompt = 128, .tokens = 64, .batch = 1, .runs = 3};
    const struct poptOption table[] = {
        {"model", 'm', POPT_ARG_STRING, &flags.model, 0, "a .gguf file or a GPTQ directory",
         "PATH"},
        {"prompt", 'p', POPT_ARG_INT, &flags.prompt, 0, "prompt tokens (128)", "N"},
        {"tokens", 'n', POPT_ARG_INT, &flags.tokens, 0, "tokens to decode (64)", "N"},
        {"batch", '\0', POPT_ARG_INT, &flags.batch, 0, "requests decoded together (1)", "N"},
        {"runs", '\0', POPT_ARG_INT, &flags.runs, 0, "counted runs after a warm-up (3)", "N"},
        {"output", 'o', POPT_ARG_STRING, &flags.output, 0, "md, csv or json (md)", "KIND"},
        {NULL, '\0', POPT_ARG_INCLUDE_TABLE, cli_backend_table, 0, "Backend:", NULL},
        POPT_TABLEEND};
    poptContext context;
    bool help;
    int rc = cli_parse(argc, argv, table, "bench model -m MODEL [OPTIONS]", &context, &help);
    if (rc != CLI_OK || help)
        return rc;
    const char *extra = poptGetArg(context);
    rc = extra != NULL ? cli_error(CLI_USAGE, "bench model: unexpected argument \"%s\"", extra)
                       : check_flags(&flags);
    if (rc == CLI_OK)
        rc = run(&flags);
    poptFreeContext(context);
    free(flags.model);
    free(flags.output);
    return rc;
}
