/* SPDX-License-Identifier: MIT */
/**
 * @file paged_kv.h
 * @brief Where the vectors of a KV cache lie, in every layout.
 *
 * A contiguous cache [batch, kv_heads, capacity, head_dim] is a pool in FA layout whose blocks are
 * `capacity` long, with the one-entry table {batch index}; so there is one addressing helper.
 */
#ifndef FERRUM_CPU_PAGED_KV_H
#define FERRUM_CPU_PAGED_KV_H

#include "backends/cpu/check.h"

#include <ferrum/quant_llm.h>

#include <string.h>

/** A cache, checked. */
typedef struct ferrum_cpu_kv_pool {
    float *k;
    float *v;
    ferrum_kv_layout_t layout;
    uint32_t num_blocks;
    uint32_t block_size;
    uint32_t kv_heads;
    uint32_t head_dim;
} ferrum_cpu_kv_pool_t;

/** Where one vector of head_dim elements lies: element d at start + d/run*run_stride + d%run. */
typedef struct ferrum_cpu_kv_place {
    size_t start;
    size_t run;
    size_t run_stride;
} ferrum_cpu_kv_place_t;

/** A layout that this backend has, with a head dimension that it can hold; UNSUPPORTED if not. */
ferrum_status_t ferrum_cpu_check_kv_layout(ferrum_kv_layout_t layout, uint32_t head_dim,
                                           ferrum_error_t *err);

/** Check a caller's cache and its buffers. */
ferrum_status_t ferrum_cpu_kv_pool_from(const char *function, const ferrum_context_t *ctx,
                                        const ferrum_paged_kv_t *kv, ferrum_cpu_kv_pool_t *out_pool,
                                        ferrum_error_t *err);

/** Blocks of a sequence that hold positions [first, end) exist; INVALID_INPUT names the bad one. */
ferrum_status_t ferrum_cpu_check_blocks(const char *function, const ferrum_cpu_kv_pool_t *pool,
                                        const int32_t *table, uint32_t max_blocks, uint64_t first,
                                        uint64_t end, ferrum_error_t *err);

/** Key (@p is_value false) or value of @p position in @p head. */
static inline ferrum_cpu_kv_place_t ferrum_cpu_kv_place(const ferrum_cpu_kv_pool_t *pool,
                                                        const int32_t *table, uint32_t position,
                                                        uint32_t head, bool is_value)
{
    enum {
        X = 16 / sizeof(float)
    };
    const size_t block = (size_t)table[position / pool->block_size];
    const size_t slot = position % pool->block_size;
    const size_t head_start = (block * pool->kv_heads + head) * pool->block_size * pool->head_dim;

    if (pool->layout == FERRUM_KV_LAYOUT_FA)
        return (ferrum_cpu_kv_place_t){head_start + slot * pool->head_dim, pool->head_dim, 0};
    if (is_value)
        return (ferrum_cpu_kv_place_t){head_start + slot, 1, pool->block_size};
    return (ferrum_cpu_kv_place_t){head_start + slot * X, X, (size_t)pool->block_size * X};
}

/** The vector at @p place: where it lies when it is contiguous, else copied to @p temporary. */
static inline const float *ferrum_cpu_kv_load(const float *base, ferrum_cpu_kv_place_t place,
                                              uint32_t head_dim, float *temporary)
{
    if (place.run == head_dim)
        return base + place.start;
    for (uint32_t d = 0; d < head_dim; d++)
        temporary[d] = base[place.start + d / place.run * place.run_stride + d % place.run];
    return temporary;
}

/** Write a vector to @p place. */
static inline void ferrum_cpu_kv_store(float *base, ferrum_cpu_kv_place_t place, uint32_t head_dim,
                                       const float *vector)
{
    for (size_t d = 0; d < head_dim; d += place.run)
        memcpy(base + place.start + d / place.run * place.run_stride, vector + d,
               place.run * sizeof *vector);
}

#endif /* FERRUM_CPU_PAGED_KV_H */
