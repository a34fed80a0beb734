/* SPDX-License-Identifier: MIT */
#include "host/model/kv_migrate.h"

#include "host/model/kv_cache_internal.h"

#include <ferrum/util.h>

#include <stdlib.h>
#include <string.h>

enum {
    TOKENS = FERRUM_KV_BLOCK_TOKENS,
    RUN_BLOCKS = 64 /* blocks of one transfer at most */
};

/* No registered content has this number, so blocks behind such a chain are never found. */
#define UNKNOWN_PREFIX UINT64_MAX

/* One cache with its context, and room for a run of blocks as they lie in it. */
typedef struct side {
    const ferrum_kv_cache_t *cache;
    ferrum_context_t *ctx;
    float *raw;
} side_t;

typedef struct migration {
    side_t from, to;
    float *canonical; /* [RUN_BLOCKS] blocks */
    uint32_t heads, dim, block_elements;
} migration_t;

/* Positions of a request that hold something, and that are reserved. */
static uint32_t written(const ferrum_kv_cache_t *cache, const ferrum_sequence_t *sequence)
{
    return sequence->length + (cache->running.sequence == sequence ? cache->running.done : 0);
}

static uint32_t reserved(const ferrum_kv_cache_t *cache, const ferrum_sequence_t *sequence)
{
    return sequence->length + (cache->running.sequence == sequence ? cache->running.count : 0);
}

static uint32_t blocks_for(uint32_t positions)
{
    return positions / TOKENS + (positions % TOKENS != 0);
}

/* ---- one block in each layout; element (head, token, d) ---- */

/* The vLLM layout keeps 16 bytes of a key together and a value's tokens side by side. */
static size_t vllm_index(const migration_t *m, const ferrum_ops_t *ops, bool is_k, uint32_t head,
                         uint32_t token, uint32_t d)
{
    uint32_t x = 16 / ferrum_dtype_bytes(ops->info.activation_dtype);
    if (is_k)
        return (((size_t)head * (m->dim / x) + d / x) * TOKENS + token) * x + d % x;
    return ((size_t)head * m->dim + d) * TOKENS + token;
}

/* raw <-> canonical for one block of a paged pool. */
static void convert(const migration_t *m, const ferrum_kv_cache_t *cache, bool is_k, float *raw,
                    float *canonical, bool to_canonical)
{
    if (cache->shape.layout == FERRUM_KV_LAYOUT_FA) {
        size_t bytes = (size_t)m->block_elements * sizeof(float);
        memcpy(to_canonical ? canonical : raw, to_canonical ? raw : canonical, bytes);
        return;
    }
    for (uint32_t h = 0; h < m->heads; h++)
        for (uint32_t t = 0; t < TOKENS; t++)
            for (uint32_t d = 0; d < m->dim; d++) {
                float *inside = raw + vllm_index(m, cache->ops, is_k, h, t, d);
                float *outside = canonical + ((size_t)h * TOKENS + t) * m->dim + d;
                if (to_canonical)
                    *outside = *inside;
                else
                    *inside = *outside;
            }
}

static ferrum_buffer_t *pool_of(const side_t *side, uint32_t layer, bool is_k)
{
    const ferrum_paged_kv_t *pool = &side->cache->pools[layer];
    return is_k ? pool->pool_k : pool->pool_v;
}

static ferrum_status_t read_run(const migration_t *m, uint32_t layer, bool is_k, uint32_t first,
                                uint32_t count, ferrum_error_t *err)
{
    const side_t *s = &m->from;
    uint64_t elements = m->block_elements;
    FERRUM_TRY(s->cache->ops->backend->buffer_read_f32(
        s->ctx, pool_of(s, layer, is_k), first * elements, s->raw, count * elements, err));
    for (uint32_t i = 0; i < count; i++)
        convert(m, s->cache, is_k, s->raw + i * elements, m->canonical + i * elements, true);
    return FERRUM_OK;
}

static ferrum_status_t write_run(const migration_t *m, uint32_t layer, bool is_k, uint32_t first,
                                 uint32_t count, ferrum_error_t *err)
{
    const side_t *s = &m->to;
    uint64_t elements = m->block_elements;
    for (uint32_t i = 0; i < count; i++)
        convert(m, s->cache, is_k, s->raw + i * elements, m->canonical + i * elements, false);
    return s->cache->ops->backend->buffer_write_f32(
        s->ctx, pool_of(s, layer, is_k), first * elements, s->raw, count * elements, err);
}

