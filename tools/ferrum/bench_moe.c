/* SPDX-License-Identifier: MIT */
/*
 * `ferrum bench moe`: the routed-expert FFN of one layer on random weights and routing. Calls
 * rotate over several layers, so that decode reads its weights from memory and not from a cache.
 */
#include "tools/ferrum/bench_moe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROUTED_TOKENS = 2048, /* routings for so many tokens in all, one per layer at least */
    COLUMNS = 16 + BENCH_COUNTERS
};

static bool parse_list(const char *text, uint32_t *out_list, size_t *out_count)
{
    *out_count = 0;
    for (const char *at = text; *at != '\0';) {
        char *end;
        unsigned long value = strtoul(at, &end, 10);
        if (end == at || value == 0 || value > 1u << 20 || *out_count == BENCH_MAX_LIST ||
            (*end != ',' && *end != '\0'))
            return false;
        out_list[(*out_count)++] = (uint32_t)value;
        at = *end == ',' ? end + 1 : end;
    }
    return *out_count > 0;
}

/* Distinct experts per token: uniform over all of them, or the first ones for every token. */
static void make_routing(const moe_flags_t *flags, uint32_t tokens, uint64_t *state, int32_t *ids,
                         float *weights)
{
    uint32_t k = (uint32_t)flags->top_k;
    for (uint32_t t = 0; t < tokens; t++) {
        float sum = 0;
        for (uint32_t j = 0; j < k; j++) {
            int32_t id;
            bool taken;
            do {
                id = flags->skew ? (int32_t)j
                                 : (int32_t)(bench_random(state) % (uint64_t)flags->experts);
                taken = false;
                for (uint32_t i = 0; i < j; i++)
                    taken = taken || ids[t * k + i] == id;
            } while (taken);
            ids[t * k + j] = id;
            weights[t * k + j] = 0.1F + fabsf(bench_uniform(state));
            sum += weights[t * k + j];
        }
        for (uint32_t j = 0; j < k; j++)
            weights[t * k + j] /= sum;
    }
}

static uint32_t distinct_experts(const int32_t *ids, size_t count, uint32_t experts)
{
    unsigned char *seen = calloc(experts, 1);
    uint32_t distinct = 0;
    for (size_t i = 0; seen != NULL && i < count; i++)
        if (!seen[ids[i]]) {
            seen[ids[i]] = 1;
            distinct++;
        }
    free(seen);
    return distinct;
}

/* Largest error over rows, ||o - r|| / ||r||, of the last call's output. */
static double relative_error(const float *out, const double *reference, uint32_t rows,
                             uint32_t hidden)
{
    double worst = 0;
    for (uint32_t t = 0; t < rows; t++) {
        double diff = 0, norm = 0;
        for (uint32_t i = 0; i < hidden; i++) {
            double r = reference[(size_t)t * hidden + i];
            double d = (double)out[(size_t)t * hidden + i] - r;
            diff += d * d;
            norm += r * r;
        }
        double error = norm > 0 ? sqrt(diff / norm) : sqrt(diff);
        worst = error > worst || isnan(error) ? error : worst;
    }
    return worst;
}

size_t bench_moe_routings(const moe_flags_t *flags, uint32_t tokens)
{
    size_t layers = (size_t)flags->layers, rounds = ROUTED_TOKENS / tokens / layers;
    return layers * (rounds > 0 ? rounds : 1);
}

static ferrum_status_t forward(moe_bench_t *bench, ferrum_session_t *session, size_t call,
                               uint32_t tokens, ferrum_error_t *err)
{
    size_t pairs = (size_t)tokens * (uint32_t)bench->flags->top_k;
    return ferrum_moe_layer_forward(session, bench->layer[call % (size_t)bench->flags->layers],
                                    bench->x, bench->ids + call % bench->routings * pairs,
                                    bench->weights, bench->out, tokens,
                                    (uint32_t)bench->flags->top_k, 0, err);
}

/* The least time that this machine needs: for reading the weights, or for the arithmetic at the
 * int8 peak (f32 where it has no integer dot product). */
static double limit_us(const moe_result_t *result, const bench_limits_t *limits)
{
    double peak = limits->gops[BENCH_INT8] > 0 ? limits->gops[BENCH_INT8] : limits->gops[BENCH_F32];
    double reading = result->bytes / limits->read_gbps, arithmetic = result->ops / peak;
    return (reading > arithmetic ? reading : arithmetic) / 1e3;
}

