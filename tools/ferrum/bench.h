/* SPDX-License-Identifier: MIT */
/** @file bench.h  @brief Parts of `ferrum bench`: random layers, machine limits, result tables. */
#ifndef FERRUM_TOOLS_BENCH_H
#define FERRUM_TOOLS_BENCH_H

#include "tools/ferrum/cli.h"

/* ---- random weights ---- */

/** One random layer: descriptors that point into memory owned here. */
typedef struct bench_layer {
    ferrum_gguf_weights_t gguf[3]; /**< gate, up, down */
    ferrum_gptq_t *gptq[3];        /**< [experts] each, or NULL */
    const ferrum_gptq_t **gptq_list[3];
    ferrum_expert_weights_t role[3];
    ferrum_expert_ffn_desc_t desc;
    void *memory[3];
    uint64_t expert_bytes; /**< of one expert, all three roles */
} bench_layer_t;

/** What kind of weights. */
typedef struct bench_format {
    const char *name;
    ferrum_weight_format_t format; /**< FERRUM_FORMAT_GPTQ: see bits */
    uint32_t bits;
} bench_format_t;

/** Format by name ("q4_k", "gptq4"); NULL for an unknown one. */
const bench_format_t *bench_format_find(const char *name);
/** Names of all formats, comma separated. */
const char *bench_format_names(void);

/** Fill @p out_layer with random weights of sane scale. Free with bench_layer_free. */
ferrum_status_t bench_layer_make(const bench_format_t *format, uint32_t hidden,
                                 uint32_t intermediate, uint32_t experts, uint32_t group_size,
                                 uint64_t seed, bench_layer_t *out_layer, ferrum_error_t *err);
void bench_layer_free(bench_layer_t *layer);

/** Next number of a splitmix64 sequence. */
uint64_t bench_random(uint64_t *state);
/** Uniform in [-1, 1). */
float bench_uniform(uint64_t *state);

/* ---- machine limits ---- */

/** Kinds of multiply-add whose peaks are measured. */
typedef enum bench_arithmetic {
    BENCH_F32,
    BENCH_BF16,  /**< pairs of bf16 into f32 */
    BENCH_INT16, /**< pairs into int32 */
    BENCH_INT8,  /**< fours into int32 */
    BENCH_ARITHMETICS
} bench_arithmetic_t;

/** What the machine reaches with all threads of a run, measured now. */
typedef struct bench_limits {
    double read_gbps;               /**< streaming read, far more than the caches, 1e9 bytes/s */
    double gops[BENCH_ARITHMETICS]; /**< 1e9 multiplies and adds/s; 0: no such instruction */
} bench_limits_t;

/** The threads and memory of a measurement. */
typedef struct bench_machine bench_machine_t;

/** Measure everything with @p threads threads, in about half a second. NULL when 512 MiB or the
 *  threads cannot be had. */
bench_machine_t *bench_machine_open(uint32_t threads, bench_limits_t *out_limits);
/** Measure reading again, in about a tenth of a second. False when threads cannot be had. */
bool bench_machine_read(bench_machine_t *machine, bench_limits_t *limits);
/** NULL is allowed. */
void bench_machine_close(bench_machine_t *machine);

/** Run one kind of arithmetic on the calling thread for some milliseconds; returns the number of
 *  multiplies and adds, 0 where the processor lacks it. */
double bench_peak_run(bench_arithmetic_t arithmetic, int *sink);

/* ---- tables ---- */

typedef enum bench_output {
    BENCH_MD,
    BENCH_CSV,
    BENCH_JSON
} bench_output_t;

/** "md", "csv" or "json"; false otherwise. */
bool bench_output_parse(const char *text, bench_output_t *out_output);

/** One cell: text, or a number with its printf precision. */
typedef struct bench_cell {
    const char *column;
    const char *text; /**< NULL: number */
    double number;
    int decimals; /**< -1: shortest scientific form */
} bench_cell_t;

/** A table that is printed row by row as results come. */
typedef struct bench_table {
    bench_output_t output;
    size_t rows;
} bench_table_t;

void bench_table_begin(bench_table_t *table);
void bench_table_row(bench_table_t *table, const bench_cell_t *cells, size_t count);
void bench_table_end(bench_table_t *table);

/** Columns for what a context did: launches, replays, syncs, allocations, copies, memsets. */
enum {
    BENCH_COUNTERS = 6
};
/** Their cells, as means over @p calls; "-" when @p after was not filled (its head.size is 0). */
void bench_counters_cells(const ferrum_context_stats_t *before, const ferrum_context_stats_t *after,
                          double calls, bench_cell_t cells[BENCH_COUNTERS]);

/** Minimum, median and maximum of @p count > 0 values, which are sorted. */
void bench_spread(double *values, size_t count, double *out_min, double *out_median,
                  double *out_max);

int cli_bench_moe(int argc, const char **argv);
int cli_bench_model(int argc, const char **argv);

#endif /* FERRUM_TOOLS_BENCH_H */
