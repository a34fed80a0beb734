/* SPDX-License-Identifier: MIT */
/**
 * @file sampler.h
 * @brief Picks the next token from logits.
 *
 * In this order:
 *  1. repetition penalty: of every token among the last `repetition_window` accepted ones, a
 *     positive logit is divided by it, others are multiplied;
 *  2. temperature 0: the largest logit wins, the lowest id among equals; done. Otherwise all
 *     logits are divided by the temperature;
 *  3. top-k: the k largest stay (ids break ties, lowest first);
 *  4. top-p: of what is left, the shortest prefix by falling probability that reaches p;
 *  5. min-p: of what is left, those with at least min_p times the largest probability;
 *  6. one draw from the renormalised rest.
 *
 * The generator is xoshiro256**, seeded through splitmix64; a draw takes its upper 53 bits. The
 * same seed, settings and logits give the same tokens on every machine with IEEE doubles and the
 * same exp().
 *
 * Sampling allocates nothing. A sampler belongs to one sequence and is not thread-safe.
 */
#ifndef FERRUM_HOST_SAMPLER_H
#define FERRUM_HOST_SAMPLER_H

#include <ferrum/types.h>

/** Settings. Start from FERRUM_SAMPLER_PARAMS_DEFAULT. */
typedef struct ferrum_sampler_params {
    float temperature;          /**< >= 0; 0 = greedy */
    uint32_t top_k;             /**< 0 = off */
    float top_p;                /**< (0, 1]; 1 = off */
    float min_p;                /**< [0, 1]; 0 = off */
    float repetition_penalty;   /**< > 0; 1 = off, above 1 discourages */
    uint32_t repetition_window; /**< tokens looked back; 0 = off */
    uint64_t seed;
} ferrum_sampler_params_t;

/** Greedy, every filter off. */
#define FERRUM_SAMPLER_PARAMS_DEFAULT                                                              \
    {                                                                                              \
        0.0f, 0, 1.0f, 0.0f, 1.0f, 64, 0                                                           \
    }

/** Longest repetition window. */
#define FERRUM_SAMPLER_MAX_WINDOW (1u << 20)

typedef struct ferrum_sampler ferrum_sampler_t;

/**
 * Make a sampler for logits of @p vocab entries (1…2^24).
 * Errors: INVALID_ARGUMENT naming the setting that is out of range, OUT_OF_MEMORY. [init]
 */
ferrum_status_t ferrum_sampler_new(const ferrum_sampler_params_t *params, uint32_t vocab,
                                   ferrum_sampler_t **out_sampler, ferrum_error_t *err);
/** Release; NULL is fine. [init] */
void ferrum_sampler_free(ferrum_sampler_t *sampler);

/** Forget all accepted tokens and start the generator anew from @p seed. */
void ferrum_sampler_reset(ferrum_sampler_t *sampler, uint64_t seed);

/**
 * Note a token of the sequence (prompt or generated) for the repetition penalty. The caller does
 * this for every token, sampled ones included. INVALID_ARGUMENT for an id out of range.
 */
ferrum_status_t ferrum_sampler_accept(ferrum_sampler_t *sampler, int32_t token,
                                      ferrum_error_t *err);

/**
 * Pick a token from @p logits[vocab], which stay as they are. -inf masks a token.
 * Errors: INVALID_INPUT (reason NON_FINITE) for NaN or +inf, naming the index, and when every
 * logit is -inf. The generator advances only when a draw is made.
 */
ferrum_status_t ferrum_sampler_sample(ferrum_sampler_t *sampler, const float *logits,
                                      int32_t *out_token, ferrum_error_t *err);

#endif /* FERRUM_HOST_SAMPLER_H */
