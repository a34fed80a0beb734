/* SPDX-License-Identifier: MIT */
/*
 * `ferrum bench moe` on a device with memory of its own. Inputs, routings and outputs stay on the
 * device; one graph holds calls over all layers, one after the other, and the device's clock times
 * its replays. What is reported is the time of a replay by the number of its calls.
 */
#include "tools/ferrum/bench_moe.h"

#include <ferrum/limits.h>
#include <ferrum/util.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    COLUMNS = 20 + BENCH_COUNTERS
};

typedef struct device_bench {
    moe_bench_t *bench;
    const ferrum_backend_ops_t *backend;
    const ferrum_quant_llm_ops_t *quant;
    const ferrum_moe_fused_ops_t *fused;
    const ferrum_device_info_t *info;
    ferrum_device_t *device;
    ferrum_context_t *ctx;
    ferrum_timer_t *timer;
    ferrum_expert_ffn_t **ffn; /* [layers] */
    ferrum_limits_t limits;
    /* Of the present token count. */
    uint32_t tokens;
    size_t calls;
    ferrum_buffer_t *x, *weights, *out;
    ferrum_buffer_t **ids; /* [calls] */
} device_bench_t;

bool bench_moe_on_device(const moe_bench_t *bench)
{
    return (ferrum_runtime_device_info(bench->runtime)->caps & FERRUM_CAP_GRAPH) != 0;
}

/* ---- once ---- */

static ferrum_status_t measure_limits(device_bench_t *self, ferrum_error_t *err)
{
    ferrum_module_t *module = ferrum_runtime_module(self->bench->runtime);
    const ferrum_limits_ops_t *ops =
        ferrum_module_plugin(module)->get_interface(FERRUM_INTERFACE_LIMITS, 0);

    self->limits = (ferrum_limits_t){.head = FERRUM_HEAD(ferrum_limits_t)};
    if (ops == NULL || ops->measure == NULL)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NOT_IMPLEMENTED,
                           "backend '%s' cannot measure what its device reaches (%s)",
                           ferrum_module_name(module), FERRUM_INTERFACE_LIMITS);
    FERRUM_TRY(ops->measure(self->ctx, &self->limits, err));
    fprintf(stderr,
            "ferrum: %s, %s: read %.1f GB/s (%.0f MiB); matrix units %s %.0f, int8 %.0f Gop/s\n",
            self->info->name, self->info->detail, self->limits.read_gbps,
            (double)self->limits.read_bytes / 1048576,
            ferrum_dtype_name(self->info->activation_dtype), self->limits.act_gops,
            self->limits.int8_gops);
    return FERRUM_OK;
}

/* Layers on the device. Only the first one's source is needed again, by the reference. */
static ferrum_status_t make_layers(device_bench_t *self, ferrum_error_t *err)
{
    const moe_flags_t *flags = self->bench->flags;
    double begin = cli_now();
    ferrum_expert_ffn_info_t info = {.head = FERRUM_HEAD(ferrum_expert_ffn_info_t)};
    char held[24];

    for (int i = 0; i < flags->layers; i++) {
        bench_layer_t *source = &self->bench->source[i];
        if (cli_interrupted)
            return ferrum_fail(err, FERRUM_CANCELLED, FERRUM_REASON_NONE, "interrupted");
        FERRUM_TRY(bench_layer_make(flags->weights, (uint32_t)flags->hidden,
                                    (uint32_t)flags->intermediate, (uint32_t)flags->experts,
                                    (uint32_t)flags->group, (uint64_t)i + 1, source, err));
        FERRUM_TRY(self->fused->expert_ffn_create(self->device, &source->desc, &self->ffn[i], err));
        if (i > 0)
            bench_layer_free(source);
    }
    FERRUM_TRY(self->fused->expert_ffn_info(self->ffn[0], &info, err));
    fprintf(stderr, "ferrum: %d layers of %s, %s (%.3f x) each on the device (%s), %.1f s\n",
            flags->layers, flags->weights->name, cli_bytes(info.bytes, held),
            (double)info.bytes / (double)info.source_bytes, info.kernel, cli_now() - begin);
    return FERRUM_OK;
}

