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

/** What the machine reaches with @p threads threads, measured now. */
typedef struct bench_limits {
    double read_gbps;  /**< streaming read of memory far larger than the caches, 1e9 bytes/s */
    double f32_gflops; /**< fused multiply-adds in registers, widest vectors */
    double int8_gops;  /**< int8 dot products where the processor has them, else 0 */
} bench_limits_t;

/** Measure; takes about half a second. False when memory or threads cannot be had. */
bool bench_limits_measure(uint32_t threads, bench_limits_t *out_limits);

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

/** Minimum, median and maximum of @p count > 0 values, which are sorted. */
void bench_spread(double *values, size_t count, double *out_min, double *out_median,
                  double *out_max);

int cli_bench_moe(int argc, const char **argv);
int cli_bench_model(int argc, const char **argv);

#endif /* FERRUM_TOOLS_BENCH_H */
