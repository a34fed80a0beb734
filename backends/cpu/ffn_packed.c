/* SPDX-License-Identifier: MIT */
#include "backends/cpu/ffn_packed.h"
#include "backends/cpu/combine.h"
#include "backends/cpu/ffn_plan.h"

#include <string.h>

enum {
    ROWS = FERRUM_PANEL_ROWS,
    TILE_CELLS = 4 * 2 * ROWS * FERRUM_CPU_FFN_BLOCK_ROWS /* gate's and up's outputs at a time */
};

/** Quantised input rows of one role. */
typedef struct inputs {
    const ferrum_cpu_matrix_t *matrices;
    uint8_t *rows;
    size_t row_bytes;
    bool by_token; /**< a row per token; else one per pair, in packed order */
} inputs_t;

/** Argument of the region. */
typedef struct forward {
    const ferrum_context_t *ctx;
    const ferrum_expert_ffn_t *ffn;
    const ferrum_expert_ffn_args_t *args;
    ferrum_cpu_grouping_t grouping;
    ferrum_cpu_ffn_plan_t plan;
    uint32_t *tokens; /**< [rows] of each packed row */
    inputs_t gate;
    inputs_t up; /**< the same rows as gate's unless it orders or quantises them in another way */
    inputs_t down;
    float *hidden; /**< [pairs, intermediate], activated */
    float *slots;  /**< down outputs: for each run of panels [rows, panels * 16] */
    ferrum_cpu_queue_t quantise_queue;
    ferrum_cpu_queue_t combine_queue;
} forward_t;

bool ferrum_cpu_ffn_is_packed(const ferrum_expert_ffn_t *ffn)
{
    return ffn->gate.precision && ffn->gate.precision == ffn->up.precision &&
           ffn->gate.precision == ffn->down.precision;
}

/** Address of a panel. */
static const uint8_t *panel_at(const ferrum_cpu_matrix_t *matrix, uint32_t panel)
{
    return matrix->packed.panels + panel * matrix->packed.panel_stride;
}

static void quantise(const forward_t *f, const inputs_t *in, uint32_t expert, const float *x,
                     uint64_t row)
{
    const ferrum_cpu_matrix_t *matrix = &in->matrices[expert];
    f->ctx->device->packed->quantise(matrix->packed.kind, matrix->precision, x, matrix->perm,
                                     matrix->k, in->rows + row * in->row_bytes);
}

/** One row of x per token, or per pair where experts order their inputs differently. */
static void quantise_input(void *arg, uint64_t item, uint32_t thread)
{
    const forward_t *f = arg;
    const inputs_t *roles[2] = {&f->gate, &f->up};
    const float *x = ferrum_cpu_f32(f->args->x);

    for (int i = 0; i < (f->up.rows == f->gate.rows ? 1 : 2); i++) {
        if (roles[i]->by_token && item < f->args->tokens)
            quantise(f, roles[i], 0, x + item * f->ffn->hidden, item);
        if (roles[i]->by_token || item >= f->grouping.rows)
            continue;
        const uint32_t pair = f->grouping.pairs[item];
        const int32_t id = ferrum_cpu_i32(f->args->ids)[pair];
        quantise(f, roles[i], (uint32_t)id - f->ffn->first_expert,
                 x + (size_t)f->tokens[item] * f->ffn->hidden, item);
    }
}

/** @p next: panels that follow, for the kernel to ask for in time. */
static void product(const forward_t *f, const ferrum_packed_matrix_t *matrix, const inputs_t *in,
                    const ferrum_cpu_ffn_block_t *block, uint32_t row, uint32_t rows,
                    const uint8_t *next, float *y, size_t ldy)
{
    const uint8_t *x = in->by_token ? in->rows : in->rows + block->row * in->row_bytes;
    const uint32_t *x_rows = in->by_token ? f->tokens + block->row : NULL;
    ferrum_packed_matrix_t hinted = *matrix;

    hinted.next = next;
    f->ctx->device->packed->product(&hinted, f->ffn->gate.precision, row, rows, x, in->row_bytes,
                                    x_rows, block->rows, y, ldy);
}

/** Outputs of @p panels gate panels and as many up panels: in a row of the tile gate_t and up_t
 * take turns panel by panel. */