/* ---- per token count ---- */

static ferrum_status_t upload(device_bench_t *self, ferrum_error_t *err)
{
    moe_bench_t *bench = self->bench;
    const ferrum_backend_ops_t *be = self->backend;
    uint64_t values = (uint64_t)self->tokens * (uint64_t)bench->flags->hidden;
    uint64_t pairs = (uint64_t)self->tokens * (uint64_t)bench->flags->top_k;
    ferrum_dtype_t act = self->info->activation_dtype;

    FERRUM_TRY(be->buffer_alloc(self->device, act, values, &self->x, err));
    FERRUM_TRY(be->buffer_alloc(self->device, act, values, &self->out, err));
    FERRUM_TRY(be->buffer_alloc(self->device, FERRUM_DTYPE_F32, pairs, &self->weights, err));
    FERRUM_TRY(be->buffer_write_f32(self->ctx, self->x, 0, bench->x, values, err));
    /* The reference starts from what the device has: x after rounding. */
    FERRUM_TRY(be->buffer_read_f32(self->ctx, self->x, 0, bench->x, values, err));
    FERRUM_TRY(be->buffer_write_f32(self->ctx, self->weights, 0, bench->weights, pairs, err));
    for (size_t i = 0; i < self->calls; i++) {
        FERRUM_TRY(be->buffer_alloc(self->device, FERRUM_DTYPE_I32, pairs, &self->ids[i], err));
        FERRUM_TRY(be->buffer_write(self->ctx, self->ids[i], 0, FERRUM_DTYPE_I32,
                                    bench->ids + i * pairs, pairs, err));
    }
    return FERRUM_OK;
}

static void drop_buffers(device_bench_t *self)
{
    const ferrum_backend_ops_t *be = self->backend;

    for (size_t i = 0; i < self->calls; i++)
        be->buffer_release(self->ids[i]);
    be->buffer_release(self->x);
    be->buffer_release(self->out);
    be->buffer_release(self->weights);
    memset(self->ids, 0, self->calls * sizeof(ferrum_buffer_t *));
    self->x = self->out = self->weights = NULL;
}

/* Calls [0, count) in order. */
static ferrum_status_t forward(device_bench_t *self, size_t count, ferrum_error_t *err)
{
    size_t layers = (size_t)self->bench->flags->layers;

    for (size_t i = 0; i < count; i++) {
        const ferrum_expert_ffn_args_t args = {
            .head = FERRUM_HEAD(ferrum_expert_ffn_args_t),
            .x = self->x,
            .ids = self->ids[i],
            .weights = self->weights,
            .out = self->out,
            .tokens = self->tokens,
            .top_k = (uint32_t)self->bench->flags->top_k,
        };
        FERRUM_TRY(self->fused->expert_ffn_forward(self->ctx, self->ffn[i % layers], &args, err));
    }
    return FERRUM_OK;
}

static ferrum_status_t check_error(device_bench_t *self, double *out_error, ferrum_error_t *err)
{
    uint32_t rows = self->tokens < BENCH_ORACLE_TOKENS ? self->tokens : BENCH_ORACLE_TOKENS;

    FERRUM_TRY(forward(self, 1, err));
    FERRUM_TRY(self->backend->context_sync(self->ctx, err));
    FERRUM_TRY(self->backend->buffer_read_f32(self->ctx, self->out, 0, self->bench->out,
                                              (uint64_t)rows * (uint64_t)self->bench->flags->hidden,
                                              err));
    return bench_moe_error(self->bench, self->tokens, out_error, err);
}

