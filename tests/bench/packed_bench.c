/* SPDX-License-Identifier: MIT */
/* Single-thread speed of packed products: GOP/s (two per weight and token), and the fraction of the
 * int8 peak (vpdpbusd), which is measured in turns with the product: shared machines change their
 * speed. Usage: packed_bench [set [kind [rows]]]. The matrix is [rows, 2048] (768 rows unless told)
 * and stays in the second-level cache; thread CPU time, least of several repetitions. */
#define _POSIX_C_SOURCE 200809L
#include "kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

enum {
    K = 2048,
    MAX_TOKENS = 64,
    ROWS = 768,
    REPEATS = 12,
    GPTQ_GROUP = 128
};

static const uint32_t token_counts[] = {1, 2, 4, 8, 16, 32, 64};

static const char *const names[FERRUM_PACKED_KINDS] = {
    "none", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0",   "iq4_nl", "mxfp4",
    "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_xs", "gptq4",  "gptq8"};

static double cpu_seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#ifdef __x86_64__
/** Sixteen independent chains of products of bytes; GOP/s. */
__attribute__((target("avx512f,avx512vnni"))) static double peak_once(int32_t *out)
{
    enum {
        CHAINS = 16,
        LOOPS = 20000
    };
    __m512i sum[CHAINS], w = _mm512_set1_epi8(3), x = _mm512_set1_epi8((char)*out);
    for (int c = 0; c < CHAINS; c++)
        sum[c] = _mm512_set1_epi32(c);
    const double begin = cpu_seconds();
    for (int i = 0; i < LOOPS; i++) {
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; c++)
            sum[c] = _mm512_dpbusd_epi32(sum[c], w, x);
        __asm__ volatile("" : "+v"(x));
    }
    const double seconds = cpu_seconds() - begin;
    for (int c = 1; c < CHAINS; c++)
        sum[0] = _mm512_add_epi32(sum[0], sum[c]);
    *out += _mm512_reduce_add_epi32(sum[0]);
    return 128.0 * CHAINS * LOOPS / seconds * 1e-9;
}
#endif

/** The int8 peak in GOP/s, or 0 where it cannot be measured. */
static double peak(void)
{
#ifdef __x86_64__
    static volatile int32_t sink = 1;
    int32_t seed = sink;
    if (ferrum_cpu_features() & FERRUM_CPU_AVX512_VNNI) {
        const double gops = peak_once(&seed);
        sink = seed;
        return gops;
    }
#endif
    return 0;
}

/** Operands of one kind and precision. */
typedef struct operands {
    ferrum_packed_matrix_t m;
    ferrum_packed_precision_t precision;
    const ferrum_packed_ops_t *ops;
    uint8_t *x;
    size_t stride;
    float *y;
} operands_t;

/** Seconds per call and the int8 peak meanwhile. */
static double seconds_per_call(const operands_t *o, uint32_t tokens, double *out_peak)
{
    double best = 1e9;
    const int calls = 1 + (int)(128 / tokens) / 8;
    *out_peak = 0;
    for (int r = 0; r < REPEATS; r++) {
        const double limit = peak(), begin = cpu_seconds();
        for (int c = 0; c < calls; c++)
            o->ops->product(&o->m, o->precision, 0, o->m.n, o->x, o->stride, NULL, tokens, o->y,
                            o->m.n);
        const double seconds = (cpu_seconds() - begin) / calls;
        best = seconds < best ? seconds : best;
        *out_peak = limit > *out_peak ? limit : *out_peak;
    }
    return best;
}

static void print_line(const operands_t *o, const char *set)
{
    printf("%-10s %-6s %-8s", set, names[o->m.kind],
           o->precision == FERRUM_PACKED_FAST ? "fast" : "accurate");
    for (size_t i = 0; i < sizeof token_counts / sizeof token_counts[0]; i++) {
        const double ops = 2.0 * o->m.n * K * token_counts[i];
        double limit;
        const double gops = ops / seconds_per_call(o, token_counts[i], &limit) * 1e-9;
        printf("  %5.0f", gops);
        if (limit > 0)
            printf(" %4.2f", gops / limit);
    }
    puts("");
    fflush(stdout);
}

static bool measure(const ferrum_kernel_set_t *set, ferrum_packed_kind_t kind, uint32_t rows)
{
    operands_t o = {.ops = set->packed};
    if (!ferrum_packed_shape(kind, rows, K, GPTQ_GROUP, FERRUM_DTYPE_F16, &o.m))
        return false;
    const size_t bytes = o.m.panel_bytes * (rows / FERRUM_PANEL_ROWS);
    uint8_t *panels = aligned_alloc(64, (bytes + 63) / 64 * 64);
    float *x = malloc(K * sizeof *x);
    o.y = malloc((size_t)rows * MAX_TOKENS * sizeof *o.y);
    o.x = malloc(ferrum_packed_row_bytes(K, FERRUM_PACKED_ACCURATE) * MAX_TOKENS);
    if (!panels || !x || !o.y || !o.x)
        return false;
    /* Any bytes will do that are ordinary halves. */
    for (size_t i = 0; i < bytes; i++)
        panels[i] = (uint8_t)(0x20 + i * 7 % 12);
    o.m.panels = panels;
    for (int p = FERRUM_PACKED_FAST; p <= FERRUM_PACKED_ACCURATE; p++) {
        o.precision = (ferrum_packed_precision_t)p;
        o.stride = ferrum_packed_row_bytes(K, o.precision);
        for (uint32_t t = 0; t < MAX_TOKENS; t++) {
            for (uint32_t i = 0; i < K; i++)
                x[i] = (float)((i * 37 + t * 11) % 101) - 50.0F;
            set->packed->quantise(kind, o.precision, x, NULL, K, o.x + t * o.stride);
        }
        print_line(&o, set->name);
    }
    free(panels);
    free(x);
    free(o.y);
    free(o.x);
    return true;
}

int main(int argc, char **argv)
{
    const uint32_t rows = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : ROWS;
    printf("GOP/s of one thread, and the fraction of its int8 peak, at");
    for (size_t i = 0; i < sizeof token_counts / sizeof token_counts[0]; i++)
        printf(" %u", token_counts[i]);
    puts(" tokens");
    for (size_t s = 0; s < ferrum_kernel_set_count; s++) {
        const ferrum_kernel_set_t *set = ferrum_kernel_sets[s];
        if (!set->packed || (set->features & ~ferrum_cpu_features()) ||
            (argc > 1 && strcmp(argv[1], set->name) != 0))
            continue;
        for (int kind = FERRUM_PACKED_NONE + 1; kind < FERRUM_PACKED_KINDS; kind++)
            if ((argc <= 2 || strcmp(argv[2], names[kind]) == 0) &&
                !measure(set, (ferrum_packed_kind_t)kind, rows))
                return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
