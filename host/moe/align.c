/* SPDX-License-Identifier: MIT */
#include "host/moe/align.h"

#include <ferrum/util.h>

#include <string.h>

static uint64_t padded_total(const ferrum_bucket_plan_t *plan, uint32_t block_size)
{
    uint64_t blocks = 0;
    for (uint32_t e = 0; e < plan->num_experts; e++)
        blocks += ((uint64_t)ferrum_bucket_plan_rows(plan, e) + block_size - 1) / block_size;
    return blocks * block_size;
}

static void fill_blocks(const ferrum_bucket_plan_t *plan, uint32_t block_size,
                        ferrum_align_rows_t kind, ferrum_moe_alignment_t *alignment)
{
    int32_t *sorted = alignment->sorted;
    int32_t *block_expert = alignment->block_ids;
    for (uint32_t e = 0; e < plan->num_experts; e++) {
        uint32_t rows = ferrum_bucket_plan_rows(plan, e);
        for (uint32_t done = 0; done < rows; done += block_size) {
            *block_expert++ = (int32_t)e;
            for (uint32_t s = 0; s < block_size; s++) {
                uint32_t row = plan->expert_offsets[e] + done + s;
                if (s >= rows - done)
                    row = plan->pairs;
                else if (kind == FERRUM_ALIGN_PAIR_IDS)
                    row = plan->packed_pairs[row];
                *sorted++ = (int32_t)row;
            }
        }
    }
}

ferrum_status_t ferrum_moe_align(const ferrum_bucket_plan_t *plan, uint32_t block_size,
                                 ferrum_align_rows_t rows, ferrum_moe_alignment_t *alignment,
                                 ferrum_error_t *err)
{
    if (block_size == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_BLOCK_SIZE,
                           "alignment needs a block size of at least 1");
    uint64_t total = padded_total(plan, block_size);
    if (total > INT32_MAX - block_size)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_BLOCK_SIZE,
                           "%u pairs in blocks of %u exceed 2^31 rows", plan->pairs, block_size);
    FERRUM_TRY(ferrum_host_array_reserve(&alignment->sorted_store, total, sizeof(int32_t), err));
    FERRUM_TRY(ferrum_host_array_reserve(&alignment->blocks_store, total / block_size,
                                         sizeof(int32_t), err));
    alignment->sorted = alignment->sorted_store.data;
    alignment->block_ids = alignment->blocks_store.data;
    alignment->total = (uint32_t)total;
    alignment->blocks = (uint32_t)(total / block_size);
    fill_blocks(plan, block_size, rows, alignment);
    return FERRUM_OK;
}

void ferrum_moe_alignment_free(ferrum_moe_alignment_t *alignment)
{
    ferrum_host_array_free(&alignment->sorted_store);
    ferrum_host_array_free(&alignment->blocks_store);
    *alignment = (ferrum_moe_alignment_t){0};
}

bool ferrum_moe_block_size_valid(uint64_t block_size)
{
    return block_size == 8 || block_size == 16 || block_size == 32 || block_size == 48 ||
           block_size == 64;
}

uint32_t ferrum_moe_pick_block_size(const ferrum_bucket_plan_t *plan)
{
    for (uint32_t block_size = 64; block_size > 16 && plan->pairs > 0; block_size /= 2)
        if (10 * padded_total(plan, block_size) <= 13 * (uint64_t)plan->pairs)
            return block_size;
    return 16;
}

uint32_t ferrum_moe_choose_block_size(const ferrum_moe_env_t *env, uint32_t pairs,
                                      const ferrum_bucket_plan_t *plan)
{
    if (env->block_size)
        return env->block_size;
    if (plan)
        return ferrum_moe_pick_block_size(plan);
    return env->large_m_block_size && pairs >= env->large_m_min_pairs ? env->large_m_block_size
                                                                      : 16;
}

ferrum_status_t ferrum_compute_ids_tpe(const uint32_t *selected, uint32_t count,
                                       uint32_t num_experts, ferrum_ids_tpe_t *lists,
                                       ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_host_array_reserve(&lists->tpe_store, num_experts, sizeof(int32_t), err));
    lists->tpe = lists->tpe_store.data;
    memset(lists->tpe, 0, num_experts * sizeof *lists->tpe);
    for (uint32_t p = 0; p < count; p++)
        if (selected[p] < num_experts)
            lists->tpe[selected[p]]++;
    int32_t longest = 1;
    for (uint32_t e = 0; e < num_experts; e++)
        if (lists->tpe[e] > longest)
            longest = lists->tpe[e];
    uint64_t entries = (uint64_t)num_experts * (uint32_t)longest;
    if (entries > INT32_MAX)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_RANGE,
                           "pair lists of %u experts with %d pairs each exceed 2^31 entries",
                           num_experts, longest);
    FERRUM_TRY(ferrum_host_array_reserve(&lists->ids_store, entries, sizeof(int32_t), err));
    lists->ids = lists->ids_store.data;
    lists->num_experts = num_experts;
    lists->max_per_expert = (uint32_t)longest;
    memset(lists->ids, 0, (size_t)entries * sizeof *lists->ids);
    memset(lists->tpe, 0, num_experts * sizeof *lists->tpe);
    for (uint32_t p = 0; p < count; p++) {
        uint32_t e = selected[p];
        if (e < num_experts)
            lists->ids[(size_t)e * (uint32_t)longest + (uint32_t)lists->tpe[e]++] = (int32_t)p;
    }
    return FERRUM_OK;
}

void ferrum_ids_tpe_free(ferrum_ids_tpe_t *lists)
{
    ferrum_host_array_free(&lists->tpe_store);
    ferrum_host_array_free(&lists->ids_store);
    *lists = (ferrum_ids_tpe_t){0};
}