static void pair_product(const forward_t *f, const ferrum_cpu_ffn_block_t *block, uint32_t panel,
                         uint32_t panels, const uint8_t *next, float *tile)
{
    const ferrum_cpu_matrix_t *gate = &f->gate.matrices[block->expert];
    const ferrum_cpu_matrix_t *up = &f->up.matrices[block->expert];
    const size_t stride = (size_t)panels * 2 * ROWS;

    if (up->packed.panels == gate->packed.panels + gate->packed.panel_bytes) {
        /* They take turns in memory, which makes them one matrix. */
        ferrum_packed_matrix_t both = gate->packed;
        both.n *= 2;
        both.panel_stride = both.panel_bytes;
        product(f, &both, &f->gate, block, 2 * panel * ROWS, 2 * panels * ROWS, next, tile, stride);
        return;
    }
    for (uint32_t p = panel; p < panel + panels; p++, tile += 2 * (size_t)ROWS) {
        const uint8_t *after = p + 1 < panel + panels ? panel_at(gate, p + 1) : next;
        product(f, &gate->packed, &f->gate, block, p * ROWS, ROWS, panel_at(up, p), tile, stride);
        product(f, &up->packed, &f->up, block, p * ROWS, ROWS, after, tile + ROWS, stride);
    }
}

/** Outputs of a panel, apart, with their biases. */
static void split_tile(const forward_t *f, const ferrum_cpu_ffn_block_t *block, uint32_t panel,
                       const float *tile, size_t stride, float *gate, float *up)
{
    const float *gate_bias = f->gate.matrices[block->expert].bias;
    const float *up_bias = f->up.matrices[block->expert].bias;
    const ferrum_vector_ops_t *vector = ferrum_cpu_vector(f->ctx);

    for (uint32_t t = 0; t < block->rows; t++, tile += stride, gate += ROWS, up += ROWS) {
        memcpy(gate, tile, ROWS * sizeof *gate);
        memcpy(up, tile + ROWS, ROWS * sizeof *up);
        if (gate_bias)
            vector->add(gate, gate_bias + (size_t)panel * ROWS, ROWS);
        if (up_bias)
            vector->add(up, up_bias + (size_t)panel * ROWS, ROWS);
    }
}

/** Panels at a time: what a product prepares once per call is worth several. */
static uint32_t panels_at_once(const ferrum_cpu_ffn_block_t *block, uint32_t left)
{
    const uint32_t most = TILE_CELLS / (2 * ROWS * block->rows);

    return left < most ? left : most;
}

static void gate_up_unit(const forward_t *f, const ferrum_cpu_ffn_unit_t *unit, const uint8_t *next)
{
    enum {
        CELLS = FERRUM_CPU_FFN_BLOCK_ROWS * ROWS
    };
    float tile[TILE_CELLS], gate[CELLS], up[CELLS];
    ferrum_cpu_ffn_block_t *block = &f->plan.blocks[unit->block];
    const ferrum_cpu_matrix_t *weights = &f->gate.matrices[block->expert];
    const size_t intermediate = f->ffn->intermediate;
    const uint32_t end = unit->panel + unit->panels;

    for (uint32_t first = unit->panel, panels; first < end; first += panels) {
        panels = panels_at_once(block, end - first);
        pair_product(f, block, first, panels,
                     first + panels < end ? panel_at(weights, first + panels) : next, tile);
        for (uint32_t p = 0; p < panels; p++) {
            float *out = f->hidden + block->row * intermediate + (size_t)(first + p) * ROWS;
            split_tile(f, block, first + p, tile + 2 * (size_t)p * ROWS, (size_t)panels * 2 * ROWS,
                       gate, up);
            ferrum_cpu_activate(ferrum_cpu_vector(f->ctx), &f->ffn->activation, gate, up, gate,
                                (size_t)block->rows * ROWS);
            for (uint32_t t = 0; t < block->rows; t++)
                memcpy(out + t * intermediate, gate + (size_t)t * ROWS, ROWS * sizeof *out);
        }
    }
    if (atomic_fetch_sub_explicit(&block->panels_left, unit->panels, memory_order_acq_rel) !=
        unit->panels)
        return;
    for (uint32_t row = block->row; row < block->row + block->rows; row++)
        quantise(f, &f->down, block->expert, f->hidden + row * intermediate, row);
}

/** Where the outputs of a run of panels begin. */
static float *slots_at(const forward_t *f, uint32_t panel)
{
    return f->slots + (size_t)panel * ROWS * f->grouping.rows;
}

