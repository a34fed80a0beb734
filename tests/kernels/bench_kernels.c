/* SPDX-License-Identifier: MIT */
/* Single-thread speed of every product in every set that this processor runs.
 * Usage: bench_kernels [set [format]]. The weights (about 1 MiB) stay in L2, the activations in L1
 * or L2; GB/s counts weight bytes, GFLOP/s two per weight and token. Best of several repetitions.
 */
#define _POSIX_C_SOURCE 200809L
#include "kernels/kernels.h"

#include <ferrum/util.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    K = 2048,
    MAX_TOKENS = 64,
    WEIGHT_BYTES = 1 << 20,
    REPEATS = 7,
    GROUP = 128
};

static const uint32_t token_counts[] = {1, 8, 64};

/** Operands that every measurement shares. */
typedef struct operands {
    uint8_t *w;
    float *x, *y, *scales;
    uint8_t *zeros;
    uint32_t group_end[K / GROUP];
} operands_t;

/** What is measured: exactly one of the two functions is set. */
typedef struct product {
    ferrum_matmul_fn *matmul;
    ferrum_gptq_matmul_fn *gptq_matmul;
    size_t row_bytes;
    uint32_t rows;
    ferrum_gptq_matrix_t matrix;
} product_t;

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void run_once(const product_t *p, const operands_t *o, uint32_t tokens)
{
    if (p->matmul)
        p->matmul(o->w, p->row_bytes, p->rows, K, o->x, K, tokens, o->y, p->rows);
    else
        p->gptq_matmul(&p->matrix, 0, p->rows, o->x, K, tokens, o->y, p->rows);
}

/** Seconds per call, best of REPEATS measurements of about 10 ms. */
static double measure(const product_t *p, const operands_t *o, uint32_t tokens)
{
    double best = 1e9;
    uint32_t calls = 1;
    run_once(p, o, tokens);
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        const double start = now();
        for (uint32_t i = 0; i < calls; i++)
            run_once(p, o, tokens);
        const double seconds = (now() - start) / calls;
        best = seconds < best ? seconds : best;
        calls = best < 0.01 ? (uint32_t)(0.01 / best) + 1 : 1;
    }
    return best;
}

static void report(const char *set, const char *format, const product_t *p, const operands_t *o)
{
    printf("%-8s %-8s", set, format);
    for (size_t i = 0; i < sizeof token_counts / sizeof token_counts[0]; i++) {
        const double seconds = measure(p, o, token_counts[i]);
        const double values = (double)p->rows * K;
        printf("  %3u: %6.2f GB/s %7.2f GFLOP/s", token_counts[i],
               (double)p->rows * (double)p->row_bytes / seconds * 1e-9,
               2 * values * token_counts[i] / seconds * 1e-9);
    }
    printf("\n");
}

static void bench_blocks(const ferrum_kernel_set_t *set, const char *only, const operands_t *o)
{
    for (size_t f = 0; f < set->matmul_count; f++) {
        const ferrum_format_traits_t *traits = ferrum_format_traits(set->matmul[f].format);
        if (only && strcmp(only, traits->name) != 0)
            continue;
        product_t p = {.matmul = set->matmul[f].matmul};
        p.row_bytes = (size_t)K / traits->block_values * traits->block_bytes;
        p.rows = (uint32_t)(WEIGHT_BYTES / p.row_bytes);
        report(set->name, traits->name, &p, o);
    }
}

static void bench_gptq(const ferrum_kernel_set_t *set, const char *only, const operands_t *o)
{
    for (uint32_t bits = 4; bits <= 8 && set->gptq_matmul; bits += 4) {
        const char *name = bits == 4 ? "gptq4" : "gptq8";
        if (only && strcmp(only, name) != 0)
            continue;
        product_t p = {.gptq_matmul = set->gptq_matmul, .row_bytes = (size_t)K * bits / 8};
        p.rows = (uint32_t)(WEIGHT_BYTES / p.row_bytes);
        p.matrix = (ferrum_gptq_matrix_t){.qweight = (const void *)o->w,
                                          .scales = o->scales,
                                          .zeros = o->zeros,
                                          .group_end = o->group_end,
                                          .groups = K / GROUP,
                                          .bits = bits,
                                          .k = K,
                                          .n = p.rows};
        report(set->name, name, &p, o);
    }
}

/** Fills everything with small numbers: no value may be subnormal, infinite or NaN. */
static int operands_init(operands_t *o)
{
    const size_t cells = (size_t)WEIGHT_BYTES;
    o->w = malloc(WEIGHT_BYTES);
    o->x = malloc(sizeof(float) * K * MAX_TOKENS);
    o->y = malloc(sizeof(float) * MAX_TOKENS * (WEIGHT_BYTES / 256));
    o->scales = malloc(sizeof(float) * cells / GROUP);
    o->zeros = malloc(cells);
    if (!o->w || !o->x || !o->y || !o->scales || !o->zeros)
        return 0;
    memset(o->w, 0x35, WEIGHT_BYTES); /* an f16 of 0.33, an f32 of 7e-7 */
    memset(o->zeros, 8, cells);
    for (size_t i = 0; i < (size_t)K * MAX_TOKENS; i++)
        o->x[i] = (float)((int)(i % 17) - 8) * 0.125f;
    for (size_t i = 0; i < cells / GROUP; i++)
        o->scales[i] = 0.01f;
    for (uint32_t g = 0; g < K / GROUP; g++)
        o->group_end[g] = (g + 1) * GROUP;
    return 1;
}

int main(int argc, char **argv)
{
    const char *only_set = argc > 1 ? argv[1] : NULL, *only_format = argc > 2 ? argv[2] : NULL;
    operands_t o;

    if (!operands_init(&o)) {
        (void)fprintf(stderr, "bench_kernels: out of memory\n");
        return EXIT_FAILURE;
    }
    for (size_t i = 0; i < ferrum_kernel_set_count; i++) {
        const ferrum_kernel_set_t *set = ferrum_kernel_sets[i];
        if (set->features & ~ferrum_cpu_features() ||
            (only_set && strcmp(only_set, set->name) != 0))
            continue;
        bench_blocks(set, only_format, &o);
        bench_gptq(set, only_format, &o);
    }
    free(o.zeros);
    free(o.scales);
    free(o.y);
    free(o.x);
    free(o.w);
    return EXIT_SUCCESS;
}
