/* SPDX-License-Identifier: MIT */
/**
 * @file fixture.h
 * @brief What the kernel tests share: every set this machine can run, random operands, and memory
 *        whose end is a trap.
 */
#ifndef FERRUM_TESTS_KERNELS_FIXTURE_H
#define FERRUM_TESTS_KERNELS_FIXTURE_H

#include "kernels/kernels.h"

#include <ferrum/util.h>

#include <check.h>

/** ck_assert_msg() for inner loops: libcheck notes every passed assertion, which takes longer than
 *  what is tested here. */
#define FIXTURE_REQUIRE(condition, ...)                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            ck_abort_msg(__VA_ARGS__);                                                             \
    } while (0)

/** Formats of the scalar set, which has all of them: the loop bound and the loop variable. */
size_t fixture_format_count(void);
const ferrum_format_traits_t *fixture_format(size_t index);

/** Set @p index of ferrum_kernel_sets, or NULL (after saying so) if this machine cannot run it. */
const ferrum_kernel_set_t *fixture_set(int index);

/** @p size bytes that end at an inaccessible page, with @p slack bytes between the two. Reading or
 *  writing behind the end is a crash; the bytes before the start are checked by fixture_free(). */
void *fixture_alloc(size_t size, size_t slack);
void fixture_free(void *memory, size_t size, size_t slack);

/** xorshift generator; the tests are the same on every run. */
typedef struct fixture_rng {
    uint64_t state;
} fixture_rng_t;

uint32_t fixture_random(fixture_rng_t *rng);
/** Uniform in [-1, 1). */
float fixture_random_f32(fixture_rng_t *rng);
void fixture_fill_f32(fixture_rng_t *rng, float *values, size_t n);

/** Random blocks whose decoded values are finite and of ordinary size. */
void fixture_fill_blocks(fixture_rng_t *rng, const ferrum_format_traits_t *traits, uint8_t *blocks,
                         size_t count);

/** Bytes of a row of @p k values. */
size_t fixture_row_bytes(const ferrum_format_traits_t *traits, size_t k);

/** A whole file of tests/golden, from malloc; fails the test when it cannot be read. */
uint8_t *fixture_read_golden(const char *name, size_t *out_size);

/** Run one suite of one test case whose functions are run once per kernel set. */
int fixture_main(const char *name, const TTest *const *tests, size_t count);

#endif /* FERRUM_TESTS_KERNELS_FIXTURE_H */
