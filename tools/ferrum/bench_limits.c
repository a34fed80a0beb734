/* SPDX-License-Identifier: MIT */
/*
 * What this machine can do at best: how fast threads read memory, and how fast their multipliers
 * run. Every figure of a benchmark is put beside these, measured in the same run.
 */
#include "tools/ferrum/bench.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
    READ_BYTES = 256 << 20,
    READ_PASSES = 6,
    PEAK_STEPS = 4000000,
    MAX_THREADS = 1024
};

/* What one thread does and found. */
typedef struct worker {
    pthread_t thread;
    pthread_mutex_t *gate; /* held until all threads exist, or it is known that one is missing */
    const bool *go;
    pthread_barrier_t *barrier;
    const uint64_t *memory;
    size_t words;
    double read_seconds, f32_seconds, int8_seconds;
    double f32_flops, int8_ops;
    volatile uint64_t sink;
} worker_t;

/* Without it the sums live in memory and a loop measures store forwarding. */
#define UNROLL _Pragma("GCC unroll 16")

static uint64_t sum_words(const uint64_t *memory, size_t words)
{
    uint64_t sums[8] = {0};
    for (size_t i = 0; i + 8 <= words; i += 8) {
        __builtin_prefetch(memory + i + 512); /* as the kernels do; one thread gains most */
        UNROLL for (int j = 0; j < 8; j++) sums[j] += memory[i + (size_t)j];
    }
    return sums[0] ^ sums[1] ^ sums[2] ^ sums[3] ^ sums[4] ^ sums[5] ^ sums[6] ^ sums[7];
}

#if defined(__x86_64__)
/* Twelve independent chains hide the latency of a fused multiply-add on every known core. */
#define CHAINS 12

__attribute__((target("avx512f"))) static float fma_avx512(long steps)
{
    __m512 acc[CHAINS], x = _mm512_set1_ps(0.999F), y = _mm512_set1_ps(1e-3F);
    UNROLL for (int j = 0; j < CHAINS; j++) acc[j] = _mm512_set1_ps((float)j);
    for (long i = 0; i < steps; i++)
        UNROLL for (int j = 0; j < CHAINS; j++) acc[j] = _mm512_fmadd_ps(acc[j], x, y);
    UNROLL for (int j = 1; j < CHAINS; j++) acc[0] = _mm512_add_ps(acc[0], acc[j]);
    return _mm512_reduce_add_ps(acc[0]);
}

__attribute__((target("avx2,fma"))) static float fma_avx2(long steps)
{
    __m256 acc[CHAINS], x = _mm256_set1_ps(0.999F), y = _mm256_set1_ps(1e-3F);
    UNROLL for (int j = 0; j < CHAINS; j++) acc[j] = _mm256_set1_ps((float)j);
    for (long i = 0; i < steps; i++)
        UNROLL for (int j = 0; j < CHAINS; j++) acc[j] = _mm256_fmadd_ps(acc[j], x, y);
    UNROLL for (int j = 1; j < CHAINS; j++) acc[0] = _mm256_add_ps(acc[0], acc[j]);
    float lanes[8];
    _mm256_storeu_ps(lanes, acc[0]);
    return lanes[0] + lanes[7];
}

__attribute__((target("avx512f,avx512vnni"))) static int dot_avx512(long steps)
{
    __m512i acc[CHAINS], x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(-2);
    UNROLL for (int j = 0; j < CHAINS; j++) acc[j] = _mm512_set1_epi32(j);
    for (long i = 0; i < steps; i++)
        UNROLL for (int j = 0; j < CHAINS; j++)
        {
            acc[j] = _mm512_dpbusd_epi32(acc[j], x, y);
            __asm__ volatile("" : "+v"(acc[j])); /* keeps the sum from being folded */
        }
    UNROLL for (int j = 1; j < CHAINS; j++) acc[0] = _mm512_add_epi32(acc[0], acc[j]);
    return _mm_cvtsi128_si32(_mm512_castsi512_si128(acc[0])); /* any lane keeps the sums alive */
}
#endif