/* Block @p index of a request in a contiguous cache, head by head: [kv_heads, capacity, dim]. */
static ferrum_status_t move_contiguous(const migration_t *m, const side_t *s, bool reading,
                                       const ferrum_sequence_t *sequence, uint32_t layer, bool is_k,
                                       uint32_t index, ferrum_error_t *err)
{
    const ferrum_backend_ops_t *b = s->cache->ops->backend;
    uint32_t capacity = s->cache->shape.capacity, first = index * TOKENS;
    uint64_t count = capacity - first < TOKENS ? capacity - first : TOKENS;
    ferrum_buffer_t *k, *v;
    ferrum_kv_cache_contiguous(s->cache, sequence, layer, &k, &v);
    for (uint32_t h = 0; h < m->heads; h++) {
        uint64_t at = ((uint64_t)h * capacity + first) * m->dim;
        float *canonical = m->canonical + (size_t)h * TOKENS * m->dim;
        if (reading)
            FERRUM_TRY(
                b->buffer_read_f32(s->ctx, is_k ? k : v, at, canonical, count * m->dim, err));
        else
            FERRUM_TRY(
                b->buffer_write_f32(s->ctx, is_k ? k : v, at, canonical, count * m->dim, err));
    }
    return FERRUM_OK;
}

/* ---- pools to pools ---- */

/* Cached content of blocks that nobody holds is moved as well: it can be revived. */
static uint32_t used_end(const ferrum_kv_cache_t *cache)
{
    if (cache->shape.prefix_cache)
        return cache->shape.pool_blocks;
    uint32_t end = cache->shape.pool_blocks;
    while (end > 0 && ferrum_block_allocator_references(cache->blocks, end - 1) == 0)
        end--;
    return end;
}

static bool is_used(const ferrum_kv_cache_t *cache, uint32_t block)
{
    return cache->shape.prefix_cache ||
           ferrum_block_allocator_references(cache->blocks, block) != 0;
}

static ferrum_status_t move_run(const migration_t *m, uint32_t first, uint32_t count,
                                ferrum_error_t *err)
{
    for (uint32_t layer = 0; layer < m->from.cache->shape.layers; layer++)
        for (int is_k = 0; is_k < 2; is_k++) {
            FERRUM_TRY(read_run(m, layer, is_k, first, count, err));
            FERRUM_TRY(write_run(m, layer, is_k, first, count, err));
        }
    return FERRUM_OK;
}

static ferrum_status_t move_pools(const migration_t *m, ferrum_error_t *err)
{
    const ferrum_kv_cache_t *from = m->from.cache;
    uint32_t end = used_end(from);
    for (uint32_t first = 0; first < end;) {
        uint32_t count = 0;
        while (first + count < end && count < RUN_BLOCKS && is_used(from, first + count))
            count++;
        if (count)
            FERRUM_TRY(move_run(m, first, count, err));
        first += count ? count : 1;
    }
    return FERRUM_OK;
}

/* ---- request by request ---- */

static const int32_t *table_of(const ferrum_kv_cache_t *cache, const ferrum_sequence_t *sequence)
{
    return cache->tables + (size_t)sequence->slot * cache->table_length;
}

static ferrum_status_t move_block(const migration_t *m, const ferrum_sequence_t *sequence,
                                  uint32_t layer, bool is_k, uint32_t index, ferrum_error_t *err)
{
    const ferrum_kv_cache_t *from = m->from.cache, *to = m->to.cache;
    if (from->shape.paged)
        FERRUM_TRY(read_run(m, layer, is_k, (uint32_t)table_of(from, sequence)[index], 1, err));
    else
        FERRUM_TRY(move_contiguous(m, &m->from, true, sequence, layer, is_k, index, err));
    if (to->shape.paged)
        return write_run(m, layer, is_k, (uint32_t)table_of(to, sequence)[index], 1, err);
    return move_contiguous(m, &m->to, false, sequence, layer, is_k, index, err);
}

/* Room in the other cache; its table entries are at the request's slot. */
static ferrum_status_t make_room(ferrum_kv_cache_t *to, const ferrum_sequence_t *sequence,
                                 uint32_t blocks, ferrum_error_t *err)
{
    if (!to->shape.paged)
        return ferrum_kv_cache_make_contiguous(to, sequence->slot, err);
    return ferrum_block_allocator_take(to->blocks, blocks,
                                       to->tables + (size_t)sequence->slot * to->table_length, err);
}

