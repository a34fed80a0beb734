/* SPDX-License-Identifier: MIT */
/*
 * What this machine can do at best: how fast threads read memory, and how fast their multipliers
 * run. Every figure of a benchmark is put beside these, measured in the same run. Reading is
 * measured again for each row of a table, as shared machines change their speed from second to
 * second.
 */
#include "tools/ferrum/bench.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    READ_BYTES = 512 << 20, /* larger than any last-level cache */
    READ_PASSES = 3,
    MAX_THREADS = 1024
};

struct bench_machine {
    uint32_t threads;
    size_t words; /* per thread */
    uint64_t *memory;
    pthread_barrier_t barrier;
};

/* What one thread of a measurement does and found. */
typedef struct worker {
    pthread_t thread;
    pthread_mutex_t *gate; /* held until all threads exist, or it is known that one is missing */
    const bool *go;
    bench_machine_t *machine;
    uint32_t index;
    bool peaks; /* else: read */
    double read_seconds;
    double ops_per_second[BENCH_ARITHMETICS];
    volatile uint64_t sink;
} worker_t;

static uint64_t sum_words(const uint64_t *memory, size_t words)
{
    uint64_t sums[8] = {0};
    for (size_t i = 0; i + 8 <= words; i += 8) {
        __builtin_prefetch(memory + i + 512); /* as the kernels do; one thread gains most */
        _Pragma("GCC unroll 8") for (int j = 0; j < 8; j++) sums[j] += memory[i + (size_t)j];
    }
    return sums[0] ^ sums[1] ^ sums[2] ^ sums[3] ^ sums[4] ^ sums[5] ^ sums[6] ^ sums[7];
}

static void measure_read(worker_t *self)
{
    const bench_machine_t *machine = self->machine;
    const uint64_t *memory = machine->memory + self->index * machine->words;
    self->read_seconds = 1e9;
    for (int pass = 0; pass < READ_PASSES; pass++) {
        pthread_barrier_wait(&self->machine->barrier);
        double start = cli_now();
        self->sink += sum_words(memory, machine->words);
        pthread_barrier_wait(&self->machine->barrier);
        double seconds = cli_now() - start;
        if (seconds < self->read_seconds)
            self->read_seconds = seconds;
    }
}

static void measure_peaks(worker_t *self)
{
    int sink = 0;
    for (int kind = 0; kind < BENCH_ARITHMETICS; kind++) {
        pthread_barrier_wait(&self->machine->barrier);
        double start = cli_now();
        double ops = bench_peak_run((bench_arithmetic_t)kind, &sink);
        self->ops_per_second[kind] = ops / (cli_now() - start);
    }
    self->sink += (uint64_t)(unsigned)sink;
}

static void work(worker_t *self)
{
    if (self->peaks)
        measure_peaks(self);
    else
        measure_read(self);
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

/* All threads measure at once; the caller is thread 0. False when a thread cannot be had. */
static bool measure_together(bench_machine_t *machine, bool peaks, bench_limits_t *limits)
{
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    uint32_t threads = machine->threads, started = 1;
    worker_t *workers = calloc(threads, sizeof *workers);
    if (workers == NULL)
        return false;
    bool go = false;
    pthread_mutex_lock(&gate);
    for (uint32_t i = 0; i < threads; i++)
        workers[i] =
            (worker_t){.gate = &gate, .go = &go, .machine = machine, .index = i, .peaks = peaks};
    while (started < threads &&
           pthread_create(&workers[started].thread, NULL, thread_main, &workers[started]) == 0)
        started++;
    go = started == threads;
    pthread_mutex_unlock(&gate);
    if (go)
        work(&workers[0]);
    for (uint32_t i = 1; i < started; i++)
        pthread_join(workers[i].thread, NULL);
    if (go && !peaks)
        limits->read_gbps =
            (double)(machine->words * sizeof(uint64_t) * threads) / workers[0].read_seconds / 1e9;
    for (uint32_t i = 0; go && peaks && i < threads; i++)
        for (int kind = 0; kind < BENCH_ARITHMETICS; kind++)
            limits->gops[kind] += workers[i].ops_per_second[kind] / 1e9;
    free(workers);
    return go;
}

bench_machine_t *bench_machine_open(uint32_t threads, bench_limits_t *out_limits)
{
    bench_machine_t *machine = calloc(1, sizeof *machine);
    if (machine == NULL || threads == 0 || threads > MAX_THREADS)
        goto free_machine;
    machine->threads = threads;
    machine->words = READ_BYTES / sizeof(uint64_t) / threads;
    machine->memory = malloc(READ_BYTES);
    if (machine->memory == NULL || pthread_barrier_init(&machine->barrier, NULL, threads) != 0)
        goto free_memory;
    memset(machine->memory, 1, READ_BYTES);
    memset(out_limits, 0, sizeof *out_limits);
    if (measure_together(machine, true, out_limits) && bench_machine_read(machine, out_limits))
        return machine;
    pthread_barrier_destroy(&machine->barrier);
free_memory:
    free(machine->memory);
free_machine:
    free(machine);
    return NULL;
}

bool bench_machine_read(bench_machine_t *machine, bench_limits_t *limits)
{
    return measure_together(machine, false, limits);
}

void bench_machine_close(bench_machine_t *machine)
{
    if (machine == NULL)
        return;
    pthread_barrier_destroy(&machine->barrier);
    free(machine->memory);
    free(machine);
}
