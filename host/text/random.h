/* SPDX-License-Identifier: MIT */
/**
 * @file random.h
 * @brief xoshiro256**: small, fast, the same on every machine. Not for secrets.
 */
#ifndef FERRUM_HOST_RANDOM_H
#define FERRUM_HOST_RANDOM_H

#include <stdint.h>

typedef struct ferrum_random {
    uint64_t state[4];
} ferrum_random_t;

/** One splitmix64 step; it turns any seed into well-mixed state words. */
static inline uint64_t ferrum_random_splitmix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline void ferrum_random_seed(ferrum_random_t *random, uint64_t seed)
{
    for (int i = 0; i < 4; i++)
        random->state[i] = ferrum_random_splitmix(&seed);
}

static inline uint64_t ferrum_random_rotate(uint64_t value, unsigned bits)
{
    return (value << bits) | (value >> (64 - bits));
}

/** Next 64 random bits. */
static inline uint64_t ferrum_random_next(ferrum_random_t *random)
{
    uint64_t *s = random->state;
    uint64_t result = ferrum_random_rotate(s[1] * 5, 7) * 9;
    uint64_t shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = ferrum_random_rotate(s[3], 45);
    return result;
}

/** Uniform in [0, 1), a multiple of 2^-53. */
static inline double ferrum_random_unit(ferrum_random_t *random)
{
    return (double)(ferrum_random_next(random) >> 11) * 0x1p-53;
}

#endif /* FERRUM_HOST_RANDOM_H */
