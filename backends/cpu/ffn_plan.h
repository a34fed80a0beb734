/* SPDX-License-Identifier: MIT */
/**
 * @file ffn_plan.h
 * @brief How the fused FFN cuts its two phases into units of work.
 *
 * Rows of one expert are cut into *blocks* small enough for their activations to stay in a core's
 * cache, largest first. A *unit* is a run of 16-row panels for one block or for all of them. Units
 * are handed out in order from one counter; they shrink towards the end, so that all threads finish
 * together whether there is one token, or all tokens go to one expert.
 *
 *     phase 1 (gate, up, activation):  one block,  some of intermediate/16 panels
 *     phase 2 (down), few rows:        all blocks, some of hidden/16 panels, then their sum
 *     phase 2 (down), many rows:       one block,  one slice of hidden/16 panels
 *
 * Few rows: the activations of all of them fit in a core's cache, so the thread that has a run of
 * panels goes through all experts with it and adds up its part of the output at once.
 */
#ifndef FERRUM_CPU_FFN_PLAN_H
#define FERRUM_CPU_FFN_PLAN_H

#include "backends/cpu/grouping.h"

enum {
    FERRUM_CPU_FFN_BLOCK_ROWS = 64 /**< most rows of a block, a multiple of 8 */
};

/** Packed rows [row, row + rows), all of one expert. */
typedef struct ferrum_cpu_ffn_block {
    uint32_t expert;
    uint32_t row;
    uint32_t rows;
    atomic_uint panels_left; /**< of phase 1; who brings it to zero prepares the rows for phase 2 */
} ferrum_cpu_ffn_block_t;

/** Panels [panel, panel + panels) for blocks [block, block + blocks). */
typedef struct ferrum_cpu_ffn_unit {
    uint32_t block;
    uint32_t blocks;
    uint32_t panel;
    uint32_t panels;
} ferrum_cpu_ffn_unit_t;

/** Units of one phase and the counter they are pulled from. */
typedef struct ferrum_cpu_ffn_units {
    ferrum_cpu_ffn_unit_t *list;
    ferrum_cpu_queue_t queue;
} ferrum_cpu_ffn_units_t;

/** What a plan is made for. */
typedef struct ferrum_cpu_ffn_shape {
    uint32_t pairs;          /**< that a call of this shape can have; sizes scratch */
    uint32_t experts;        /**< local ones */
    uint32_t gate_panels;    /**< intermediate / 16 */
    uint32_t down_panels;    /**< hidden / 16 */
    size_t hidden_row_bytes; /**< of an activated row as the down product reads it */
} ferrum_cpu_ffn_shape_t;

/** Both phases; lives in the UNITS scratch. */
typedef struct ferrum_cpu_ffn_plan {
    ferrum_cpu_ffn_block_t *blocks;
    uint32_t block_count;
    bool combines;         /**< units of phase 2 hold all blocks and add up their outputs */
    uint32_t slice_panels; /**< panels of a unit of phase 2 if it does not combine */
    ferrum_cpu_ffn_units_t gate_up;
    ferrum_cpu_ffn_units_t down;
} ferrum_cpu_ffn_plan_t;

/** Plan a call whose pairs are grouped. */
ferrum_status_t ferrum_cpu_ffn_plan(ferrum_context_t *ctx, const ferrum_cpu_ffn_shape_t *shape,
                                    const ferrum_cpu_grouping_t *grouping,
                                    ferrum_cpu_ffn_plan_t *out_plan, ferrum_error_t *err);

/** The next unit of a phase, NULL when there is none left. */
static inline const ferrum_cpu_ffn_unit_t *ferrum_cpu_ffn_take(ferrum_cpu_ffn_units_t *units)
{
    const uint64_t item = ferrum_cpu_take(&units->queue);
    return item < units->queue.count ? &units->list[item] : NULL;
}

#endif /* FERRUM_CPU_FFN_PLAN_H */
