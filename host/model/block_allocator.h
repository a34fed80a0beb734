/* SPDX-License-Identifier: MIT */
/**
 * @file block_allocator.h
 * @brief Numbers of KV blocks: free lists, reference counts and the prefix cache.
 *
 * It hands out numbers only; the memory behind them belongs to the KV cache. A fresh allocator
 * gives block 0 first, then 1, …; a freed block without cached content is the next one out (a
 * stack). Blocks whose content is registered in the prefix cache keep it when they are freed and
 * are taken last, the one freed longest ago first; until then a look-up revives them.
 *
 * Prefix cache: content is FERRUM_KV_BLOCK_TOKENS tokens behind a chain of ancestors. It is found
 * by the chained hash `h_i = H(h_{i-1}, tokens)` and then *compared*: the tokens, and the serial
 * number of the registered parent, which was compared the same way. Equal hashes of different
 * content therefore never share a block. Every operation is O(1) per block and allocates nothing.
 *
 * Not thread-safe: a model drives it from one thread.
 */
#ifndef FERRUM_HOST_BLOCK_ALLOCATOR_H
#define FERRUM_HOST_BLOCK_ALLOCATOR_H

#include <ferrum/types.h>

#include <stdbool.h>

/** Positions of a KV block. */
#define FERRUM_KV_BLOCK_TOKENS 16u
/** Most blocks of one allocator: block tables are i32. */
#define FERRUM_KV_MAX_BLOCKS ((uint32_t)INT32_MAX)

typedef struct ferrum_block_allocator ferrum_block_allocator_t;

/** End of a chain of full blocks whose content is registered. Zeroed: the empty prefix. */
typedef struct ferrum_block_chain {
    uint64_t hash;   /**< chained hash of everything up to here */
    uint64_t serial; /**< number of the registered content; 0 for the empty prefix */
} ferrum_block_chain_t;

/** @p blocks >= 1 free blocks. Errors: INVALID_ARGUMENT, OUT_OF_MEMORY. */
ferrum_status_t ferrum_block_allocator_new(uint32_t blocks,
                                           ferrum_block_allocator_t **out_allocator,
                                           ferrum_error_t *err);
/** Free; NULL is fine. */
void ferrum_block_allocator_free(ferrum_block_allocator_t *allocator);
/** All blocks free, nothing cached, block 0 first again. */
void ferrum_block_allocator_reset(ferrum_block_allocator_t *allocator);

/** All blocks; those that nobody holds, cached content included. */
uint32_t ferrum_block_allocator_total(const ferrum_block_allocator_t *allocator);
uint32_t ferrum_block_allocator_free_count(const ferrum_block_allocator_t *allocator);
/** Holders of @p block; 0 when it is free or out of range. */
uint32_t ferrum_block_allocator_references(const ferrum_block_allocator_t *allocator,
                                           uint32_t block);

/**
 * Take @p count blocks, one reference each: all or none.
 * Errors: RESOURCE_EXHAUSTED with both numbers.
 */
ferrum_status_t ferrum_block_allocator_take(ferrum_block_allocator_t *allocator, uint32_t count,
                                            int32_t *out_blocks, ferrum_error_t *err);
/** Drop one reference of a held block. */
void ferrum_block_allocator_drop(ferrum_block_allocator_t *allocator, int32_t block);

/**
 * Block with the content `chain + tokens`, or -1. A hit takes a reference (reviving a free block)
 * and moves @p chain forward; a miss leaves it alone.
 * @param tokens FERRUM_KV_BLOCK_TOKENS of them
 */
int32_t ferrum_block_allocator_find(ferrum_block_allocator_t *allocator,
                                    ferrum_block_chain_t *chain, const uint32_t *tokens);
/**
 * Register the content of a held block and move @p chain forward. When that content is registered
 * already (another request computed the same), the older block stays the registered one.
 */
void ferrum_block_allocator_register(ferrum_block_allocator_t *allocator,
                                     ferrum_block_chain_t *chain, const uint32_t *tokens,
                                     int32_t block);

/** Hits and misses of find since the allocator was made or reset. */
void ferrum_block_allocator_stats(const ferrum_block_allocator_t *allocator, uint64_t *out_hits,
                                  uint64_t *out_misses);

/**
 * Test hook: replaces the hash, so that collisions can be provoked. NULL restores it. Call before
 * anything is registered.
 */
typedef uint64_t ferrum_block_hash_fn(uint64_t parent, const uint32_t *tokens);
void ferrum_block_allocator_set_hash(ferrum_block_allocator_t *allocator,
                                     ferrum_block_hash_fn *hash);

#endif /* FERRUM_HOST_BLOCK_ALLOCATOR_H */