/* What the context counts in a pass over all calls, once it has its scratch. */
static ferrum_status_t count_work(device_bench_t *self, moe_result_t *result, ferrum_error_t *err)
{
    const ferrum_backend_ops_t *be = self->backend;

    result->before = result->after =
        (ferrum_context_stats_t){.head = FERRUM_HEAD(ferrum_context_stats_t)};
    FERRUM_TRY(forward(self, self->calls, err));
    FERRUM_TRY(be->context_sync(self->ctx, err));
    FERRUM_TRY(be->context_stats(self->ctx, &result->before, err));
    FERRUM_TRY(forward(self, self->calls, err));
    FERRUM_TRY(be->context_stats(self->ctx, &result->after, err));
    return be->context_sync(self->ctx, err);
}

static ferrum_status_t capture(device_bench_t *self, const ferrum_graph_key_t *key,
                               ferrum_error_t *err)
{
    FERRUM_TRY(self->quant->graph_begin(self->ctx, err));
    const ferrum_status_t status = forward(self, self->calls, err);
    /* The capture ends in any case; the first error counts. */
    FERRUM_TRY(self->quant->graph_end(self->ctx, key, status == FERRUM_OK ? err : NULL));
    return status;
}

static ferrum_status_t launch(device_bench_t *self, const ferrum_graph_key_t *key,
                              ferrum_error_t *err)
{
    uint32_t launched = 0;

    FERRUM_TRY(self->quant->graph_replay(self->ctx, key, &launched, err));
    return launched
               ? FERRUM_OK
               : ferrum_fail(err, FERRUM_INTERNAL, FERRUM_REASON_OTHER, "the graph was dropped");
}

static ferrum_status_t replay(device_bench_t *self, const ferrum_graph_key_t *key, double *out_us,
                              ferrum_error_t *err)
{
    const ferrum_backend_ops_t *be = self->backend;
    double ms;

    FERRUM_TRY(be->timer_record_start(self->ctx, self->timer, err));
    FERRUM_TRY(launch(self, key, err));
    FERRUM_TRY(be->timer_record_end(self->ctx, self->timer, err));
    FERRUM_TRY(be->timer_elapsed_ms(self->timer, &ms, err));
    *out_us = ms * 1e3 / (double)self->calls;
    return FERRUM_OK;
}

static ferrum_status_t time_replays(device_bench_t *self, moe_result_t *result, ferrum_error_t *err)
{
    static double micros[BENCH_MAX_RUNS];
    const ferrum_graph_key_t key = {1, self->tokens};
    double us;

    FERRUM_TRY(capture(self, &key, err));
    FERRUM_TRY(replay(self, &key, &us, err));
    double begin = cli_now();
    while (result->runs < BENCH_MAX_RUNS && !cli_interrupted &&
           (result->runs < BENCH_MIN_RUNS || cli_now() - begin < self->bench->flags->seconds))
        FERRUM_TRY(replay(self, &key, &micros[result->runs++], err));
    FERRUM_TRY(self->backend->context_sync(self->ctx, err));
    bench_spread(micros, result->runs, &result->us_min, &result->us_median, &result->us_max);
    return self->quant->graph_reset(self->ctx, &key, err);
}

/* ---- the same bits again ---- */

/* Replay on both streams at once, again and again; the last call's outputs are to be those of the
 * first replay. @p bits: room for two outputs. */
static ferrum_status_t compare_replays(device_bench_t *self, device_bench_t *other, char *bits,
                                       ferrum_error_t *err)
{
    const ferrum_graph_key_t key = {2, self->tokens};
    const ferrum_dtype_t act = self->info->activation_dtype;
    const uint64_t values = (uint64_t)self->tokens * (uint64_t)self->bench->flags->hidden;
    const size_t bytes = (size_t)values * 2;
    device_bench_t *const stream[2] = {self, other};

    for (size_t s = 0; s < 2; s++)
        FERRUM_TRY(capture(stream[s], &key, err));
    for (int i = 0; i < self->bench->flags->repeat; i++) {
        for (size_t s = 0; s < 2; s++)
            FERRUM_TRY(launch(stream[s], &key, err));
        for (size_t s = 0; s < 2; s++) {
            char *here = i == 0 && s == 0 ? bits : bits + bytes;
            FERRUM_TRY(self->backend->buffer_read(stream[s]->ctx, stream[s]->out, 0, act, here,
                                                  values, err));
            if (memcmp(bits, here, bytes) != 0)
                return ferrum_fail(
                    err, FERRUM_INTERNAL, FERRUM_REASON_OTHER,
                    "%u tokens: replay %d on stream %zu has other bits than the first",
                    self->tokens, i + 1, s + 1);
        }
    }
    return self->quant->graph_reset(self->ctx, &key, err);
}