static void print_row(moe_bench_t *bench, uint32_t tokens, uint32_t threads,
                      const bench_limits_t *limits, const moe_result_t *result)
{
    const moe_flags_t *flags = bench->flags;
    double gbps = result->bytes / result->us_median / 1e3;
    double gops = result->ops / result->us_median / 1e3;
    double int8 = limits->gops[BENCH_INT8], limit = limit_us(result, limits);
    bench_cell_t cells[COLUMNS] = {
        {"format", flags->weights->name, 0, 0},
        {"tokens", NULL, tokens, 0},
        {"threads", NULL, threads, 0},
        {"us_median", NULL, result->us_median, 1},
        {"us_min", NULL, result->us_min, 1},
        {"us_max", NULL, result->us_max, 1},
        {"runs", NULL, (double)result->runs, 0},
        {"weight_gbps", NULL, gbps, 2},
        {"read_gbps", NULL, limits->read_gbps, 2},
        {"bandwidth_fraction", NULL, gbps / limits->read_gbps, 3},
        {"gops", NULL, gops, 1},
        {"int8_fraction", NULL, int8 > 0 ? gops / int8 : 0, 3},
        {"limit_us", NULL, limit, 1},
        {"times_limit", NULL, result->us_median / limit, 2},
        {"rel_error", flags->no_error ? "-" : NULL, result->error, -1},
        {"backend", ferrum_module_name(ferrum_runtime_module(bench->runtime)), 0, 0},
    };
    bench_counters_cells(&result->before, &result->after, (double)result->runs,
                         cells + COLUMNS - BENCH_COUNTERS);
    bench_table_row(&bench->table, cells, COLUMNS);
}

void bench_moe_inputs(moe_bench_t *bench, uint32_t tokens, size_t routings, moe_result_t *result)
{
    const moe_flags_t *flags = bench->flags;
    uint64_t state = 7 * (uint64_t)tokens + 1;
    size_t pairs = (size_t)tokens * (uint32_t)flags->top_k;
    bench->routings = routings;
    for (size_t i = 0; i < bench->routings; i++) {
        make_routing(flags, tokens, &state, bench->ids + i * pairs, bench->weights);
        uint32_t distinct =
            distinct_experts(bench->ids + i * pairs, pairs, (uint32_t)flags->experts);
        result->bytes +=
            (double)distinct * (double)bench->source[0].expert_bytes / (double)bench->routings;
    }
    for (size_t i = 0; i < (size_t)tokens * (size_t)flags->hidden; i++)
        bench->x[i] = bench_uniform(&state);
    result->ops = 6.0 * flags->hidden * flags->intermediate * tokens * flags->top_k;
}

/* The counters of a session's context; head.size is 0 when the backend has none. */
static ferrum_context_stats_t read_counters(const ferrum_session_t *session)
{
    const ferrum_module_t *module = ferrum_runtime_module(ferrum_session_runtime(session));
    ferrum_context_stats_t stats = {.head = FERRUM_HEAD(ferrum_context_stats_t)};
    if (ferrum_module_backend(module)->context_stats(ferrum_session_context(session), &stats,
                                                     NULL) != FERRUM_OK)
        stats.head.size = 0;
    return stats;
}

ferrum_status_t bench_moe_error(moe_bench_t *bench, uint32_t tokens, double *out_error,
                                ferrum_error_t *err)
{
    const moe_flags_t *flags = bench->flags;
    uint32_t rows = tokens < BENCH_ORACLE_TOKENS ? tokens : BENCH_ORACLE_TOKENS;
    ferrum_status_t status =
        ferrum_moe_reference(&bench->source[0].desc, bench->x, bench->ids, bench->weights,
                             bench->reference, rows, (uint32_t)flags->top_k, err);
    if (status == FERRUM_OK)
        *out_error = relative_error(bench->out, bench->reference, rows, (uint32_t)flags->hidden);
    return status;
}

