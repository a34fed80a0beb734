/* SPDX-License-Identifier: MIT */
#include "backends/cpu/ffn_plan.h"

enum {
    CACHE_BYTES = 768 << 10, /* of activations, in the second-level cache of a core */
    READ_COST = 8,    /* reading a panel takes about as long as multiplying it by this many rows */
    SHARE = 2,        /* a unit is at most 1/(SHARE * width) of what is left ... */
    SMALLEST = 32,    /* ... but at least 1/(SMALLEST * width) of all */
    LEAST_PANELS = 2, /* of a unit that goes through all blocks */
    SLICES = 4,       /* of the output, at least, when units do not */
    UNITS_PER_THREAD = 16
};

static uint64_t block_cost(const ferrum_cpu_ffn_block_t *block)
{
    return (uint64_t)block->rows + READ_COST;
}

/** Rows of each block but the last one of a bucket, and how many blocks there are: equal ones,
 *  rounded up to what kernels take at once. */
static uint32_t block_rows(uint32_t count, uint32_t *out_blocks)
{
    const uint32_t parts = (uint32_t)ferrum_cpu_blocks(count, FERRUM_CPU_FFN_BLOCK_ROWS);
    const uint32_t rows = (uint32_t)ferrum_cpu_blocks(count, 8 * parts) * 8;
    *out_blocks = (uint32_t)ferrum_cpu_blocks(count, rows);
    return rows;
}

/** Cut every bucket into blocks, largest first; equal ones stay in order, hence by expert. */
static uint32_t cut_blocks(const ferrum_cpu_grouping_t *grouping, uint32_t panels,
                           ferrum_cpu_ffn_block_t *blocks)
{
    uint32_t next[FERRUM_CPU_FFN_BLOCK_ROWS + 2] = {0}; /* place of the next block of r rows */
    uint32_t parts;
    for (uint32_t i = 0; i < grouping->bucket_count; i++) {
        const uint32_t count = grouping->buckets[i].count, rows = block_rows(count, &parts);
        next[count < rows ? count : rows] += parts - (count > rows);
        next[count - rows * (parts - 1)] += count > rows;
    }
    uint32_t total = 0;
    for (uint32_t r = FERRUM_CPU_FFN_BLOCK_ROWS; r > 0; r--) {
        const uint32_t number = next[r];
        next[r] = total;
        total += number;
    }
    for (uint32_t i = 0; i < grouping->bucket_count; i++) {
        const ferrum_cpu_bucket_t *bucket = &grouping->buckets[i];
        const uint32_t rows = block_rows(bucket->count, &parts);
        for (uint32_t done = 0; done < bucket->count; done += rows) {
            const uint32_t rest = bucket->count - done, r = rest < rows ? rest : rows;
            ferrum_cpu_ffn_block_t *block = &blocks[next[r]++];
            block->expert = bucket->matrix;
            block->row = bucket->first + done;
            block->rows = r;
            atomic_init(&block->panels_left, panels);
        }
    }
    return total;
}

/** Most units that phase 1 can have: every one but a block's last has the smallest cost or more. */
static uint64_t most_gate_up_units(uint64_t blocks, uint32_t width)
{
    return blocks + (uint64_t)SMALLEST * width + 1;
}

static void cut_gate_up(ferrum_cpu_ffn_plan_t *plan, uint32_t panels, uint32_t width)
{
    uint64_t left = 0, count = 0;
    for (uint32_t b = 0; b < plan->block_count; b++)
        left += panels * block_cost(&plan->blocks[b]);
    const uint64_t least = left / ((uint64_t)SMALLEST * width) + 1;
    for (uint32_t b = 0; b < plan->block_count; b++) {
        const uint64_t cost = block_cost(&plan->blocks[b]);
        for (uint32_t panel = 0, take; panel < panels; panel += take) {
            const uint64_t share = left / ((uint64_t)SHARE * width);
            const uint64_t wanted = ferrum_cpu_blocks(share > least ? share : least, cost);
            take = wanted < panels - panel ? (uint32_t)wanted : panels - panel;
            plan->gate_up.list[count++] = (ferrum_cpu_ffn_unit_t){b, 1, panel, take};
            left -= take * cost;
        }
    }
    plan->gate_up.queue.count = count;
}

