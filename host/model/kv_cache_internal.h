/* SPDX-License-Identifier: MIT */
/**
 * @file kv_cache_internal.h
 * @brief The fields of a KV cache, for the code that moves it to another generation.
 */
#ifndef FERRUM_HOST_KV_CACHE_INTERNAL_H
#define FERRUM_HOST_KV_CACHE_INTERNAL_H

#include "host/model/kv_cache.h"

/** End of a chain of sequences. */
#define FERRUM_NO_SEQUENCE UINT32_MAX

/** A call that has written some passes of a prompt. */
typedef struct ferrum_kv_running {
    const ferrum_sequence_t *sequence; /**< NULL: there is none */
    uint32_t done, count;              /**< rows written, and reserved, beyond its length */
} ferrum_kv_running_t;

struct ferrum_kv_cache {
    const ferrum_ops_t *ops;
    ferrum_kv_shape_t shape;
    uint32_t table_length;
    ferrum_kv_running_t running;
    uint32_t alive;
    ferrum_sequence_t *sequences; /**< [max_sequences] */
    uint32_t unused;              /**< first of the unused entries */
    uint32_t *buckets;            /**< by id */
    uint32_t bucket_mask;
    int32_t *tables; /**< [max_sequences, table_length] */
    ferrum_block_allocator_t *blocks;
    ferrum_paged_kv_t *pools;     /**< paged: [layers] */
    ferrum_buffer_t **contiguous; /**< else: [max_sequences, layers, K and V] */
    uint64_t elements;            /**< of one K or V buffer */
    uint64_t bytes;
};

/** The buffers of a contiguous cache's slot, if they do not exist. */
ferrum_status_t ferrum_kv_cache_make_contiguous(ferrum_kv_cache_t *cache, uint32_t slot,
                                                ferrum_error_t *err);

#endif /* FERRUM_HOST_KV_CACHE_INTERNAL_H */