static int measure(moe_bench_t *bench, ferrum_session_t *session, uint32_t tokens,
                   moe_result_t *out_result)
{
    const moe_flags_t *flags = bench->flags;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    static double micros[BENCH_MAX_RUNS];
    moe_result_t result = {0};
    bench_moe_inputs(bench, tokens, bench_moe_routings(flags, tokens), &result);
    ferrum_status_t status = FERRUM_OK;
    if (!flags->no_error)
        status = forward(bench, session, 0, tokens, &err);
    if (!flags->no_error && status == FERRUM_OK)
        status = bench_moe_error(bench, tokens, &result.error, &err);
    for (size_t i = 0; status == FERRUM_OK && i < (size_t)flags->layers; i++)
        status = forward(bench, session, i, tokens, &err);
    result.before = read_counters(session);
    double begin = cli_now();
    while (status == FERRUM_OK && result.runs < BENCH_MAX_RUNS && !cli_interrupted &&
           (result.runs < BENCH_MIN_RUNS || cli_now() - begin < flags->seconds)) {
        double start = cli_now();
        status = forward(bench, session, result.runs, tokens, &err);
        micros[result.runs++] = (cli_now() - start) * 1e6;
    }
    if (status != FERRUM_OK)
        return cli_fail(&err, status, CLI_FAILED);
    if (cli_interrupted)
        return cli_error(CLI_INTERRUPTED, "interrupted");
    result.after = read_counters(session);
    bench_spread(micros, result.runs, &result.us_min, &result.us_median, &result.us_max);
    *out_result = result;
    return CLI_OK;
}

bool bench_moe_request(const moe_flags_t *flags, char *line, uint32_t *out_tokens)
{
    uint32_t list[BENCH_MAX_LIST];
    size_t count;

    line[strcspn(line, "\n")] = '\0';
    if (!parse_list(line, list, &count) || count != 1)
        return false;
    *out_tokens = list[0];
    for (size_t i = 0; i < flags->token_count; i++)
        if (flags->token_list[i] == list[0])
            return true;
    return false;
}

/* One measurement for each line of the standard input, so that a script can take turns with
 * another program. */
static int serve_requests(moe_bench_t *bench, ferrum_session_t *session, bench_machine_t *machine,
                          bench_limits_t *limits)
{
    char line[64];
    uint32_t tokens;
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (!bench_moe_request(bench->flags, line, &tokens))
            return cli_error(CLI_USAGE, "request \"%s\" is not one of --tokens", line);
        moe_result_t result;
        int rc = measure(bench, session, tokens, &result);
        if (rc != CLI_OK)
            return rc;
        if (!bench_machine_read(machine, limits))
            return cli_error(CLI_RESOURCES, "cannot start the threads that measure reading");
        double limit = limit_us(&result, limits);
        printf("us=%.1f min=%.1f limit=%.1f times_limit=%.2f error=%.1e\n", result.us_median,
               result.us_min, limit, result.us_median / limit, result.error);
        fflush(stdout);
    }
    return CLI_OK;
}

static int measure_list(moe_bench_t *bench, ferrum_session_t *session, bench_machine_t *machine,
                        bench_limits_t *limits, uint32_t threads)
{
    const moe_flags_t *flags = bench->flags;
    for (size_t i = 0; i < flags->token_count; i++) {
        moe_result_t result;
        int rc = measure(bench, session, flags->token_list[i], &result);
        if (rc != CLI_OK)
            return rc;
        if (!bench_machine_read(machine, limits))
            return cli_error(CLI_RESOURCES, "cannot start the threads that measure reading");
        print_row(bench, flags->token_list[i], threads, limits, &result);
    }
    return CLI_OK;
}

static int measure_all(moe_bench_t *bench)
{
    const moe_flags_t *flags = bench->flags;
    bench->table.output = flags->table;
    if (!flags->requests)
        bench_table_begin(&bench->table);
    for (size_t i = 0; i < flags->thread_count; i++) {
        uint32_t threads = flags->thread_list[i];
        ferrum_error_t err = FERRUM_ERROR_INIT;
        bench_limits_t limits;
        ferrum_session_t *session;
        bench_machine_t *machine = bench_machine_open(threads, &limits);
        if (machine == NULL)
            return cli_error(CLI_RESOURCES, "cannot start %u threads or hold 512 MiB", threads);
        fprintf(stderr,
                "ferrum: machine with %u threads: read %.1f GB/s; f32 %.0f, bf16 %.0f, int16 %.0f, "
                "int8 %.0f Gop/s\n",
                threads, limits.read_gbps, limits.gops[BENCH_F32], limits.gops[BENCH_BF16],
                limits.gops[BENCH_INT16], limits.gops[BENCH_INT8]);
        int rc = CLI_OK;
        ferrum_status_t status = ferrum_session_new(bench->runtime, threads, &session, &err);
        if (status != FERRUM_OK) {
            rc = cli_fail(&err, status, CLI_BACKEND);
        } else {
            rc = flags->requests ? serve_requests(bench, session, machine, &limits)
                                 : measure_list(bench, session, machine, &limits, threads);
            ferrum_session_free(session);
        }
        bench_machine_close(machine);
        if (rc != CLI_OK)
            return rc;
    }
    if (!flags->requests)
        bench_table_end(&bench->table);
    return cli_finish_output();
}