static ferrum_status_t repeat(device_bench_t *self, ferrum_error_t *err)
{
    const ferrum_backend_ops_t *be = self->backend;
    const ferrum_dtype_t act = self->info->activation_dtype;
    const uint64_t values = (uint64_t)self->tokens * (uint64_t)self->bench->flags->hidden;
    device_bench_t other = *self;
    char *bits = malloc((size_t)values * 4);

    other.ctx = NULL;
    other.out = NULL;
    ferrum_status_t status =
        bits == NULL
            ? ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OTHER, "no memory for outputs")
            : be->context_new(self->device, NULL, &other.ctx, err);
    if (status == FERRUM_OK)
        status = be->buffer_alloc(self->device, act, values, &other.out, err);
    if (status == FERRUM_OK)
        status = be->context_sync(self->ctx, err); /* inputs are there for both */
    if (status == FERRUM_OK)
        status = forward(&other, self->calls, err); /* gets its scratch */
    if (status == FERRUM_OK)
        status = compare_replays(self, &other, bits, err);
    be->context_free(other.ctx);
    be->buffer_release(other.out);
    free(bits);
    return status;
}

/* ---- results ---- */

static double limit_us(const device_bench_t *self, const moe_result_t *result)
{
    double reading = result->bytes / self->limits.read_gbps / 1e3;
    double arithmetic = result->ops / self->limits.act_gops / 1e3;
    return reading > arithmetic ? reading : arithmetic;
}

static void print_row(device_bench_t *self, const moe_result_t *result)
{
    const ferrum_limits_t *limits = &self->limits;
    double gbps = result->bytes / result->us_median / 1e3;
    double gops = result->ops / result->us_median / 1e3;
    double limit = limit_us(self, result);
    const moe_flags_t *flags = self->bench->flags;
    bench_cell_t cells[COLUMNS] = {
        {"format", flags->weights->name, 0, 0},
        {"activations", ferrum_dtype_name(self->info->activation_dtype), 0, 0},
        {"tokens", NULL, self->tokens, 0},
        {"layers", NULL, flags->layers, 0},
        {"calls", NULL, (double)self->calls, 0},
        {"us_median", NULL, result->us_median, 2},
        {"us_min", NULL, result->us_min, 2},
        {"us_max", NULL, result->us_max, 2},
        {"runs", NULL, (double)result->runs, 0},
        {"weight_gbps", NULL, gbps, 2},
        {"read_gbps", NULL, limits->read_gbps, 2},
        {"bandwidth_fraction", NULL, gbps / limits->read_gbps, 3},
        {"gops", NULL, gops, 1},
        {"matrix_gops", NULL, limits->act_gops, 1},
        {"matrix_fraction", NULL, gops / limits->act_gops, 3},
        {"limit_us", NULL, limit, 2},
        {"times_limit", NULL, result->us_median / limit, 2},
        {"rel_error", flags->no_error ? "-" : NULL, result->error, -1},
        {"same_replays", NULL, flags->repeat, 0},
        {"device", self->info->name, 0, 0},
    };
    bench_counters_cells(&result->before, &result->after, (double)self->calls,
                         cells + COLUMNS - BENCH_COUNTERS);
    bench_table_row(&self->bench->table, cells, COLUMNS);
}

/* In one graph: whole rounds over the layers. */
static size_t most_calls(const moe_flags_t *flags)
{
    size_t layers = (size_t)flags->layers, calls = (size_t)flags->calls / layers * layers;
    return calls > layers ? calls : layers;
}