/** The weighted sum of @p columns outputs of a token, from a run that begins at @p column. */
static void combine(const forward_t *f, uint32_t token, uint32_t column, uint32_t columns)
{
    const uint32_t top_k = f->args->top_k;
    const ferrum_cpu_combine_t sum = {
        .vector = ferrum_cpu_vector(f->ctx),
        .slots = slots_at(f, column / ROWS),
        .rows = f->grouping.packed_rows + (size_t)token * top_k,
        .weights = ferrum_cpu_f32(f->args->weights) + (size_t)token * top_k,
        .out = ferrum_cpu_f32(f->args->out) + (size_t)token * f->ffn->hidden + column,
        .batch = 1,
        .top_k = top_k,
        .hidden = columns,
        .accumulate = f->args->flags & FERRUM_FFN_ACCUMULATE,
    };
    for (uint64_t item = 0; item < ferrum_cpu_combine_items(&sum); item++)
        ferrum_cpu_combine_item((void *)(uintptr_t)&sum, item, 0);
}

static void down_block(const forward_t *f, const ferrum_cpu_ffn_unit_t *unit, uint32_t index,
                       const uint8_t *next)
{
    const ferrum_cpu_ffn_block_t *block = &f->plan.blocks[index];
    const ferrum_cpu_matrix_t *matrix = &f->down.matrices[block->expert];
    const uint32_t columns = unit->panels * ROWS, row = unit->panel * ROWS;
    float *out = slots_at(f, unit->panel) + (size_t)block->row * columns;

    product(f, &matrix->packed, &f->down, block, row, columns, next, out, columns);
    if (matrix->bias)
        for (uint32_t t = 0; t < block->rows; t++)
            ferrum_cpu_vector(f->ctx)->add(out + (size_t)t * columns, matrix->bias + row, columns);
}

/** First bytes of a unit's weights. */
static const uint8_t *first_bytes(const forward_t *f, const inputs_t *in,
                                  const ferrum_cpu_ffn_unit_t *unit)
{
    if (!unit || unit->blocks == 0)
        return NULL;
    return panel_at(&in->matrices[f->plan.blocks[unit->block].expert], unit->panel);
}

static void down_unit(const forward_t *f, const ferrum_cpu_ffn_unit_t *unit, const uint8_t *next)
{
    for (uint32_t i = 0; i < unit->blocks; i++) {
        const ferrum_cpu_ffn_unit_t follower = {unit->block + i + 1, 1, unit->panel, unit->panels};
        const bool last = i + 1 == unit->blocks;
        down_block(f, unit, unit->block + i, last ? next : first_bytes(f, &f->down, &follower));
    }
    if (f->plan.combines)
        for (uint32_t token = 0; token < f->args->tokens; token++)
            combine(f, token, unit->panel * ROWS, unit->panels * ROWS);
}

/** A token's outputs, run by run. */
static void combine_token(void *arg, uint64_t item, uint32_t thread)
{
    const forward_t *f = arg;
    const uint32_t step = f->plan.slice_panels * ROWS;
    for (uint32_t column = 0; column < f->ffn->hidden; column += step) {
        const uint32_t rest = f->ffn->hidden - column;
        combine(f, (uint32_t)item, column, rest < step ? rest : step);
    }
}

static void run_forward(void *arg, uint32_t thread, uint32_t width)
{
    forward_t *f = arg;
    const ferrum_cpu_ffn_unit_t *unit = ferrum_cpu_ffn_take(&f->plan.gate_up);
    const ferrum_cpu_ffn_unit_t *down = NULL;

    ferrum_cpu_drain(&f->quantise_queue, quantise_input, f, thread);
    ferrum_cpu_barrier(f->ctx, thread);
    while (unit) {
        const ferrum_cpu_ffn_unit_t *next = ferrum_cpu_ffn_take(&f->plan.gate_up);
        if (!next)
            down = ferrum_cpu_ffn_take(&f->plan.down);
        gate_up_unit(f, unit,
                     next ? first_bytes(f, &f->gate, next) : first_bytes(f, &f->down, down));
        unit = next;
    }
    if (!down)
        down = ferrum_cpu_ffn_take(&f->plan.down);
    ferrum_cpu_barrier(f->ctx, thread);
    while (down) {
        const ferrum_cpu_ffn_unit_t *next = ferrum_cpu_ffn_take(&f->plan.down);
        down_unit(f, down, first_bytes(f, &f->down, next));
        down = next;
    }
    if (f->plan.combines)
        return;
    ferrum_cpu_barrier(f->ctx, thread);
    ferrum_cpu_drain(&f->combine_queue, combine_token, f, thread);
}

/** Rows for a role's inputs. Experts that order them alike, or not at all, share a row per token.
 */
