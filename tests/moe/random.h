/* SPDX-License-Identifier: MIT */
/**
 * @file random.h
 * @brief The generator of the MoE tests: a 64-bit LCG of which the high bits are used.
 */
#ifndef FERRUM_TEST_MOE_RANDOM_H
#define FERRUM_TEST_MOE_RANDOM_H

#include <stdint.h>

/** 31 fresh bits. */
static inline uint32_t lcg_bits(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/** Uniform in [0, 1), in steps of 2^-24. */
static inline float lcg_unit(uint64_t *state)
{
    return (float)(lcg_bits(state) >> 7) * 0x1p-24f;
}

/** Uniform in [low, high). */
static inline float lcg_float(uint64_t *state, float low, float high)
{
    return low + (high - low) * lcg_unit(state);
}

/** Uniform in [0, n). */
static inline uint32_t lcg_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)((uint64_t)lcg_bits(state) * n >> 31);
}

#endif /* FERRUM_TEST_MOE_RANDOM_H */