static ferrum_status_t measure(device_bench_t *self, uint32_t tokens, moe_result_t *result,
                               ferrum_error_t *err)
{
    const moe_flags_t *flags = self->bench->flags;
    size_t calls = bench_moe_routings(flags, tokens), most = most_calls(flags);

    *result = (moe_result_t){0};
    self->tokens = tokens;
    self->calls = calls < most ? calls : most;
    bench_moe_inputs(self->bench, tokens, self->calls, result);
    ferrum_status_t status = upload(self, err);
    if (status == FERRUM_OK && !flags->no_error)
        status = check_error(self, &result->error, err);
    if (status == FERRUM_OK)
        status = count_work(self, result, err);
    if (status == FERRUM_OK)
        status = time_replays(self, result, err);
    if (status == FERRUM_OK && flags->repeat > 0)
        status = repeat(self, err);
    drop_buffers(self);
    if (status == FERRUM_OK && cli_interrupted)
        return ferrum_fail(err, FERRUM_CANCELLED, FERRUM_REASON_NONE, "interrupted");
    return status;
}

/* One measurement for each line of the standard input. */
static ferrum_status_t serve_requests(device_bench_t *self, ferrum_error_t *err)
{
    char line[64];
    uint32_t tokens;
    moe_result_t result;

    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (!bench_moe_request(self->bench->flags, line, &tokens))
            return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_OTHER,
                               "request \"%s\" is not one of --tokens", line);
        FERRUM_TRY(measure(self, tokens, &result, err));
        printf("us=%.2f min=%.2f limit=%.2f times_limit=%.2f error=%.1e\n", result.us_median,
               result.us_min, limit_us(self, &result), result.us_median / limit_us(self, &result),
               result.error);
        fflush(stdout);
    }
    return FERRUM_OK;
}

static ferrum_status_t run(device_bench_t *self, ferrum_error_t *err)
{
    const moe_flags_t *flags = self->bench->flags;

    FERRUM_TRY(self->backend->context_new(self->device, NULL, &self->ctx, err));
    FERRUM_TRY(self->backend->timer_new(self->device, &self->timer, err));
    FERRUM_TRY(make_layers(self, err));
    FERRUM_TRY(measure_limits(self, err));
    if (flags->requests)
        return serve_requests(self, err);
    self->bench->table.output = flags->table;
    bench_table_begin(&self->bench->table);
    for (size_t i = 0; i < flags->token_count; i++) {
        moe_result_t result;
        FERRUM_TRY(measure(self, flags->token_list[i], &result, err));
        print_row(self, &result);
    }
    bench_table_end(&self->bench->table);
    return FERRUM_OK;
}

int bench_moe_device(moe_bench_t *bench)
{
    ferrum_module_t *module = ferrum_runtime_module(bench->runtime);
    size_t layers = (size_t)bench->flags->layers;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    device_bench_t self = {
        .bench = bench,
        .backend = ferrum_module_backend(module),
        .quant = ferrum_module_quant_llm(module),
        .fused = ferrum_module_moe_fused(module),
        .info = ferrum_runtime_device_info(bench->runtime),
        .device = ferrum_runtime_device(bench->runtime),
        .ffn = calloc(layers, sizeof *self.ffn),
        .ids = calloc(most_calls(bench->flags), sizeof *self.ids),
    };
    int rc;

    if (self.ffn == NULL || self.ids == NULL) {
        rc = cli_error(CLI_RESOURCES, "out of memory for %zu layers", layers);
    } else {
        ferrum_status_t status = run(&self, &err);
        rc = status == FERRUM_OK ? cli_finish_output() : cli_fail(&err, status, CLI_FAILED);
        for (size_t i = 0; i < layers; i++)
            self.fused->expert_ffn_release(self.ffn[i]);
        self.backend->timer_free(self.timer);
        self.backend->context_free(self.ctx);
    }
    free(self.ffn);
    free(self.ids);
    return rc;
}