static ferrum_status_t make_inputs(ferrum_context_t *ctx, const ferrum_cpu_weights_t *weights,
                                   uint64_t rows, ferrum_cpu_scratch_t kind, inputs_t *out_inputs,
                                   ferrum_error_t *err)
{
    const ferrum_cpu_matrix_t *first = &weights->matrices[0];
    out_inputs->matrices = weights->matrices;
    out_inputs->row_bytes = ferrum_packed_row_bytes(first->k, first->precision);
    out_inputs->rows = ferrum_cpu_scratch(ctx, kind, rows, out_inputs->row_bytes, err);
    return out_inputs->rows ? FERRUM_OK : FERRUM_OUT_OF_MEMORY;
}

static ferrum_status_t prepare_inputs(ferrum_context_t *ctx, forward_t *f, ferrum_error_t *err)
{
    const ferrum_expert_ffn_t *ffn = f->ffn;
    const uint32_t tokens = f->args->tokens, pairs = tokens * f->args->top_k;
    const bool alike = ffn->gate.matrices[0].packed.kind == ffn->up.matrices[0].packed.kind;

    f->gate.by_token = ffn->gate.common_perm;
    f->up.by_token = ffn->up.common_perm;
    FERRUM_TRY(make_inputs(ctx, &ffn->gate, f->gate.by_token ? tokens : pairs,
                           FERRUM_CPU_SCRATCH_GATHER, &f->gate, err));
    f->up.matrices = ffn->up.matrices;
    f->up.rows = f->gate.rows;
    f->up.row_bytes = f->gate.row_bytes;
    if (!alike || ffn->gate.permuted || ffn->up.permuted)
        FERRUM_TRY(make_inputs(ctx, &ffn->up, f->up.by_token ? tokens : pairs,
                               FERRUM_CPU_SCRATCH_GATHER_UP, &f->up, err));
    FERRUM_TRY(make_inputs(ctx, &ffn->down, pairs, FERRUM_CPU_SCRATCH_GATHER_MID, &f->down, err));
    f->quantise_queue.count = f->gate.by_token && f->up.by_token ? tokens : pairs;
    return FERRUM_OK;
}

/** Scratch depends on the shape of a call alone, not on its ids. */
static ferrum_status_t prepare(ferrum_context_t *ctx, forward_t *f, ferrum_error_t *err)
{
    const ferrum_expert_ffn_t *ffn = f->ffn;
    const uint32_t top_k = f->args->top_k, pairs = f->args->tokens * top_k;

    FERRUM_TRY(ferrum_cpu_group_pairs(ctx, ferrum_cpu_i32(f->args->ids), pairs, ffn->first_expert,
                                      ffn->local_experts, &f->grouping, err));
    FERRUM_TRY(prepare_inputs(ctx, f, err));
    const ferrum_cpu_ffn_shape_t shape = {.pairs = pairs,
                                          .experts = ffn->local_experts,
                                          .gate_panels = ffn->intermediate / ROWS,
                                          .down_panels = ffn->hidden / ROWS,
                                          .hidden_row_bytes = f->down.row_bytes};
    FERRUM_TRY(ferrum_cpu_ffn_plan(ctx, &shape, &f->grouping, &f->plan, err));
    f->tokens = ferrum_cpu_scratch(ctx, FERRUM_CPU_SCRATCH_OFFSETS, pairs, sizeof *f->tokens, err);
    f->hidden = f->tokens ? ferrum_cpu_scratch(ctx, FERRUM_CPU_SCRATCH_HIDDEN,
                                               ferrum_size_mul(pairs, ffn->intermediate),
                                               sizeof *f->hidden, err)
                          : NULL;
    f->slots = f->hidden
                   ? ferrum_cpu_scratch(ctx, FERRUM_CPU_SCRATCH_DOWN,
                                        ferrum_size_mul(pairs, ffn->hidden), sizeof *f->slots, err)
                   : NULL;
    if (!f->slots)
        return FERRUM_OUT_OF_MEMORY;
    for (uint32_t r = 0; r < f->grouping.rows; r++)
        f->tokens[r] = f->grouping.pairs[r] / top_k;
    f->combine_queue.count = f->args->tokens;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_ffn_packed_forward(ferrum_context_t *ctx, const ferrum_expert_ffn_t *ffn,
                                              const ferrum_expert_ffn_args_t *args,
                                              ferrum_error_t *err)
{
    forward_t forward = {.ctx = ctx, .ffn = ffn, .args = args};

    FERRUM_TRY(prepare(ctx, &forward, err));
    ferrum_cpu_run(ctx, run_forward, &forward);
    return FERRUM_OK;
}
