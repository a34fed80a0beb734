/* SPDX-License-Identifier: MIT */
#include "host/model/kv_cache_internal.h"

#include <ferrum/util.h>

#include <stdlib.h>
#include <string.h>

static uint32_t bucket_of(const ferrum_kv_cache_t *cache, uint64_t id)
{
    return (uint32_t)((id * 0x9E3779B97F4A7C15u) >> 32) & cache->bucket_mask;
}

static void clear_entries(ferrum_kv_cache_t *cache)
{
    for (size_t i = 0; i <= cache->bucket_mask; i++)
        cache->buckets[i] = FERRUM_NO_SEQUENCE;
    for (uint32_t i = 0; i < cache->shape.max_sequences; i++) {
        cache->sequences[i].slot = i;
        cache->sequences[i].next = i + 1 < cache->shape.max_sequences ? i + 1 : FERRUM_NO_SEQUENCE;
    }
    cache->unused = 0;
    cache->alive = 0;
}

static ferrum_status_t check_shape(const ferrum_kv_shape_t *shape, uint64_t *out_elements,
                                   ferrum_error_t *err)
{
    uint64_t positions = shape->capacity;
    uint64_t limit = (uint64_t)shape->max_sequences * shape->layers;
    if (shape->paged)
        positions = (uint64_t)shape->pool_blocks * FERRUM_KV_BLOCK_TOKENS;
    if (shape->capacity == 0 || shape->max_sequences == 0 || limit > UINT32_MAX ||
        !ferrum_mul_u64(positions, (uint64_t)shape->kv_heads * shape->head_dim, out_elements) ||
        *out_elements > UINT64_MAX / 16)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                           "KV cache of %u requests with %u positions each is not possible",
                           shape->max_sequences, shape->capacity);
    return FERRUM_OK;
}

static bool allocate_tables(ferrum_kv_cache_t *cache)
{
    const ferrum_kv_shape_t *shape = &cache->shape;
    size_t buckets = 16;
    while (buckets < shape->max_sequences)
        buckets *= 2;
    cache->bucket_mask = (uint32_t)(buckets - 1);
    cache->buckets = calloc(buckets, sizeof *cache->buckets);
    cache->sequences = calloc(shape->max_sequences, sizeof *cache->sequences);
    cache->tables = calloc((size_t)shape->max_sequences * cache->table_length, sizeof(int32_t));
    if (shape->paged)
        cache->pools = calloc(shape->layers, sizeof *cache->pools);
    else
        cache->contiguous =
            calloc((size_t)shape->max_sequences * shape->layers * 2, sizeof(ferrum_buffer_t *));
    return cache->buckets && cache->sequences && cache->tables &&
           (shape->paged ? cache->pools != NULL : cache->contiguous != NULL);
}

ferrum_status_t ferrum_kv_cache_new(const ferrum_ops_t *ops, const ferrum_kv_shape_t *shape,
                                    ferrum_kv_cache_t **out_cache, ferrum_error_t *err)
{
    ferrum_kv_shape_t sizes = *shape;
    uint32_t table_length =
        sizes.capacity / FERRUM_KV_BLOCK_TOKENS + (sizes.capacity % FERRUM_KV_BLOCK_TOKENS != 0);
    if (sizes.pool_blocks == 0) {
        uint64_t all = (uint64_t)sizes.max_sequences * table_length;
        sizes.pool_blocks = all > FERRUM_KV_MAX_BLOCKS ? FERRUM_KV_MAX_BLOCKS : (uint32_t)all;
    }
    uint64_t elements = 0;
    FERRUM_TRY(check_shape(&sizes, &elements, err));

    ferrum_kv_cache_t *cache = calloc(1, sizeof *cache);
    if (!cache)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "out of memory for a KV cache");
    cache->ops = ops;
    cache->shape = sizes;
    cache->table_length = table_length;
    cache->elements = elements;
    ferrum_status_t status = FERRUM_OK;
    if (!allocate_tables(cache))
        status = ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                             "out of memory for the tables of %u requests", sizes.max_sequences);
    if (status == FERRUM_OK && sizes.paged)
        status = ferrum_block_allocator_new(sizes.pool_blocks, &cache->blocks, err);
    if (status != FERRUM_OK) {
        ferrum_kv_cache_free(cache);
        return status;
    }
    clear_entries(cache);
    *out_cache = cache;
    return FERRUM_OK;
}

