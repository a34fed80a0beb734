/* SPDX-License-Identifier: MIT */
#include "backends/cpu/grouping.h"

#include <string.h>

/** Expert of a pair as a number below @p experts, or @p experts. */
static uint32_t local_expert(int32_t id, uint32_t first_expert, uint32_t experts)
{
    const int64_t local = (int64_t)id - first_expert;
    return local >= 0 && local < experts ? (uint32_t)local : experts;
}

ferrum_status_t ferrum_cpu_group_pairs(ferrum_context_t *ctx, const int32_t *ids, uint32_t pairs,
                                       uint32_t first_expert, uint32_t experts,
                                       ferrum_cpu_grouping_t *out_grouping, ferrum_error_t *err)
{
    const uint64_t words = ferrum_size_add(ferrum_size_mul(pairs, 2), experts);
    uint32_t *cursor =
        ferrum_cpu_scratch(ctx, FERRUM_CPU_SCRATCH_COUNTS, words, sizeof *cursor, err);
    ferrum_cpu_bucket_t *buckets =
        cursor ? ferrum_cpu_scratch(ctx, FERRUM_CPU_SCRATCH_BUCKETS,
                                    2 * (uint64_t)(pairs < experts ? pairs : experts),
                                    sizeof *buckets, err)
               : NULL;
    if (!buckets)
        return FERRUM_OUT_OF_MEMORY;

    ferrum_cpu_grouping_t grouping = {.buckets = buckets,
                                      .pairs = cursor + experts,
                                      .packed_rows = (int32_t *)(cursor + experts + pairs)};
    memset(cursor, 0, experts * sizeof *cursor);
    for (uint32_t p = 0; p < pairs; p++) {
        const uint32_t e = local_expert(ids[p], first_expert, experts);
        if (e < experts)
            cursor[e]++;
    }
    for (uint32_t e = 0; e < experts; e++) {
        const uint32_t count = cursor[e];
        cursor[e] = grouping.rows;
        if (count > 0)
            buckets[grouping.bucket_count++] =
                (ferrum_cpu_bucket_t){.matrix = e, .first = grouping.rows, .count = count};
        grouping.rows += count;
    }
    for (uint32_t p = 0; p < pairs; p++) {
        const uint32_t e = local_expert(ids[p], first_expert, experts);
        const uint32_t row = e < experts ? cursor[e]++ : 0;
        grouping.packed_rows[p] = e < experts ? (int32_t)row : -1;
        if (e < experts)
            grouping.pairs[row] = p;
    }
    *out_grouping = grouping;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_new_places(ferrum_context_t *ctx, uint64_t rows,
                                      ferrum_cpu_places_t *out_places, ferrum_error_t *err)
{
    uint64_t *places = ferrum_cpu_scratch(ctx, FERRUM_CPU_SCRATCH_OFFSETS, ferrum_size_mul(rows, 2),
                                          sizeof *places, err);
    if (!places)
        return FERRUM_OUT_OF_MEMORY;
    *out_places = (ferrum_cpu_places_t){places, places + rows};
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_new_marks(ferrum_context_t *ctx, uint64_t rows, uint8_t **out_marks,
                                     ferrum_error_t *err)
{
    uint8_t *marks = ferrum_cpu_scratch(ctx, FERRUM_CPU_SCRATCH_COUNTS, rows, 1, err);
    if (!marks)
        return FERRUM_OUT_OF_MEMORY;
    memset(marks, 0, (size_t)rows);
    *out_marks = marks;
    return FERRUM_OK;
}
