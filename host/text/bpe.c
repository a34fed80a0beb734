/* SPDX-License-Identifier: MIT */
#include "host/text/bpe.h"

#include <stdlib.h>
#include <string.h>

#include <ferrum/util.h>

#define NOTHING UINT32_MAX /* no neighbour */

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static ferrum_bpe_slot_t *find_slot(const ferrum_bpe_t *bpe, uint64_t pair)
{
    uint64_t hash = pair * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 32;
    size_t mask = bpe->capacity - 1;
    for (size_t i = (size_t)hash & mask;; i = (i + 1) & mask)
        if (bpe->slots[i].merged < 0 || bpe->slots[i].pair == pair)
            return &bpe->slots[i];
}

ferrum_status_t ferrum_bpe_reserve(ferrum_bpe_t *bpe, size_t merges, ferrum_error_t *err)
{
    size_t capacity = 16;
    while (capacity / 2 < merges && capacity <= SIZE_MAX / 2 / sizeof *bpe->slots)
        capacity *= 2;
    bpe->slots = capacity / 2 >= merges ? malloc(capacity * sizeof *bpe->slots) : NULL;
    if (!bpe->slots)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OTHER,
                           "no memory for %zu merges", merges);
    for (size_t i = 0; i < capacity; i++)
        bpe->slots[i] = (ferrum_bpe_slot_t){0, 0, -1};
    bpe->capacity = capacity;
    return FERRUM_OK;
}

bool ferrum_bpe_add(ferrum_bpe_t *bpe, int32_t left, int32_t right, uint32_t rank, int32_t merged)
{
    uint64_t pair = pair_of(left, right);
    ferrum_bpe_slot_t *slot = find_slot(bpe, pair);
    if (slot->merged >= 0)
        return false;
    *slot = (ferrum_bpe_slot_t){pair, rank, merged};
    bpe->count++;
    return true;
}

void ferrum_bpe_clear(ferrum_bpe_t *bpe)
{
    free(bpe->slots);
    memset(bpe, 0, sizeof *bpe);
}

void ferrum_bpe_scratch_clear(ferrum_bpe_scratch_t *scratch)
{
    free(scratch->previous);
    free(scratch->next);
    free(scratch->heap);
    memset(scratch, 0, sizeof *scratch);
}

static ferrum_status_t reserve_scratch(ferrum_bpe_scratch_t *scratch, size_t count,
                                       ferrum_error_t *err)
{
    if (count <= scratch->capacity)
        return FERRUM_OK;
    size_t capacity = count < 64 ? 64 : 2 * count;
    ferrum_bpe_scratch_clear(scratch);
    scratch->previous = malloc(capacity * sizeof *scratch->previous);
    scratch->next = malloc(capacity * sizeof *scratch->next);
    /* Every symbol offers one pair at first, and every merge two new ones. */
    scratch->heap = malloc(3 * capacity * sizeof *scratch->heap);
    if (!scratch->previous || !scratch->next || !scratch->heap) {
        ferrum_bpe_scratch_clear(scratch);
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OTHER,
                           "no memory to merge a word of %zu bytes", count);
    }
    scratch->capacity = capacity;
    return FERRUM_OK;
}

static void push(ferrum_bpe_scratch_t *scratch, uint64_t key)
{
    uint64_t *heap = scratch->heap;
    size_t i = scratch->heap_count++;
    while (i > 0 && heap[(i - 1) / 2] > key) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = key;
}

static uint64_t pop(ferrum_bpe_scratch_t *scratch)
{
    uint64_t *heap = scratch->heap;
    uint64_t top = heap[0];
    uint64_t last = heap[--scratch->heap_count];
    size_t count = scratch->heap_count;
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= count)
            break;
        if (child + 1 < count && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= last)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

/* Offer the pair that begins at `position`, if it has a rank. */
static void offer(const ferrum_bpe_t *bpe, ferrum_bpe_scratch_t *scratch, const int32_t *ids,
                  uint32_t position)
{
    uint32_t right = scratch->next[position];
    if (right == NOTHING)
        return;
    const ferrum_bpe_slot_t *slot = find_slot(bpe, pair_of(ids[position], ids[right]));
    if (slot->merged >= 0)
        push(scratch, (uint64_t)slot->rank << 32 | position);
}

/* Join the symbol at `left` with the next one. A dead symbol has id -1. */
static void join(const ferrum_bpe_t *bpe, ferrum_bpe_scratch_t *scratch, int32_t *ids,
                 uint32_t left, int32_t merged)
{
    uint32_t right = scratch->next[left];
    uint32_t after = scratch->next[right];
    ids[left] = merged;
    ids[right] = -1;
    scratch->next[left] = after;
    if (after != NOTHING)
        scratch->previous[after] = left;
    if (scratch->previous[left] != NOTHING)
        offer(bpe, scratch, ids, scratch->previous[left]);
    offer(bpe, scratch, ids, left);
}

ferrum_status_t ferrum_bpe_merge(const ferrum_bpe_t *bpe, ferrum_bpe_scratch_t *scratch,
                                 int32_t *ids, size_t count, size_t *out_count, ferrum_error_t *err)
{
    if (count > FERRUM_BPE_MAX_SYMBOLS)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "a word of %zu bytes is too long", count);
    *out_count = count;
    if (count < 2 || bpe->count == 0)
        return FERRUM_OK;
    FERRUM_TRY(reserve_scratch(scratch, count, err));
    scratch->heap_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        scratch->previous[i] = i ? i - 1 : NOTHING;
        scratch->next[i] = i + 1 < count ? i + 1 : NOTHING;
    }
    for (uint32_t i = 0; i < count; i++)
        offer(bpe, scratch, ids, i);
    while (scratch->heap_count) {
        uint64_t top = pop(scratch);
        uint32_t left = (uint32_t)top;
        if (ids[left] < 0 || scratch->next[left] == NOTHING)
            continue;
        /* Ranks are unique, so the same rank means that the pair is still the one offered. */
        const ferrum_bpe_slot_t *slot =
            find_slot(bpe, pair_of(ids[left], ids[scratch->next[left]]));
        if (slot->merged >= 0 && slot->rank == (uint32_t)(top >> 32))
            join(bpe, scratch, ids, left, slot->merged);
    }
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (ids[i] >= 0)
            ids[kept++] = ids[i];
    *out_count = kept;
    return FERRUM_OK;
}
