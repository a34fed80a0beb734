/* SPDX-License-Identifier: MIT */
/**
 * @file kv_cache.h
 * @brief Keys and values of all requests of a model, and the requests themselves.
 *
 * Paged: per layer one pool of K and one of V, in one layout throughout; a request owns a list of
 * block numbers that all layers share, grows block by block and may share full blocks with others
 * (prefix cache). Contiguous, for backends without paged ops: per request and layer
 * [kv_heads, capacity, head_dim], kept for the next request when one ends.
 *
 * Pools are made on first use. Positions beyond `length` are scratch: a step that fails gives its
 * new blocks back and leaves the request as it was. Not thread-safe.
 */
#ifndef FERRUM_HOST_KV_CACHE_H
#define FERRUM_HOST_KV_CACHE_H

#include "host/model/block_allocator.h"
#include "host/runtime/ops.h"

/** Sizes of a cache. */
typedef struct ferrum_kv_shape {
    uint32_t layers;
    uint32_t kv_heads;
    uint32_t head_dim;
    uint32_t capacity;      /**< positions per request */
    uint32_t max_sequences; /**< requests alive at once */
    uint32_t pool_blocks;   /**< paged: blocks of all requests; 0: enough for all of them */
    bool paged;
    ferrum_kv_layout_t layout; /**< paged */
    bool prefix_cache;         /**< paged: share full blocks of equal prefixes */
} ferrum_kv_shape_t;

/** One request. */
typedef struct ferrum_sequence {
    uint64_t id;
    uint32_t slot;              /**< number of this entry */
    uint32_t length;            /**< positions that hold keys and values */
    uint32_t blocks;            /**< entries of its block table */
    uint32_t next;              /**< in its hash chain, or in the list of unused entries */
    uint64_t stamp;             /**< last step that named it: finds a request named twice */
    ferrum_block_chain_t chain; /**< of its full blocks */
    uint32_t tail[FERRUM_KV_BLOCK_TOKENS]; /**< tokens of its last, incomplete block */
} ferrum_sequence_t;

typedef struct ferrum_kv_cache ferrum_kv_cache_t;

/** A cache without requests. @p ops is borrowed. Errors: INVALID_ARGUMENT (overflow),
 *  OUT_OF_MEMORY. */
ferrum_status_t ferrum_kv_cache_new(const ferrum_ops_t *ops, const ferrum_kv_shape_t *shape,
                                    ferrum_kv_cache_t **out_cache, ferrum_error_t *err);
/** Free; NULL is fine. */
void ferrum_kv_cache_free(ferrum_kv_cache_t *cache);
/** Forget all requests and cached prefixes. */
void ferrum_kv_cache_reset(ferrum_kv_cache_t *cache);

const ferrum_kv_shape_t *ferrum_kv_cache_shape(const ferrum_kv_cache_t *cache);
/** Row length of block tables: ceil(capacity / 16). */
uint32_t ferrum_kv_cache_table_length(const ferrum_kv_cache_t *cache);
/** The paged cache's blocks; NULL when contiguous. */
ferrum_block_allocator_t *ferrum_kv_cache_blocks(const ferrum_kv_cache_t *cache);
/** Requests alive. */
uint32_t ferrum_kv_cache_sequences(const ferrum_kv_cache_t *cache);
/** Device memory held. */
uint64_t ferrum_kv_cache_bytes(const ferrum_kv_cache_t *cache);

/** Request @p id, or NULL. */
ferrum_sequence_t *ferrum_kv_cache_find(const ferrum_kv_cache_t *cache, uint64_t id);
/** A new, empty request. Errors: RESOURCE_EXHAUSTED (max_sequences). */
ferrum_status_t ferrum_kv_cache_add(ferrum_kv_cache_t *cache, uint64_t id,
                                    ferrum_sequence_t **out_sequence, ferrum_error_t *err);
/** End a request and give its blocks back. */
void ferrum_kv_cache_remove(ferrum_kv_cache_t *cache, ferrum_sequence_t *sequence);

/**
 * Start an empty request with the cached blocks of its prompt, leaving at least one token to
 * compute; `length` is then the number of tokens that need no computing.
 */
void ferrum_kv_cache_attach_prefix(ferrum_kv_cache_t *cache, ferrum_sequence_t *sequence,
                                   const uint32_t *tokens, uint32_t count);
/**
 * Make room for @p count more positions of each of @p sequences: all or none. Makes the pools on
 * first use. Errors: INVALID_ARGUMENT (capacity exceeded, with the numbers), RESOURCE_EXHAUSTED (no
 * free block), OUT_OF_MEMORY.
 */
ferrum_status_t ferrum_kv_cache_reserve(ferrum_kv_cache_t *cache,
                                        ferrum_sequence_t *const *sequences, uint32_t num_sequences,
                                        uint32_t count, ferrum_error_t *err);
/** Make the pools of a paged cache now. Errors: OUT_OF_MEMORY. */
ferrum_status_t ferrum_kv_cache_prepare(ferrum_kv_cache_t *cache, ferrum_error_t *err);
/** Say that @p done of @p count rows of a prompt of @p sequence are written, which its `length`
 * does not count yet: a swap between two passes of the prompt moves them too. NULL at the end. */
void ferrum_kv_cache_set_running(ferrum_kv_cache_t *cache, const ferrum_sequence_t *sequence,
                                 uint32_t done, uint32_t count);
/** Give back the blocks that lie wholly beyond `length`: undoes a reserve. */
void ferrum_kv_cache_trim(ferrum_kv_cache_t *cache, ferrum_sequence_t *sequence);
/** The keys and values of @p tokens are written: count them in, register full blocks. */
void ferrum_kv_cache_commit(ferrum_kv_cache_t *cache, ferrum_sequence_t *sequence,
                            const uint32_t *tokens, uint32_t count);

/** The request's block table, zero beyond its blocks. */
const int32_t *ferrum_kv_cache_table(const ferrum_kv_cache_t *cache,
                                     const ferrum_sequence_t *sequence);
/** The pools of @p layer, for the paged ops. Paged caches only, after a reserve. */
const ferrum_paged_kv_t *ferrum_kv_cache_paged(const ferrum_kv_cache_t *cache, uint32_t layer);
/** K and V of one request and layer. Contiguous caches only, after a reserve. */
void ferrum_kv_cache_contiguous(const ferrum_kv_cache_t *cache, const ferrum_sequence_t *sequence,
                                uint32_t layer, ferrum_buffer_t **out_k, ferrum_buffer_t **out_v);

#endif /* FERRUM_HOST_KV_CACHE_H */
