/* SPDX-License-Identifier: MIT */
/** @file bench_moe.h  @brief What the ways to run `ferrum bench moe` share. */
#ifndef FERRUM_TOOLS_BENCH_MOE_H
#define FERRUM_TOOLS_BENCH_MOE_H

#include "tools/ferrum/bench.h"

enum {
    BENCH_MAX_LIST = 32,
    BENCH_ORACLE_TOKENS = 2,
    BENCH_MIN_RUNS = 5,
    BENCH_MAX_RUNS = 4096
};

typedef struct moe_flags {
    char *format, *tokens, *threads, *output;
    int hidden, intermediate, experts, top_k, group, layers, calls, no_error, skew, requests,
        repeat;
    double seconds;
    uint32_t token_list[BENCH_MAX_LIST], thread_list[BENCH_MAX_LIST];
    size_t token_count, thread_count;
    bench_output_t table;
    const bench_format_t *weights;
} moe_flags_t;

/** The layers of a run and the inputs of one token count. */
typedef struct moe_bench {
    const moe_flags_t *flags;
    ferrum_runtime_t *runtime;
    bench_layer_t *source;
    ferrum_moe_layer_t **layer; /**< made by a run on the host only */
    float *x, *out, *weights;
    int32_t *ids;    /**< [routings, tokens, top_k] */
    size_t routings; /**< of the present token count; call i takes routing i modulo these */
    double *reference;
    bench_table_t table;
} moe_bench_t;

/** What one measurement found. */
typedef struct moe_result {
    double us_min, us_median, us_max;
    size_t runs;
    double bytes, ops; /**< of one call: weights read, multiplies and adds */
    double error;
    ferrum_context_stats_t before, after; /**< of timed calls; on a device, of a pass */
} moe_result_t;

/** How many routings serve a token count, a multiple of the layers: many for few tokens, as
 * otherwise their experts would stay in a large last-level cache from call to call. */
size_t bench_moe_routings(const moe_flags_t *flags, uint32_t tokens);
/** The token count of a line of --requests, whose end is cut off; false: not one of --tokens. */
bool bench_moe_request(const moe_flags_t *flags, char *line, uint32_t *out_tokens);
/** Routings (at most so many) and activations; fills in bytes and ops. */
void bench_moe_inputs(moe_bench_t *bench, uint32_t tokens, size_t routings, moe_result_t *result);
/** Error against f64 of the first BENCH_ORACLE_TOKENS rows of out: layer 0, routing 0. */
ferrum_status_t bench_moe_error(moe_bench_t *bench, uint32_t tokens, double *out_error,
                                ferrum_error_t *err);

/** Whether the backend has memory, a clock and graphs of its own: then the next function runs. */
bool bench_moe_on_device(const moe_bench_t *bench);
/** The whole run on such a device: inputs and outputs stay there, calls are replayed from a graph
 *  and timed by the device. Makes the layers itself. */
int bench_moe_device(moe_bench_t *bench);

#endif /* FERRUM_TOOLS_BENCH_MOE_H */
