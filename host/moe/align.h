/* SPDX-License-Identifier: MIT */
/**
 * @file align.h
 * @brief Padding each expert's rows to whole blocks, choosing the block size, and pair lists per
 *        expert: host twins of moe_align_block_size(_pair_ids) and compute_ids_tpe.
 *
 * Example: E = 4, block 4, ids (k = 2, b = 3) = [1,3, 1,0, 3,1]: rows per expert [1,3,0,2],
 * total 12, block experts [0,1,3], packed rows [0,6,6,6, 1,2,3,6, 4,5,6,6], pair ids
 * [3,6,6,6, 0,2,5,6, 1,4,6,6]; 6 = P is the padding.
 */
#ifndef FERRUM_HOST_ALIGN_H
#define FERRUM_HOST_ALIGN_H

#include "host/moe/bucket_plan.h"
#include "host/moe/moe_env.h"

#define FERRUM_MOE_MIN_BLOCK_SIZE 8u
#define FERRUM_MOE_MAX_BLOCK_SIZE 64u

/** Padded rows of all experts. Zeroed is empty; reusable, growing on demand. */
typedef struct ferrum_moe_alignment {
    int32_t *sorted;    /**< [total]: packed rows or pair ids; the number of pairs is padding */
    int32_t *block_ids; /**< [blocks]: expert of each block */
    uint32_t total;     /**< padded rows, blocks * block_size */
    uint32_t blocks;
    ferrum_host_array_t sorted_store;
    ferrum_host_array_t blocks_store;
} ferrum_moe_alignment_t;

/** What `sorted` holds. */
typedef enum ferrum_align_rows {
    FERRUM_ALIGN_PACKED_ROWS, /**< activations were gathered beforehand */
    FERRUM_ALIGN_PAIR_IDS,    /**< the kernel gathers by pair id / top_k */
} ferrum_align_rows_t;

/** Build the alignment of @p plan. Errors: INVALID_ARGUMENT (block size 0, more than 2^31-1 padded
 *  rows), OUT_OF_MEMORY. [any-thread] */
ferrum_status_t ferrum_moe_align(const ferrum_bucket_plan_t *plan, uint32_t block_size,
                                 ferrum_align_rows_t rows, ferrum_moe_alignment_t *alignment,
                                 ferrum_error_t *err);
void ferrum_moe_alignment_free(ferrum_moe_alignment_t *alignment);

/** Whether @p block_size is one of 8, 16, 32, 48, 64. */
bool ferrum_moe_block_size_valid(uint64_t block_size);

/** The largest of 64, 32, 16 whose padded total is at most 1.3 times the pairs, else 16; also 16
 *  for an empty plan. */
uint32_t ferrum_moe_pick_block_size(const ferrum_bucket_plan_t *plan);

/**
 * Block size by the options: FERRUM_MOE_BLOCK_SIZE wins; else, with routing on the device (@p plan
 * NULL), FERRUM_MOE_LARGE_M_BLOCK_SIZE from FERRUM_MOE_LARGE_M_MIN_PAIRS pairs on, or 16; else
 * ferrum_moe_pick_block_size.
 */
uint32_t ferrum_moe_choose_block_size(const ferrum_moe_env_t *env, uint32_t pairs,
                                      const ferrum_bucket_plan_t *plan);

/** Pair ids per expert. Zeroed is empty; reusable, growing on demand. */
typedef struct ferrum_ids_tpe {
    int32_t *tpe; /**< [num_experts]: pairs of each expert */
    int32_t *ids; /**< [num_experts, max_per_expert]; unused entries 0 */
    uint32_t num_experts;
    uint32_t max_per_expert; /**< longest list, at least 1 */
    ferrum_host_array_t tpe_store;
    ferrum_host_array_t ids_store;
} ferrum_ids_tpe_t;

/** Lists of the pairs @p selected [count] in order; ids >= num_experts are skipped.
 *  Errors: INVALID_ARGUMENT (sizes beyond i32), OUT_OF_MEMORY. [any-thread] */
ferrum_status_t ferrum_compute_ids_tpe(const uint32_t *selected, uint32_t count,
                                       uint32_t num_experts, ferrum_ids_tpe_t *lists,
                                       ferrum_error_t *err);
void ferrum_ids_tpe_free(ferrum_ids_tpe_t *lists);

#endif /* FERRUM_HOST_ALIGN_H */