static int make_layers(moe_bench_t *bench)
{
    const moe_flags_t *flags = bench->flags;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    double begin = cli_now();
    uint64_t source_bytes = 0, held_bytes = 0;
    char kernel[64] = "";
    for (int i = 0; i < flags->layers; i++) {
        if (cli_interrupted)
            return cli_error(CLI_INTERRUPTED, "interrupted");
        ferrum_status_t status =
            bench_layer_make(flags->weights, (uint32_t)flags->hidden, (uint32_t)flags->intermediate,
                             (uint32_t)flags->experts, (uint32_t)flags->group, (uint64_t)i + 1,
                             &bench->source[i], &err);
        if (status == FERRUM_OK)
            status = ferrum_moe_layer_create(bench->runtime, &bench->source[i].desc,
                                             &bench->layer[i], &err);
        ferrum_expert_ffn_info_t info = {.head = FERRUM_HEAD(ferrum_expert_ffn_info_t)};
        if (status == FERRUM_OK)
            status = ferrum_moe_layer_info(bench->layer[i], &info, &err);
        if (status != FERRUM_OK)
            return cli_fail(&err, status, CLI_FAILED);
        source_bytes += info.source_bytes;
        held_bytes += info.bytes;
        memcpy(kernel, info.kernel, sizeof kernel);
    }
    char source[24], held[24];
    fprintf(stderr,
            "ferrum: %d layers of %s, %s as given, %s (%.3f x) held by the backend (%s), %.1f s\n",
            flags->layers, flags->weights->name, cli_bytes(source_bytes, source),
            cli_bytes(held_bytes, held), (double)held_bytes / (double)source_bytes, kernel,
            cli_now() - begin);
    return CLI_OK;
}

static int run(const moe_flags_t *flags)
{
    size_t most = 0, routed = 0;
    for (size_t i = 0; i < flags->token_count; i++) {
        size_t tokens = flags->token_list[i];
        size_t here = tokens * bench_moe_routings(flags, flags->token_list[i]);
        most = tokens > most ? tokens : most;
        routed = here > routed ? here : routed;
    }
    size_t width = (size_t)flags->hidden, layers = (size_t)flags->layers;
    size_t top_k = (size_t)flags->top_k;
    moe_bench_t bench = {
        .flags = flags,
        .source = calloc(layers, sizeof *bench.source),
        .layer = calloc(layers, sizeof *bench.layer),
        .x = malloc(most * width * sizeof(float)),
        .out = malloc(most * width * sizeof(float)),
        .weights = malloc(most * top_k * sizeof(float)),
        .ids = malloc(routed * top_k * sizeof(int32_t)),
        .reference = malloc(BENCH_ORACLE_TOKENS * width * sizeof(double)),
    };
    int rc;
    if (!bench.source || !bench.layer || !bench.x || !bench.out || !bench.weights || !bench.ids ||
        !bench.reference)
        rc = cli_error(CLI_RESOURCES, "out of memory for the inputs");
    else
        rc = cli_open_runtime(&bench.runtime);
    if (rc == CLI_OK) {
        if (bench_moe_on_device(&bench))
            rc = bench_moe_device(&bench);
        else if ((rc = make_layers(&bench)) == CLI_OK)
            rc = measure_all(&bench);
        for (size_t i = 0; i < layers; i++) {
            ferrum_moe_layer_free(bench.layer[i]);
            bench_layer_free(&bench.source[i]);
        }
        ferrum_runtime_close(bench.runtime);
    }
    free(bench.source);
    free(bench.layer);
    free(bench.x);
    free(bench.out);
    free(bench.weights);
    free(bench.ids);
    free(bench.reference);
    return rc;
}

