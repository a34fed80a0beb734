/* SPDX-License-Identifier: MIT */
/**
 * @file gptq.h
 * @brief What is checked of every GPTQ matrix before a backend brings it into its own layout.
 */
#ifndef FERRUM_BACKENDS_COMMON_GPTQ_H
#define FERRUM_BACKENDS_COMMON_GPTQ_H

#include <ferrum/quant_llm.h>
#include <ferrum/types.h>

#include <stdbool.h>
#include <string.h>

/** Word @p index of qweight, qzeros or g_idx, which may lie at any address (a mapped file). */
static inline uint32_t ferrum_gptq_u32(const void *words, uint64_t index)
{
    uint32_t word;
    memcpy(&word, (const unsigned char *)words + index * sizeof word, sizeof word);
    return word;
}

/** Groups along the inputs. */
static inline uint32_t ferrum_gptq_groups(const ferrum_gptq_t *source)
{
    return source->group_size ? source->k / source->group_size : 1;
}

/** A shape that GPTQ can have here; UNSUPPORTED with the reason if not. @p has_zeros: zero points
 *  are stored. */
ferrum_status_t ferrum_check_gptq_problem(uint32_t bits, uint32_t group_size, uint32_t k,
                                          uint32_t n, bool has_zeros, ferrum_error_t *err);
/** Everything that can be wrong with a descriptor, its arrays included. */
ferrum_status_t ferrum_check_gptq(const ferrum_gptq_t *source, ferrum_error_t *err);
/** The same of @p count matrices that must be alike in all but codes, zeros and g_idx; what they
 *  take in the file. */
ferrum_status_t ferrum_check_gptq_stack(const ferrum_gptq_t *const *sources, uint32_t count,
                                        uint64_t *out_bytes, ferrum_error_t *err);

#endif /* FERRUM_BACKENDS_COMMON_GPTQ_H */