static float fma_scalar(long steps)
{
    float acc[8];
    for (int j = 0; j < 8; j++)
        acc[j] = (float)j;
    for (long i = 0; i < steps; i++)
        for (int j = 0; j < 8; j++)
            acc[j] = acc[j] * 0.999F + 1e-3F;
    return acc[0] + acc[7];
}

static void measure_peaks(worker_t *self)
{
    double start = cli_now();
    float total;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) {
        total = fma_avx512(PEAK_STEPS);
        self->f32_flops = 2.0 * 16 * CHAINS * PEAK_STEPS;
    } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        total = fma_avx2(PEAK_STEPS);
        self->f32_flops = 2.0 * 8 * CHAINS * PEAK_STEPS;
    } else
#endif
    {
        total = fma_scalar(PEAK_STEPS);
        self->f32_flops = 2.0 * 8 * PEAK_STEPS;
    }
    self->f32_seconds = cli_now() - start;
    self->sink += (uint64_t)(total > 0);
#if defined(__x86_64__)
    pthread_barrier_wait(self->barrier);
    if (__builtin_cpu_supports("avx512vnni")) {
        start = cli_now();
        self->sink += (uint64_t)dot_avx512(PEAK_STEPS);
        self->int8_seconds = cli_now() - start;
        self->int8_ops = 2.0 * 64 * CHAINS * PEAK_STEPS;
    }
#endif
}

static void work(worker_t *self)
{
    self->sink = sum_words(self->memory, self->words); /* page in */
    self->read_seconds = 1e9;
    for (int pass = 0; pass < READ_PASSES; pass++) {
        pthread_barrier_wait(self->barrier);
        double start = cli_now();
        self->sink += sum_words(self->memory, self->words);
        pthread_barrier_wait(self->barrier);
        double seconds = cli_now() - start;
        if (seconds < self->read_seconds)
            self->read_seconds = seconds;
    }
    measure_peaks(self);
}

static void *thread_main(void *arg)
{
    worker_t *self = arg;
    pthread_mutex_lock(self->gate);
    bool go = *self->go;
    pthread_mutex_unlock(self->gate);
    if (go)
        work(self);
    return NULL;
}

static void add_up(const worker_t *workers, uint32_t threads, bench_limits_t *out_limits)
{
    double bytes = 0;
    memset(out_limits, 0, sizeof *out_limits);
    for (uint32_t i = 0; i < threads; i++) {
        bytes += (double)(workers[i].words * sizeof(uint64_t));
        out_limits->f32_gflops += workers[i].f32_flops / workers[i].f32_seconds / 1e9;
        if (workers[i].int8_ops > 0)
            out_limits->int8_gops += workers[i].int8_ops / workers[i].int8_seconds / 1e9;
    }
    out_limits->read_gbps = bytes / workers[0].read_seconds / 1e9;
}

bool bench_limits_measure(uint32_t threads, bench_limits_t *out_limits)
{
    if (threads == 0 || threads > MAX_THREADS)
        return false;
    bool go = false;
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_barrier_t barrier;
    uint64_t *memory = malloc(READ_BYTES);
    worker_t *workers = calloc(threads, sizeof *workers);
    if (memory == NULL || workers == NULL || pthread_barrier_init(&barrier, NULL, threads) != 0)
        goto free_memory;
    memset(memory, 1, READ_BYTES);
    size_t words = READ_BYTES / sizeof *memory / threads;
    for (uint32_t i = 0; i < threads; i++)
        workers[i] = (worker_t){.gate = &gate,
                                .go = &go,
                                .barrier = &barrier,
                                .memory = memory + i * words,
                                .words = words};
    pthread_mutex_lock(&gate);
    uint32_t started = 1; /* the caller is thread 0 */
    while (started < threads &&
           pthread_create(&workers[started].thread, NULL, thread_main, &workers[started]) == 0)
        started++;
    go = started == threads;
    pthread_mutex_unlock(&gate);
    if (go)
        work(&workers[0]);
    for (uint32_t i = 1; i < started; i++)
        pthread_join(workers[i].thread, NULL);
    if (go)
        add_up(workers, threads, out_limits);
    pthread_barrier_destroy(&barrier);
free_memory:
    free(workers);
    free(memory);
    return go;
}