void ferrum_kv_cache_free(ferrum_kv_cache_t *cache)
{
    if (!cache)
        return;
    const ferrum_backend_ops_t *backend = cache->ops->backend;
    for (uint32_t i = 0; cache->pools && i < cache->shape.layers; i++) {
        backend->buffer_release(cache->pools[i].pool_k);
        backend->buffer_release(cache->pools[i].pool_v);
    }
    size_t buffers = (size_t)cache->shape.max_sequences * cache->shape.layers * 2;
    for (size_t i = 0; cache->contiguous && i < buffers; i++)
        backend->buffer_release(cache->contiguous[i]);
    ferrum_block_allocator_free(cache->blocks);
    free(cache->pools);
    free(cache->contiguous);
    free(cache->tables);
    free(cache->sequences);
    free(cache->buckets);
    free(cache);
}

void ferrum_kv_cache_reset(ferrum_kv_cache_t *cache)
{
    memset(cache->tables, 0,
           (size_t)cache->shape.max_sequences * cache->table_length * sizeof(int32_t));
    if (cache->blocks)
        ferrum_block_allocator_reset(cache->blocks);
    clear_entries(cache);
}

const ferrum_kv_shape_t *ferrum_kv_cache_shape(const ferrum_kv_cache_t *cache)
{
    return &cache->shape;
}

uint32_t ferrum_kv_cache_table_length(const ferrum_kv_cache_t *cache)
{
    return cache->table_length;
}

ferrum_block_allocator_t *ferrum_kv_cache_blocks(const ferrum_kv_cache_t *cache)
{
    return cache->blocks;
}

uint32_t ferrum_kv_cache_sequences(const ferrum_kv_cache_t *cache)
{
    return cache->alive;
}

uint64_t ferrum_kv_cache_bytes(const ferrum_kv_cache_t *cache)
{
    return cache->bytes;
}

ferrum_sequence_t *ferrum_kv_cache_find(const ferrum_kv_cache_t *cache, uint64_t id)
{
    uint32_t slot = cache->buckets[bucket_of(cache, id)];
    while (slot != FERRUM_NO_SEQUENCE && cache->sequences[slot].id != id)
        slot = cache->sequences[slot].next;
    return slot == FERRUM_NO_SEQUENCE ? NULL : &cache->sequences[slot];
}

ferrum_status_t ferrum_kv_cache_add(ferrum_kv_cache_t *cache, uint64_t id,
                                    ferrum_sequence_t **out_sequence, ferrum_error_t *err)
{
    if (cache->unused == FERRUM_NO_SEQUENCE)
        return ferrum_fail(err, FERRUM_RESOURCE_EXHAUSTED, FERRUM_REASON_NONE,
                           "all %u requests are in use: release one or raise "
                           "FERRUM_PAGED_MAX_SEQS",
                           cache->shape.max_sequences);
    uint32_t slot = cache->unused;
    ferrum_sequence_t *sequence = &cache->sequences[slot];
    cache->unused = sequence->next;
    memset(sequence, 0, sizeof *sequence);
    uint32_t *bucket = &cache->buckets[bucket_of(cache, id)];
    sequence->id = id;
    sequence->slot = slot;
    sequence->next = *bucket;
    *bucket = slot;
    cache->alive++;
    *out_sequence = sequence;
    return FERRUM_OK;
}

static int32_t *table_of(const ferrum_kv_cache_t *cache, const ferrum_sequence_t *sequence)
{
    return cache->tables + (size_t)sequence->slot * cache->table_length;
}

/* Last block first: the first ones are the next to be used again, and of cached prefixes the
 * longest ones are evicted first. */
static void keep_blocks(ferrum_kv_cache_t *cache, ferrum_sequence_t *sequence, uint32_t keep)
{
    int32_t *table = table_of(cache, sequence);
    while (sequence->blocks > keep) {
        int32_t *entry = &table[--sequence->blocks];
        ferrum_block_allocator_drop(cache->blocks, *entry);
        *entry = 0;
    }
}

