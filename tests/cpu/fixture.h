/* SPDX-License-Identifier: MIT */
/**
 * @file fixture.h
 * @brief A device and a context of the cpu backend, linked in, and buffers for tests.
 *
 * Outputs begin with a value that no test produces and are longer than the op may write; the rest
 * must stay as it was.
 */
#ifndef FERRUM_TEST_CPU_FIXTURE_H
#define FERRUM_TEST_CPU_FIXTURE_H

#include "backends/cpu/entries.h"
#include "kernels/kernels.h"
#include "tests/support/expect.h"
#include "tests/support/test_executor.h"
#include "tests/support/test_host.h"

#include <stdbool.h>

/** The tables, short. */
#define BK (&ferrum_cpu_backend_ops)
#define QL (&ferrum_cpu_quant_llm_ops)
#define MF (&ferrum_cpu_moe_fused_ops)

typedef struct cpu_fixture {
    test_host_t host;
    test_executor_t *team; /**< NULL: the calling thread */
    ferrum_device_t *device;
    ferrum_context_t *ctx;
    double tolerance; /**< of products with quantised weights, relative to a row's norm */
} cpu_fixture_t;

/** Kernel sets and team sizes that the numeric tests run under, as a loop test's _i. */
enum {
    CPU_CONFIGS = 4
};

/** Open a device with a kernel set (NULL: the widest) and a context with @p width threads. */
void cpu_open(cpu_fixture_t *f, const char *mask, uint32_t width);
/** The same for configuration @p config < CPU_CONFIGS. */
void cpu_open_config(cpu_fixture_t *f, int config);
/** Close both; fails when the plugin has kept memory. */
void cpu_close(cpu_fixture_t *f);

/** Uniform in (-1, 1), the same on every machine; advances @p state. */
float cpu_random(uint64_t *state);
/** @p n of them in fresh memory that the caller frees. */
float *cpu_random_values(uint64_t seed, size_t n);

/** Buffers with these contents. */
ferrum_buffer_t *cpu_f32(cpu_fixture_t *f, const float *values, size_t n);
ferrum_buffer_t *cpu_i32(cpu_fixture_t *f, const int32_t *values, size_t n);
ferrum_buffer_t *cpu_random_f32(cpu_fixture_t *f, uint64_t seed, size_t n);
/** A buffer of n elements and a guard behind them. */
ferrum_buffer_t *cpu_output(cpu_fixture_t *f, size_t n);
ferrum_buffer_t *cpu_output_i32(cpu_fixture_t *f, size_t n);
/** Contents in place. */
float *cpu_floats(const ferrum_buffer_t *buffer);
int32_t *cpu_ints(const ferrum_buffer_t *buffer);

/** The guard behind n elements is whole; and for cpu_check_untouched the elements too. */
void cpu_check_guard(const ferrum_buffer_t *buffer, size_t n);
void cpu_check_untouched(const ferrum_buffer_t *buffer, size_t n);

/** Each row of out[rows, n] is within @p tolerance of the reference, relative to its norm. */
void cpu_check_rows(const float *out, const double *reference, size_t rows, size_t n,
                    double tolerance);

/** Release buffers; a NULL ends the list. */
void cpu_release(ferrum_buffer_t *first, ...);

#endif /* FERRUM_TEST_CPU_FIXTURE_H */