static int check_flags(moe_flags_t *flags)
{
    const char *threads = flags->threads ? flags->threads : "1";
    flags->weights = bench_format_find(flags->format ? flags->format : "q4_k");
    if (flags->weights == NULL)
        return cli_error(CLI_USAGE, "--format %s is not one of %s", flags->format,
                         bench_format_names());
    if (!parse_list(flags->tokens ? flags->tokens : "1,8,32,128,512", flags->token_list,
                    &flags->token_count))
        return cli_error(CLI_USAGE, "--tokens wants numbers such as 1,8,32");
    if (!parse_list(threads, flags->thread_list, &flags->thread_count))
        return cli_error(CLI_USAGE, "--threads wants numbers such as 1,2");
    if (!bench_output_parse(flags->output ? flags->output : "md", &flags->table))
        return cli_error(CLI_USAGE, "-o %s is not one of md, csv, json", flags->output);
    if (flags->requests && flags->thread_count != 1)
        return cli_error(CLI_USAGE, "--requests wants one thread count");
    if (flags->hidden <= 0 || flags->intermediate <= 0 || flags->experts <= 0 ||
        flags->top_k <= 0 || flags->layers <= 0 || flags->calls <= 0 || flags->group < 0 ||
        flags->repeat < 0 || flags->hidden > 1 << 20 || flags->intermediate > 1 << 20 ||
        flags->experts > 1 << 16 || flags->layers > 1 << 12 || flags->calls > 1 << 16)
        return cli_error(CLI_USAGE, "shapes must be positive and of a sane size");
    if (flags->top_k > flags->experts)
        return cli_error(CLI_USAGE, "--top-k %d exceeds --experts %d", flags->top_k,
                         flags->experts);
    return CLI_OK;
}

int cli_bench_moe(int argc, const char **argv)
{
    moe_flags_t flags = {.hidden = 2048,
                         .intermediate = 768,
                         .experts = 128,
                         .top_k = 8,
                         .group = 128,
                         .layers = 8,
                         .calls = 64,
                         .seconds = 1.0};
    const struct poptOption table[] = {
        {"format", '\0', POPT_ARG_STRING, &flags.format, 0, "weight format (default q4_k)", "NAME"},
        {"hidden", '\0', POPT_ARG_INT, &flags.hidden, 0, "hidden size (2048)", "N"},
        {"intermediate", '\0', POPT_ARG_INT, &flags.intermediate, 0, "expert width (768)", "N"},
        {"experts", '\0', POPT_ARG_INT, &flags.experts, 0, "experts (128)", "N"},
        {"top-k", '\0', POPT_ARG_INT, &flags.top_k, 0, "experts per token (8)", "K"},
        {"group", '\0', POPT_ARG_INT, &flags.group, 0, "GPTQ group size, 0: per channel (128)",
         "N"},
        {"tokens", '\0', POPT_ARG_STRING, &flags.tokens, 0, "token counts (1,8,32,128,512)",
         "LIST"},
        {"threads", 't', POPT_ARG_STRING, &flags.threads, 0, "thread counts (1)", "LIST"},
        {"layers", '\0', POPT_ARG_INT, &flags.layers, 0, "layers to rotate over (8)", "N"},
        {"calls", '\0', POPT_ARG_INT, &flags.calls, 0, "most calls in a device's graph (64)", "N"},
        {"seconds", '\0', POPT_ARG_DOUBLE, &flags.seconds, 0, "time per row (1)", "S"},
        {"skew", '\0', POPT_ARG_NONE, &flags.skew, 0, "route all tokens to the same experts", NULL},
        {"requests", '\0', POPT_ARG_NONE, &flags.requests, 0,
         "read token counts from stdin, measure each when it comes", NULL},
        {"repeat", '\0', POPT_ARG_INT, &flags.repeat, 0,
         "on a device: replays on two streams that must have the same bits (0)", "N"},
        {"no-error", '\0', POPT_ARG_NONE, &flags.no_error, 0, "skip the f64 reference", NULL},
        {"output", 'o', POPT_ARG_STRING, &flags.output, 0, "md, csv or json (md)", "KIND"},
        {"backend", 'b', POPT_ARG_STRING, &cli_backend.backend, 0,
         "name, list, path or auto (default: FERRUM_BACKEND)", "SPEC"},
        {"verbose", 'v', POPT_ARG_NONE, &cli_backend.verbose, 0, "log everything to stderr", NULL},
        POPT_TABLEEND};
    poptContext context;
    bool help;
    int rc = cli_parse(argc, argv, table, "bench moe [OPTIONS]", &context, &help);
    if (rc != CLI_OK || help)
        return rc;
    const char *extra = poptGetArg(context);
    rc = extra != NULL ? cli_error(CLI_USAGE, "bench moe: unexpected argument \"%s\"", extra)
                       : check_flags(&flags);
    if (rc == CLI_OK)
        rc = run(&flags);
    poptFreeContext(context);
    free(flags.format);
    free(flags.tokens);
    free(flags.threads);
    free(flags.output);
    return rc;
}