void ferrum_kv_cache_remove(ferrum_kv_cache_t *cache, ferrum_sequence_t *sequence)
{
    keep_blocks(cache, sequence, 0);
    uint32_t *link = &cache->buckets[bucket_of(cache, sequence->id)];
    while (*link != sequence->slot)
        link = &cache->sequences[*link].next;
    *link = sequence->next;
    sequence->next = cache->unused;
    cache->unused = sequence->slot;
    cache->alive--;
}

static uint32_t blocks_for(uint32_t positions)
{
    return positions / FERRUM_KV_BLOCK_TOKENS + (positions % FERRUM_KV_BLOCK_TOKENS != 0);
}

void ferrum_kv_cache_attach_prefix(ferrum_kv_cache_t *cache, ferrum_sequence_t *sequence,
                                   const uint32_t *tokens, uint32_t count)
{
    if (!cache->shape.paged || !cache->shape.prefix_cache || sequence->length != 0)
        return;
    int32_t *table = table_of(cache, sequence);
    while (count - sequence->length > FERRUM_KV_BLOCK_TOKENS &&
           sequence->blocks < cache->table_length) {
        int32_t block =
            ferrum_block_allocator_find(cache->blocks, &sequence->chain, tokens + sequence->length);
        if (block < 0)
            return;
        table[sequence->blocks++] = block;
        sequence->length += FERRUM_KV_BLOCK_TOKENS;
    }
}

static ferrum_status_t make_buffer(ferrum_kv_cache_t *cache, ferrum_buffer_t **buffer,
                                   ferrum_error_t *err)
{
    const ferrum_ops_t *ops = cache->ops;
    if (*buffer)
        return FERRUM_OK;
    FERRUM_TRY(ops->backend->buffer_alloc(ops->device, ops->info.activation_dtype, cache->elements,
                                          buffer, err));
    cache->bytes += cache->elements * ferrum_dtype_bytes(ops->info.activation_dtype);
    return FERRUM_OK;
}

static ferrum_status_t make_pools(ferrum_kv_cache_t *cache, ferrum_error_t *err)
{
    const ferrum_kv_shape_t *shape = &cache->shape;
    for (uint32_t i = 0; i < shape->layers; i++) {
        ferrum_paged_kv_t *pool = &cache->pools[i];
        FERRUM_TRY(make_buffer(cache, &pool->pool_k, err));
        FERRUM_TRY(make_buffer(cache, &pool->pool_v, err));
        pool->head = (ferrum_head_t)FERRUM_HEAD(ferrum_paged_kv_t);
        pool->num_blocks = shape->pool_blocks;
        pool->block_size = FERRUM_KV_BLOCK_TOKENS;
        pool->num_kv_heads = shape->kv_heads;
        pool->head_dim = shape->head_dim;
        pool->layout = shape->layout;
        pool->max_blocks_per_seq = cache->table_length;
    }
    return FERRUM_OK;
}

static ferrum_buffer_t **contiguous_of(const ferrum_kv_cache_t *cache, uint32_t slot,
                                       uint32_t layer)
{
    return &cache->contiguous[((size_t)slot * cache->shape.layers + layer) * 2];
}

ferrum_status_t ferrum_kv_cache_make_contiguous(ferrum_kv_cache_t *cache, uint32_t slot,
                                                ferrum_error_t *err)
{
    for (uint32_t i = 0; i < cache->shape.layers; i++) {
        ferrum_buffer_t **pair = contiguous_of(cache, slot, i);
        FERRUM_TRY(make_buffer(cache, &pair[0], err));
        FERRUM_TRY(make_buffer(cache, &pair[1], err));
    }
    return FERRUM_OK;
}

ferrum_status_t ferrum_kv_cache_prepare(ferrum_kv_cache_t *cache, ferrum_error_t *err)
{
    return cache->shape.paged ? make_pools(cache, err) : FERRUM_OK;
}

