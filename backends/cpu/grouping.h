/* SPDX-License-Identifier: MIT */
/**
 * @file grouping.h
 * @brief Pairs grouped by expert, and the checks that keep two packed rows off one output row.
 */
#ifndef FERRUM_CPU_GROUPING_H
#define FERRUM_CPU_GROUPING_H

#include "backends/cpu/grouped.h"

/** A stable grouping; lives in the context's COUNTS and BUCKETS scratch. */
typedef struct ferrum_cpu_grouping {
    ferrum_cpu_bucket_t *buckets; /**< non-empty ones, in order of expert */
    uint32_t bucket_count;
    uint32_t rows;        /**< packed rows */
    uint32_t *pairs;      /**< [rows] pair of each packed row */
    int32_t *packed_rows; /**< [pairs] packed row of each pair, -1: in no bucket */
} ferrum_cpu_grouping_t;

/**
 * Group @p pairs pairs by `ids[p] - first_expert`; ids outside [first, first + experts) are left
 * out. A bucket's matrix is its expert less @p first_expert.
 */
ferrum_status_t ferrum_cpu_group_pairs(ferrum_context_t *ctx, const int32_t *ids, uint32_t pairs,
                                       uint32_t first_expert, uint32_t experts,
                                       ferrum_cpu_grouping_t *out_grouping, ferrum_error_t *err);

/** Places of packed rows in input and output, both for offsets of ferrum_cpu_rows_t. */
typedef struct ferrum_cpu_places {
    uint64_t *in;
    uint64_t *out;
} ferrum_cpu_places_t;

/** Room for @p rows places, from the OFFSETS scratch. */
ferrum_status_t ferrum_cpu_new_places(ferrum_context_t *ctx, uint64_t rows,
                                      ferrum_cpu_places_t *out_places, ferrum_error_t *err);

/** Room for a mark on each of @p rows rows, none set, from the COUNTS scratch. */
ferrum_status_t ferrum_cpu_new_marks(ferrum_context_t *ctx, uint64_t rows, uint8_t **out_marks,
                                     ferrum_error_t *err);

#endif /* FERRUM_CPU_GROUPING_H */
