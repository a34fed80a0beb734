/* SPDX-License-Identifier: MIT */
#include "backends/cpu/gate_up.h"

ferrum_status_t ferrum_cpu_gate_up_init(ferrum_context_t *ctx, ferrum_cpu_gate_up_t *job,
                                        const ferrum_cpu_weights_t *gate,
                                        const ferrum_cpu_weights_t *up,
                                        ferrum_cpu_bucket_t *buckets, uint32_t count,
                                        ferrum_cpu_rows_t x, ferrum_cpu_rows_t y, uint64_t capacity,
                                        ferrum_error_t *err)
{
    /* Both read the same prepared rows, unless one of them prepares its own. */
    const bool apart = gate->permuted || up->permuted || gate->precision != up->precision ||
                       gate->matrices[0].packed.kind != up->matrices[0].packed.kind;

    FERRUM_TRY(ferrum_cpu_product_init(ctx, &job->gate, gate->matrices, buckets, count, x, y,
                                       capacity, FERRUM_CPU_SCRATCH_GATHER, err));
    job->up = job->gate;
    job->up.matrices = up->matrices;
    if (apart)
        FERRUM_TRY(ferrum_cpu_product_init(ctx, &job->up, up->matrices, buckets, count, x, y,
                                           capacity, FERRUM_CPU_SCRATCH_GATHER_UP, err));
    else
        job->up.gather_queue.count = 0;
    job->gathers = job->gate.gathered || job->up.gathered;
    return FERRUM_OK;
}

static void gate_up_tile(void *arg, uint64_t item, uint32_t thread)
{
    enum {
        CELLS = FERRUM_CPU_TILE_TOKENS * FERRUM_CPU_TILE_ROWS
    };
    ferrum_cpu_gate_up_t *job = arg;
    ferrum_cpu_product_t *gate = &job->gate, *up = &job->up;
    const ferrum_cpu_tile_t tile = ferrum_cpu_tile(&gate->tiling, gate->matrices, item);
    const uint64_t first = (uint64_t)tile.bucket->first + tile.token;
    float gate_out[CELLS], up_out[CELLS];
    size_t stride;

    const void *x = ferrum_cpu_product_input(gate, &tile, &stride);
    ferrum_cpu_matrix_product(gate->device, &gate->matrices[tile.bucket->matrix], tile.row,
                              tile.rows, x, stride, tile.tokens, gate_out, tile.rows);
    x = ferrum_cpu_product_input(up, &tile, &stride);
    ferrum_cpu_matrix_product(up->device, &up->matrices[tile.bucket->matrix], tile.row, tile.rows,
                              x, stride, tile.tokens, up_out, tile.rows);
    for (uint32_t t = 0; t < tile.tokens; t++)
        ferrum_cpu_activate(&gate->device->kernels->vector, &job->activation,
                            gate_out + (size_t)t * tile.rows, up_out + (size_t)t * tile.rows,
                            ferrum_cpu_row(&gate->y, first + t) + tile.row, tile.rows);
}

void ferrum_cpu_gate_up_phases(const ferrum_context_t *ctx, ferrum_cpu_gate_up_t *job,
                               uint32_t thread)
{
    if (job->gathers) {
        ferrum_cpu_product_gather(&job->gate, thread);
        ferrum_cpu_product_gather(&job->up, thread);
        ferrum_cpu_barrier(ctx, thread);
    }
    ferrum_cpu_drain(&job->gate.tile_queue, gate_up_tile, job, thread);
}

/** Argument of the region behind ferrum_cpu_gate_up_run. */
typedef struct gate_up_region {
    const ferrum_context_t *ctx;
    ferrum_cpu_gate_up_t *job;
} gate_up_region_t;

static void run_gate_up(void *arg, uint32_t thread, uint32_t width)
{
    gate_up_region_t *region = arg;
    ferrum_cpu_gate_up_phases(region->ctx, region->job, thread);
}

void ferrum_cpu_gate_up_run(ferrum_context_t *ctx, ferrum_cpu_gate_up_t *job)
{
    gate_up_region_t region = {ctx, job};
    if (job->gate.tiling.tiles > 0)
        ferrum_cpu_run(ctx, run_gate_up, &region);
}
