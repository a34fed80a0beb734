/* SPDX-License-Identifier: MIT */
/* `ferrum bench`: which benchmark, and how results are printed. */
#include "tools/ferrum/bench.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cli_bench(int argc, const char **argv)
{
    if (argc >= 2 && strcmp(argv[1], "moe") == 0)
        return cli_bench_moe(argc - 1, argv + 1);
    if (argc >= 2 && strcmp(argv[1], "model") == 0)
        return cli_bench_model(argc - 1, argv + 1);
    if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        printf("usage: ferrum bench moe [OPTIONS]     one layer's routed-expert FFN\n"
               "       ferrum bench model [OPTIONS]   prefill and decode of a model file\n\n"
               "ferrum bench moe --help and ferrum bench model --help list the options.\n");
        return cli_finish_output();
    }
    return cli_error(CLI_USAGE, "bench what? \"ferrum bench moe\" or \"ferrum bench model\"");
}

bool bench_output_parse(const char *text, bench_output_t *out_output)
{
    static const char *const names[] = {"md", "csv", "json"};
    for (int i = 0; i < 3; i++)
        if (strcmp(text, names[i]) == 0) {
            *out_output = (bench_output_t)i;
            return true;
        }
    return false;
}

void bench_table_begin(bench_table_t *table)
{
    table->rows = 0;
    if (table->output == BENCH_JSON)
        printf("[");
}

static void print_cell(const bench_cell_t *cell, int width)
{
    if (cell->text != NULL)
        printf("%*s", width, cell->text);
    else if (cell->decimals < 0)
        printf("%*.2e", width, cell->number);
    else
        printf("%*.*f", width, cell->decimals, cell->number);
}

static void print_json_row(const bench_table_t *table, const bench_cell_t *cells, size_t count)
{
    json_t *row = json_object();
    for (size_t i = 0; i < count; i++)
        json_object_set_new(row, cells[i].column,
                            cells[i].text            ? json_string(cells[i].text)
                            : cells[i].decimals == 0 ? json_integer((json_int_t)cells[i].number)
                                                     : json_real(cells[i].number));
    printf("%s\n  ", table->rows ? "," : "");
    json_dumpf(row, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    json_decref(row);
}

void bench_table_row(bench_table_t *table, const bench_cell_t *cells, size_t count)
{
    if (table->output == BENCH_JSON) {
        print_json_row(table, cells, count);
    } else {
        const char *edge = table->output == BENCH_MD ? "| " : "";
        const char *between = table->output == BENCH_MD ? " | " : ",";
        const char *end = table->output == BENCH_MD ? " |" : "";
        for (size_t i = 0; table->rows == 0 && i < count; i++)
            printf("%s%s%s", i ? between : edge, cells[i].column, i + 1 == count ? end : "");
        if (table->rows == 0 && table->output == BENCH_MD) {
            printf("\n|");
            for (size_t i = 0; i < count; i++)
                printf("%s|", cells[i].text ? "---" : "---:");
        }
        if (table->rows == 0)
            printf("\n");
        for (size_t i = 0; i < count; i++) {
            printf("%s", i ? between : edge);
            print_cell(&cells[i], table->output == BENCH_MD ? (int)strlen(cells[i].column) : 0);
        }
        printf("%s\n", end);
    }
    table->rows++;
    fflush(stdout);
}

void bench_table_end(bench_table_t *table)
{
    if (table->output == BENCH_JSON)
        printf("\n]\n");
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void bench_spread(double *values, size_t count, double *out_min, double *out_median,
                  double *out_max)
{
    qsort(values, count, sizeof *values, compare);
    *out_min = values[0];
    *out_max = values[count - 1];
    *out_median = count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}