/** Every unit has all blocks: runs of panels that shrink towards the end. */
static void cut_down_across(ferrum_cpu_ffn_plan_t *plan, uint32_t panels, uint32_t width)
{
    uint64_t count = 0;
    for (uint32_t panel = 0, take; panel < panels; panel += take) {
        const uint32_t share = (panels - panel) / (SHARE * width);
        const uint32_t wanted = share > LEAST_PANELS ? share : LEAST_PANELS;
        take = wanted < panels - panel ? wanted : panels - panel;
        plan->down.list[count++] = (ferrum_cpu_ffn_unit_t){0, plan->block_count, panel, take};
    }
    plan->down.queue.count = count;
}

static void cut_down_in_slices(ferrum_cpu_ffn_plan_t *plan, uint32_t panels)
{
    uint64_t count = 0;
    for (uint32_t panel = 0; panel < panels; panel += plan->slice_panels) {
        const uint32_t rest = panels - panel;
        const uint32_t take = rest < plan->slice_panels ? rest : plan->slice_panels;
        for (uint32_t b = 0; b < plan->block_count; b++)
            plan->down.list[count++] = (ferrum_cpu_ffn_unit_t){b, 1, panel, take};
    }
    plan->down.queue.count = count;
}

/** Slices of phase 2 that give every thread enough units, whatever the ids of a call are. */
static uint32_t slice_count(uint64_t blocks, uint32_t panels, uint32_t width)
{
    const uint64_t wanted = ferrum_cpu_blocks((uint64_t)UNITS_PER_THREAD * width, blocks);
    const uint64_t slices = wanted > SLICES ? wanted : SLICES;
    return slices < panels ? (uint32_t)slices : panels;
}

ferrum_status_t ferrum_cpu_ffn_plan(ferrum_context_t *ctx, const ferrum_cpu_ffn_shape_t *shape,
                                    const ferrum_cpu_grouping_t *grouping,
                                    ferrum_cpu_ffn_plan_t *out_plan, ferrum_error_t *err)
{
    const uint64_t buckets = shape->pairs < shape->experts ? shape->pairs : shape->experts;
    const uint64_t most_blocks = buckets + shape->pairs / FERRUM_CPU_FFN_BLOCK_ROWS;
    const uint64_t gate_up_units = most_gate_up_units(most_blocks, ctx->width);
    const bool across = ferrum_size_mul(shape->pairs, shape->hidden_row_bytes) <= CACHE_BYTES;
    /* Fewer blocks than there can be make more slices. */
    const uint64_t down_units =
        across ? shape->down_panels
               : SLICES * most_blocks + (uint64_t)UNITS_PER_THREAD * ctx->width + most_blocks;
    const uint64_t bytes =
        ferrum_size_add(ferrum_size_mul(most_blocks, sizeof *out_plan->blocks),
                        ferrum_size_mul(gate_up_units + down_units, sizeof *out_plan->down.list));
    void *memory = ferrum_cpu_scratch(ctx, FERRUM_CPU_SCRATCH_UNITS, bytes, 1, err);
    if (!memory)
        return FERRUM_OUT_OF_MEMORY;
    out_plan->blocks = memory;
    out_plan->gate_up.list = (ferrum_cpu_ffn_unit_t *)(out_plan->blocks + most_blocks);
    out_plan->down.list = out_plan->gate_up.list + gate_up_units;
    atomic_init(&out_plan->gate_up.queue.next, 0);
    atomic_init(&out_plan->down.queue.next, 0);
    out_plan->block_count = cut_blocks(grouping, shape->gate_panels, out_plan->blocks);
    out_plan->combines = across;
    cut_gate_up(out_plan, shape->gate_panels, ctx->width);
    if (across) {
        cut_down_across(out_plan, shape->down_panels, ctx->width);
        return FERRUM_OK;
    }
    const uint32_t slices = slice_count(out_plan->block_count ? out_plan->block_count : 1,
                                        shape->down_panels, ctx->width);
    out_plan->slice_panels = (uint32_t)ferrum_cpu_blocks(shape->down_panels, slices);
    cut_down_in_slices(out_plan, shape->down_panels);
    return FERRUM_OK;
}
