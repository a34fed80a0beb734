/* SPDX-License-Identifier: MIT */
#include "tests/cpu/fixture.h"

#include "backends/cpu/objects.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>

enum {
    GUARD = 16,
    DIRT = 0x4b1d4b1d
};

void cpu_open(cpu_fixture_t *f, const char *mask, uint32_t width)
{
    test_host_init(&f->host);
    f->host.cpu_mask = mask;
    f->team = width > 1 ? test_executor_new(width) : NULL;
    EXPECT_OK(BK->device_open(&f->host.host, NULL, &f->device, &err));
    /* Packed weights meet quantised activations. */
    f->tolerance = f->device->packed ? 2e-4 : 2e-5;
    EXPECT_OK(
        BK->context_new(f->device, f->team ? test_executor_get(f->team) : NULL, &f->ctx, &err));
}

void cpu_open_config(cpu_fixture_t *f, int config)
{
    static const struct {
        const char *mask;
        uint32_t width;
    } configs[CPU_CONFIGS] = {{"scalar", 1}, {"avx2", 3}, {"avx512", 1}, {"avx512vnni", 4}};
    bool known = false;
    for (size_t i = 0; i < ferrum_kernel_set_count; i++)
        known = known || strcmp(ferrum_kernel_sets[i]->name, configs[config].mask) == 0;
    cpu_open(f, known ? configs[config].mask : NULL, configs[config].width);
}

void cpu_close(cpu_fixture_t *f)
{
    BK->context_free(f->ctx);
    BK->device_release(f->device);
    test_executor_free(f->team);
    ck_assert_uint_eq(f->host.live_blocks, 0);
    ck_assert_uint_eq(f->host.live_bytes, 0);
}

float cpu_random(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    uint64_t z = *state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (float)((double)((z ^ z >> 31) >> 11) * 0x1p-52 - 1.0);
}

float *cpu_random_values(uint64_t seed, size_t n)
{
    float *values = malloc((n ? n : 1) * sizeof *values);
    for (size_t i = 0; i < n; i++)
        values[i] = cpu_random(&seed);
    return values;
}

static ferrum_buffer_t *buffer_of(cpu_fixture_t *f, ferrum_dtype_t dtype, const void *values,
                                  size_t n)
{
    ferrum_buffer_t *buffer = NULL;
    EXPECT_OK(BK->buffer_alloc(f->device, dtype, n, &buffer, &err));
    EXPECT_OK(BK->buffer_write(f->ctx, buffer, 0, dtype, values, n, &err));
    return buffer;
}

ferrum_buffer_t *cpu_f32(cpu_fixture_t *f, const float *values, size_t n)
{
    return buffer_of(f, FERRUM_DTYPE_F32, values, n);
}

ferrum_buffer_t *cpu_i32(cpu_fixture_t *f, const int32_t *values, size_t n)
{
    return buffer_of(f, FERRUM_DTYPE_I32, values, n);
}

ferrum_buffer_t *cpu_random_f32(cpu_fixture_t *f, uint64_t seed, size_t n)
{
    float *values = cpu_random_values(seed, n);
    ferrum_buffer_t *buffer = cpu_f32(f, values, n);
    free(values);
    return buffer;
}

static ferrum_buffer_t *dirty(cpu_fixture_t *f, ferrum_dtype_t dtype, size_t n)
{
    ferrum_buffer_t *buffer = NULL;
    EXPECT_OK(BK->buffer_alloc(f->device, dtype, n + GUARD, &buffer, &err));
    for (size_t i = 0; i < n + GUARD; i++)
        cpu_ints(buffer)[i] = DIRT;
    return buffer;
}

ferrum_buffer_t *cpu_output(cpu_fixture_t *f, size_t n)
{
    return dirty(f, FERRUM_DTYPE_F32, n);
}

ferrum_buffer_t *cpu_output_i32(cpu_fixture_t *f, size_t n)
{
    return dirty(f, FERRUM_DTYPE_I32, n);
}

static void *contents(const ferrum_buffer_t *buffer)
{
    ferrum_buffer_info_t info = {.head = FERRUM_HEAD(ferrum_buffer_info_t)};
    /* Called once per element by some tests, so it reports to Check only when it fails. */
    if (BK->buffer_info(buffer, &info, NULL) != FERRUM_OK)
        ck_abort_msg("buffer_info failed");
    return info.host_ptr;
}

float *cpu_floats(const ferrum_buffer_t *buffer)
{
    return contents(buffer);
}

int32_t *cpu_ints(const ferrum_buffer_t *buffer)
{
    return contents(buffer);
}

static void check_dirt(const ferrum_buffer_t *buffer, size_t first, size_t end)
{
    const int32_t *elements = cpu_ints(buffer);
    for (size_t i = first; i < end; i++)
        if (elements[i] != DIRT)
            ck_abort_msg("element %zu was written", i);
}

void cpu_check_guard(const ferrum_buffer_t *buffer, size_t n)
{
    check_dirt(buffer, n, n + GUARD);
}

void cpu_check_untouched(const ferrum_buffer_t *buffer, size_t n)
{
    check_dirt(buffer, 0, n + GUARD);
}

void cpu_check_rows(const float *out, const double *reference, size_t rows, size_t n,
                    double tolerance)
{
    for (size_t r = 0; r < rows; r++) {
        double difference = 0.0, norm = 0.0;
        for (size_t i = 0; i < n; i++) {
            const double d = (double)out[r * n + i] - reference[r * n + i];
            difference += d * d;
            norm += reference[r * n + i] * reference[r * n + i];
        }
        ck_assert_msg(sqrt(difference) <= tolerance * sqrt(norm) + 1e-30,
                      "row %zu is off by %g of its norm, allowed %g", r,
                      sqrt(difference / (norm > 0.0 ? norm : 1.0)), tolerance);
    }
}

void cpu_release(ferrum_buffer_t *first, ...)
{
    va_list args;
    va_start(args, first);
    for (ferrum_buffer_t *b = first; b; b = va_arg(args, ferrum_buffer_t *))
        BK->buffer_release(b);
    va_end(args);
}