static ferrum_status_t move_sequence(const migration_t *m, ferrum_kv_cache_t *to,
                                     const ferrum_sequence_t *sequence, ferrum_error_t *err)
{
    const ferrum_kv_cache_t *from = m->from.cache;
    uint32_t blocks = blocks_for(written(from, sequence));
    FERRUM_TRY(make_room(to, sequence, blocks_for(reserved(from, sequence)), err));
    for (uint32_t layer = 0; layer < from->shape.layers; layer++)
        for (int is_k = 0; is_k < 2; is_k++)
            for (uint32_t i = 0; i < blocks; i++)
                FERRUM_TRY(move_block(m, sequence, layer, is_k, i, err));
    return FERRUM_OK;
}

static ferrum_status_t move_sequences(const migration_t *m, ferrum_kv_cache_t *to,
                                      ferrum_error_t *err)
{
    const ferrum_kv_cache_t *from = m->from.cache;
    for (uint32_t b = 0; b <= from->bucket_mask; b++)
        for (uint32_t slot = from->buckets[b]; slot != FERRUM_NO_SEQUENCE;
             slot = from->sequences[slot].next)
            FERRUM_TRY(move_sequence(m, to, &from->sequences[slot], err));
    return FERRUM_OK;
}

/* ---- all ---- */

ferrum_status_t ferrum_kv_migrate(const ferrum_kv_cache_t *from, ferrum_context_t *from_ctx,
                                  ferrum_kv_cache_t *to, ferrum_context_t *to_ctx,
                                  ferrum_error_t *err)
{
    const ferrum_kv_shape_t *shape = &from->shape;
    bool whole = shape->paged && to->shape.paged;
    if (from->bytes == 0 || (from->alive == 0 && !shape->prefix_cache))
        return FERRUM_OK;
    migration_t m = {.from = {.cache = from, .ctx = from_ctx},
                     .to = {.cache = to, .ctx = to_ctx},
                     .heads = shape->kv_heads,
                     .dim = shape->head_dim,
                     .block_elements = shape->kv_heads * shape->head_dim * TOKENS};
    size_t bytes = (size_t)m.block_elements * (whole ? RUN_BLOCKS : 1) * sizeof(float);
    m.canonical = malloc(bytes);
    m.from.raw = malloc(bytes);
    m.to.raw = malloc(bytes);
    ferrum_status_t status = FERRUM_OK;
    if (!m.canonical || !m.from.raw || !m.to.raw)
        status = ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                             "out of memory for moving keys and values");
    if (status == FERRUM_OK)
        status = whole ? move_pools(&m, err) : move_sequences(&m, to, err);
    free(m.to.raw);
    free(m.from.raw);
    free(m.canonical);
    return status;
}

#define EXCHANGE(type, a, b)                                                                       \
    do {                                                                                           \
        type kept_ = (a);                                                                          \
        (a) = (b);                                                                                 \
        (b) = kept_;                                                                               \
    } while (0)

void ferrum_kv_hand_over(ferrum_kv_cache_t *from, ferrum_kv_cache_t *to)
{
    bool whole = from->shape.paged && to->shape.paged;
    bool contiguous = !from->shape.paged && !to->shape.paged;
    EXCHANGE(ferrum_sequence_t *, from->sequences, to->sequences);
    EXCHANGE(uint32_t *, from->buckets, to->buckets);
    EXCHANGE(uint32_t, from->unused, to->unused);
    EXCHANGE(uint32_t, from->alive, to->alive);
    EXCHANGE(ferrum_kv_running_t, from->running, to->running);
    if (whole) {
        EXCHANGE(int32_t *, from->tables, to->tables);
        EXCHANGE(ferrum_block_allocator_t *, from->blocks, to->blocks);
        return;
    }
    if (contiguous)
        return;
    /* Another kind of cache has other tables, and knows no content. */
    for (uint32_t b = 0; b <= to->bucket_mask; b++)
        for (uint32_t slot = to->buckets[b]; slot != FERRUM_NO_SEQUENCE;
             slot = to->sequences[slot].next) {
            ferrum_sequence_t *sequence = &to->sequences[slot];
            sequence->chain = (ferrum_block_chain_t){.hash = 0, .serial = UNKNOWN_PREFIX};
            sequence->blocks = to->shape.paged ? blocks_for(reserved(to, sequence)) : 0;
        }
}
