/* SPDX-License-Identifier: MIT */
#include "host/model/block_allocator.h"

#include <ferrum/util.h>

#include <stdlib.h>
#include <string.h>

#define NO_BLOCK UINT32_MAX

/* A block is in one of four states: held; free without content (on the stack, linked by `next`);
 * free with content (in the eviction queue, linked both ways). Held blocks may have content. */
typedef struct block {
    uint64_t hash;   /* of the registered content */
    uint64_t serial; /* 0: nothing registered */
    uint64_t parent; /* serial of the parent content */
    uint32_t tokens[FERRUM_KV_BLOCK_TOKENS];
    uint32_t references;
    uint32_t next, previous;
    uint32_t bucket_next;
} block_t;

struct ferrum_block_allocator {
    block_t *blocks;
    uint32_t *buckets; /* heads of the hash chains; a power of two of them */
    uint32_t bucket_mask;
    uint32_t total;
    uint32_t free_count;
    uint32_t stack;                   /* top of the blocks without content */
    uint32_t queue_first, queue_last; /* free blocks with content, first out first */
    uint64_t next_serial;
    uint64_t hits, misses;
    ferrum_block_hash_fn *hash;
};

static uint64_t hash_block(uint64_t parent, const uint32_t *tokens)
{
    uint64_t h = parent ^ 0x9E3779B97F4A7C15u;
    for (uint32_t i = 0; i < FERRUM_KV_BLOCK_TOKENS; i++) {
        h = (h ^ tokens[i]) * 0xBF58476D1CE4E5B9u;
        h ^= h >> 29;
    }
    return h;
}

ferrum_status_t ferrum_block_allocator_new(uint32_t blocks,
                                           ferrum_block_allocator_t **out_allocator,
                                           ferrum_error_t *err)
{
    if (blocks == 0 || blocks > FERRUM_KV_MAX_BLOCKS)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_RANGE,
                           "KV pool of %u blocks: must be 1 to %u", blocks, FERRUM_KV_MAX_BLOCKS);
    size_t buckets = 16;
    while (buckets < blocks)
        buckets *= 2;
    ferrum_block_allocator_t *a = calloc(1, sizeof *a);
    if (!a)
        goto no_memory;
    a->blocks = calloc(blocks, sizeof *a->blocks);
    a->buckets = calloc(buckets, sizeof *a->buckets);
    if (!a->blocks || !a->buckets)
        goto no_memory;
    a->total = blocks;
    a->bucket_mask = (uint32_t)(buckets - 1);
    a->hash = hash_block;
    ferrum_block_allocator_reset(a);
    *out_allocator = a;
    return FERRUM_OK;

no_memory:
    ferrum_block_allocator_free(a);
    return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                       "out of memory for the table of %u KV blocks", blocks);
}

void ferrum_block_allocator_free(ferrum_block_allocator_t *a)
{
    if (!a)
        return;
    free(a->blocks);
    free(a->buckets);
    free(a);
}

void ferrum_block_allocator_reset(ferrum_block_allocator_t *a)
{
    memset(a->blocks, 0, (size_t)a->total * sizeof *a->blocks);
    for (size_t i = 0; i <= a->bucket_mask; i++)
        a->buckets[i] = NO_BLOCK;
    for (uint32_t i = 0; i < a->total; i++)
        a->blocks[i].next = i + 1 < a->total ? i + 1 : NO_BLOCK;
    a->stack = 0;
    a->queue_first = a->queue_last = NO_BLOCK;
    a->free_count = a->total;
    a->next_serial = 1;
    a->hits = a->misses = 0;
}

uint32_t ferrum_block_allocator_total(const ferrum_block_allocator_t *a)
{
    return a->total;
}

uint32_t ferrum_block_allocator_free_count(const ferrum_block_allocator_t *a)
{
    return a->free_count;
}

uint32_t ferrum_block_allocator_references(const ferrum_block_allocator_t *a, uint32_t block)
{
    return block < a->total ? a->blocks[block].references : 0;
}

static void forget_content(ferrum_block_allocator_t *a, uint32_t index)
{
    block_t *b = &a->blocks[index];
    uint32_t *link = &a->buckets[b->hash & a->bucket_mask];
    while (*link != index)
        link = &a->blocks[*link].bucket_next;
    *link = b->bucket_next;
    b->serial = 0;
}

