/* SPDX-License-Identifier: MIT */
/**
 * @file bpe.h
 * @brief Byte-pair merging of one word.
 *
 * The adjacent pair of least rank is merged, the leftmost among equals, until no pair has a rank.
 * Candidate pairs wait in a heap ordered by (rank, position); a popped one that no longer exists is
 * dropped. A word of n symbols takes O(n log n).
 */
#ifndef FERRUM_HOST_BPE_H
#define FERRUM_HOST_BPE_H

#include <ferrum/types.h>
#include <stdbool.h>

/** Longest word, in symbols. */
#define FERRUM_BPE_MAX_SYMBOLS (1u << 30)

typedef struct ferrum_bpe_slot {
    uint64_t pair; /**< left id, right id */
    uint32_t rank;
    int32_t merged; /**< -1: free */
} ferrum_bpe_slot_t;

/** Pairs to ranks. A zeroed struct has no merges. */
typedef struct ferrum_bpe {
    ferrum_bpe_slot_t *slots;
    size_t capacity; /**< power of two, or 0 */
    size_t count;
} ferrum_bpe_t;

/** Working memory of one thread; grows with the longest word. Zeroed is empty. */
typedef struct ferrum_bpe_scratch {
    uint32_t *previous;
    uint32_t *next;
    uint64_t *heap; /**< rank, position */
    size_t heap_count;
    size_t capacity; /**< symbols */
} ferrum_bpe_scratch_t;

/** Room for @p merges pairs; call it once, before the first add. Errors: OUT_OF_MEMORY. */
ferrum_status_t ferrum_bpe_reserve(ferrum_bpe_t *bpe, size_t merges, ferrum_error_t *err);
/** left, right (>= 0) -> merged. False when the pair is there already. Within the reserve only. */
bool ferrum_bpe_add(ferrum_bpe_t *bpe, int32_t left, int32_t right, uint32_t rank, int32_t merged);
void ferrum_bpe_clear(ferrum_bpe_t *bpe);

/** Merge ids[0…count) in place; *out_count says how many are left. Errors: OUT_OF_MEMORY. */
ferrum_status_t ferrum_bpe_merge(const ferrum_bpe_t *bpe, ferrum_bpe_scratch_t *scratch,
                                 int32_t *ids, size_t count, size_t *out_count,
                                 ferrum_error_t *err);
void ferrum_bpe_scratch_clear(ferrum_bpe_scratch_t *scratch);

#endif /* FERRUM_HOST_BPE_H */