static ferrum_status_t check_capacity(const ferrum_kv_cache_t *cache,
                                      const ferrum_sequence_t *sequence, uint32_t count,
                                      ferrum_error_t *err)
{
    uint32_t capacity = cache->shape.capacity;
    if (count <= capacity - sequence->length)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                       "request %llu holds %u positions, %u more exceed its capacity of %u: raise "
                       "FERRUM_KV_CAPACITY",
                       (unsigned long long)sequence->id, sequence->length, count, capacity);
}

ferrum_status_t ferrum_kv_cache_reserve(ferrum_kv_cache_t *cache,
                                        ferrum_sequence_t *const *sequences, uint32_t num_sequences,
                                        uint32_t count, ferrum_error_t *err)
{
    uint64_t needed = 0;
    for (uint32_t i = 0; i < num_sequences; i++) {
        FERRUM_TRY(check_capacity(cache, sequences[i], count, err));
        needed += blocks_for(sequences[i]->length + count) - sequences[i]->blocks;
        if (!cache->shape.paged)
            FERRUM_TRY(ferrum_kv_cache_make_contiguous(cache, sequences[i]->slot, err));
    }
    if (!cache->shape.paged)
        return FERRUM_OK;
    uint32_t available = ferrum_block_allocator_free_count(cache->blocks);
    if (needed > available)
        return ferrum_fail(err, FERRUM_RESOURCE_EXHAUSTED, FERRUM_REASON_NONE,
                           "%llu KV blocks needed, %u of %u free: release a request or raise "
                           "FERRUM_KV_MAX_BLOCKS",
                           (unsigned long long)needed, available,
                           ferrum_block_allocator_total(cache->blocks));
    FERRUM_TRY(make_pools(cache, err));
    for (uint32_t i = 0; i < num_sequences; i++) {
        ferrum_sequence_t *sequence = sequences[i];
        uint32_t grow = blocks_for(sequence->length + count) - sequence->blocks;
        FERRUM_TRY(ferrum_block_allocator_take(cache->blocks, grow,
                                               table_of(cache, sequence) + sequence->blocks, err));
        sequence->blocks += grow;
    }
    return FERRUM_OK;
}

void ferrum_kv_cache_set_running(ferrum_kv_cache_t *cache, const ferrum_sequence_t *sequence,
                                 uint32_t done, uint32_t count)
{
    cache->running = (ferrum_kv_running_t){sequence, done, count};
}

void ferrum_kv_cache_trim(ferrum_kv_cache_t *cache, ferrum_sequence_t *sequence)
{
    keep_blocks(cache, sequence, blocks_for(sequence->length));
}

void ferrum_kv_cache_commit(ferrum_kv_cache_t *cache, ferrum_sequence_t *sequence,
                            const uint32_t *tokens, uint32_t count)
{
    const int32_t *table = table_of(cache, sequence);
    bool cached = cache->shape.paged && cache->shape.prefix_cache;
    for (uint32_t i = 0; i < count; i++) {
        sequence->tail[sequence->length % FERRUM_KV_BLOCK_TOKENS] = tokens[i];
        sequence->length++;
        if (cached && sequence->length % FERRUM_KV_BLOCK_TOKENS == 0)
            ferrum_block_allocator_register(cache->blocks, &sequence->chain, sequence->tail,
                                            table[sequence->length / FERRUM_KV_BLOCK_TOKENS - 1]);
    }
}

const int32_t *ferrum_kv_cache_table(const ferrum_kv_cache_t *cache,
                                     const ferrum_sequence_t *sequence)
{
    return table_of(cache, sequence);
}

const ferrum_paged_kv_t *ferrum_kv_cache_paged(const ferrum_kv_cache_t *cache, uint32_t layer)
{
    return &cache->pools[layer];
}

void ferrum_kv_cache_contiguous(const ferrum_kv_cache_t *cache, const ferrum_sequence_t *sequence,
                                uint32_t layer, ferrum_buffer_t **out_k, ferrum_buffer_t **out_v)
{
    ferrum_buffer_t **pair = contiguous_of(cache, sequence->slot, layer);
    *out_k = pair[0];
    *out_v = pair[1];
}