static void leave_queue(ferrum_block_allocator_t *a, uint32_t index)
{
    const block_t *b = &a->blocks[index];
    if (b->previous == NO_BLOCK)
        a->queue_first = b->next;
    else
        a->blocks[b->previous].next = b->next;
    if (b->next == NO_BLOCK)
        a->queue_last = b->previous;
    else
        a->blocks[b->next].previous = b->previous;
}

static uint32_t take_one(ferrum_block_allocator_t *a)
{
    uint32_t index = a->stack;
    if (index != NO_BLOCK) {
        a->stack = a->blocks[index].next;
    } else {
        index = a->queue_first;
        leave_queue(a, index);
        forget_content(a, index);
    }
    a->blocks[index].references = 1;
    a->free_count--;
    return index;
}

ferrum_status_t ferrum_block_allocator_take(ferrum_block_allocator_t *a, uint32_t count,
                                            int32_t *out_blocks, ferrum_error_t *err)
{
    if (count > a->free_count)
        return ferrum_fail(err, FERRUM_RESOURCE_EXHAUSTED, FERRUM_REASON_NONE,
                           "%u KV blocks needed, %u of %u free: release a request or raise "
                           "FERRUM_KV_MAX_BLOCKS",
                           count, a->free_count, a->total);
    for (uint32_t i = 0; i < count; i++)
        out_blocks[i] = (int32_t)take_one(a);
    return FERRUM_OK;
}

void ferrum_block_allocator_drop(ferrum_block_allocator_t *a, int32_t block)
{
    uint32_t index = (uint32_t)block;
    block_t *b = &a->blocks[index];
    if (--b->references != 0)
        return;
    a->free_count++;
    if (b->serial == 0) {
        b->next = a->stack;
        a->stack = index;
        return;
    }
    b->previous = a->queue_last;
    b->next = NO_BLOCK;
    if (a->queue_last == NO_BLOCK)
        a->queue_first = index;
    else
        a->blocks[a->queue_last].next = index;
    a->queue_last = index;
}

static uint32_t find_content(const ferrum_block_allocator_t *a, uint64_t hash, uint64_t parent,
                             const uint32_t *tokens)
{
    uint32_t index = a->buckets[hash & a->bucket_mask];
    for (; index != NO_BLOCK; index = a->blocks[index].bucket_next) {
        const block_t *b = &a->blocks[index];
        if (b->hash == hash && b->parent == parent &&
            memcmp(b->tokens, tokens, sizeof b->tokens) == 0)
            break;
    }
    return index;
}

int32_t ferrum_block_allocator_find(ferrum_block_allocator_t *a, ferrum_block_chain_t *chain,
                                    const uint32_t *tokens)
{
    uint64_t hash = a->hash(chain->hash, tokens);
    uint32_t index = find_content(a, hash, chain->serial, tokens);
    if (index == NO_BLOCK) {
        a->misses++;
        return -1;
    }
    a->hits++;
    block_t *b = &a->blocks[index];
    if (b->references++ == 0) {
        leave_queue(a, index);
        a->free_count--;
    }
    chain->hash = hash;
    chain->serial = b->serial;
    return (int32_t)index;
}

void ferrum_block_allocator_register(ferrum_block_allocator_t *a, ferrum_block_chain_t *chain,
                                     const uint32_t *tokens, int32_t block)
{
    uint64_t hash = a->hash(chain->hash, tokens);
    uint32_t index = find_content(a, hash, chain->serial, tokens);
    if (index == NO_BLOCK) {
        index = (uint32_t)block;
        block_t *b = &a->blocks[index];
        if (b->serial != 0)
            forget_content(a, index);
        b->hash = hash;
        b->serial = a->next_serial++;
        b->parent = chain->serial;
        memcpy(b->tokens, tokens, sizeof b->tokens);
        b->bucket_next = a->buckets[hash & a->bucket_mask];
        a->buckets[hash & a->bucket_mask] = index;
    }
    chain->hash = hash;
    chain->serial = a->blocks[index].serial;
}

void ferrum_block_allocator_stats(const ferrum_block_allocator_t *a, uint64_t *out_hits,
                                  uint64_t *out_misses)
{
    *out_hits = a->hits;
    *out_misses = a->misses;
}

void ferrum_block_allocator_set_hash(ferrum_block_allocator_t *a, ferrum_block_hash_fn *hash)
{
    a->hash = hash ? hash : hash_block;
}
