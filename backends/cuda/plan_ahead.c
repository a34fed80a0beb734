/* SPDX-License-Identifier: MIT */
#include "backends/cuda/plan_ahead.h"
#include "backends/cuda/check.h"
#include "backends/cuda/product.h"

enum {
    ROUTE_THREADS = 32,
    PLAN_THREADS = 128,
    PLAN_ROWS = 4,           /* per block of route_plan */
    MOST_ROWS = 128,         /* one block sorts their pairs: for more, plan's many are faster */
    MOST_PAIRS = 1024,       /* the same */
    MOST_SHARED = 48 * 1024, /* bytes that every block may have */
};

ferrum_status_t ferrum_cuda_place_plan(ferrum_context_t *ctx,
                                       const ferrum_cuda_plan_problem_t *problem, uint32_t rows,
                                       ferrum_plan_args_t *out_plan, ferrum_error_t *err)
{
    const uint64_t pairs = problem->tiles.pairs, experts = problem->tiles.experts;
    const uint64_t sorted = pairs + experts * rows, blocks = sorted / rows;
    CUdeviceptr at;

    if (sorted > INT32_MAX)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                           "expert_ffn_forward: %llu pairs of %llu experts are too many to plan",
                           (unsigned long long)pairs, (unsigned long long)experts);
    FERRUM_TRY(ferrum_cuda_scratch(ctx, FERRUM_CUDA_SCRATCH_PLAN,
                                   (sorted + blocks + 1) * sizeof(int32_t), &at, err));
    *out_plan = (ferrum_plan_args_t){.sorted = at,
                                     .block_experts = at + sorted * sizeof(int32_t),
                                     .total = at + (sorted + blocks) * sizeof(int32_t),
                                     .pairs = (uint32_t)pairs,
                                     .experts = (uint32_t)experts,
                                     .first_expert = problem->first_expert,
                                     .top_k = 1,
                                     .block_size = rows,
                                     .sorted_max = (uint32_t)sorted,
                                     .sorted_pairs = 1};
    return FERRUM_OK;
}

static ferrum_status_t route_only(ferrum_context_t *ctx, const ferrum_route_args_t *args,
                                  uint32_t batch, ferrum_error_t *err)
{
    const ferrum_cuda_grid_t grid = {
        batch, 1, 1, ROUTE_THREADS, (uint32_t)((2 * args->experts + args->groups) * sizeof(float))};

    return ferrum_cuda_launch(ctx, FERRUM_CUDA_KERNEL_route, grid, args, err);
}

/** Rows per tile of a plan that is worth making along with the routing of @p batch rows, or 1. */
static uint32_t rows_ahead(const ferrum_context_t *ctx, const ferrum_route_args_t *args,
                           uint32_t batch, ferrum_cuda_plan_problem_t *problem)
{
    const ferrum_cuda_memory_t *scratch = ctx->scratch[FERRUM_CUDA_SCRATCH_PLAN];

    if (!ctx->ahead || ctx->ahead->problem.num_experts != args->experts || batch > MOST_ROWS ||
        (uint64_t)batch * args->top_k > MOST_PAIRS || !scratch ||
        !ctx->scratch[FERRUM_CUDA_SCRATCH_TICKETS] ||
        FERRUM_ROUTE_PLAN_SHARED_BYTES(args->experts, args->groups) > MOST_SHARED)
        return 1;
    *problem = ctx->ahead->problem;
    problem->tiles.pairs = (uint64_t)batch * args->top_k;
    const uint32_t rows = ferrum_cuda_choose_tile(&problem->tiles)->rows;
    const uint64_t sorted = problem->tiles.pairs + (uint64_t)problem->tiles.experts * rows;
    /* A routing is no reason to grow: the forward does, and the next routing finds it done. */
    return (sorted + sorted / rows + 1) * sizeof(int32_t) <= scratch->bytes ? rows : 1;
}

ferrum_status_t ferrum_cuda_route(ferrum_context_t *ctx, const ferrum_route_args_t *args,
                                  uint32_t batch, ferrum_cuda_memory_t *ids, ferrum_error_t *err)
{
    ferrum_cuda_plan_problem_t problem;
    const uint32_t rows = ids ? rows_ahead(ctx, args, batch, &problem) : 1;
    ferrum_route_plan_args_t both = {.route = *args, .rows = batch};
    const ferrum_cuda_grid_t grid = {ferrum_cuda_ceil(batch, PLAN_ROWS), 1, 1, PLAN_THREADS,
                                     FERRUM_ROUTE_PLAN_SHARED_BYTES(args->experts, args->groups)};

    if (rows == 1)
        return route_only(ctx, args, batch, err);
    FERRUM_TRY(ferrum_cuda_place_plan(ctx, &problem, rows, &both.plan, err));
    FERRUM_TRY(
        ferrum_cuda_scratch(ctx, FERRUM_CUDA_SCRATCH_TICKETS, sizeof(uint32_t), &both.ticket, err));
    both.plan.ids = args->ids;
    FERRUM_TRY(ferrum_cuda_launch(ctx, FERRUM_CUDA_KERNEL_route_plan, grid, &both, err));
    ferrum_cuda_memory_keep(ids);
    if (ctx->ahead->ids)
        ferrum_cuda_memory_drop(ctx->ahead->ids);
    ctx->ahead->ids = ids;
    ctx->ahead->problem = problem;
    ctx->ahead->rows = rows;
    ctx->ahead->made = true;
    return FERRUM_OK;
}

bool ferrum_cuda_plan_made(const ferrum_context_t *ctx)
{
    return ctx && ctx->ahead && ctx->ahead->made;
}

/** A plan made for @p a with tiles of @p rows rows is one for @p b. */
static bool serves(const ferrum_cuda_plan_problem_t *a, uint32_t rows,
                   const ferrum_cuda_plan_problem_t *b)
{
    return a->first_expert == b->first_expert && a->tiles.experts == b->tiles.experts &&
           a->tiles.pairs == b->tiles.pairs && rows == ferrum_cuda_choose_tile(&b->tiles)->rows;
}

ferrum_status_t ferrum_cuda_want_plan(ferrum_context_t *ctx,
                                      const ferrum_cuda_plan_problem_t *problem, bool made,
                                      const ferrum_cuda_memory_t *ids, bool *out_planned,
                                      ferrum_error_t *err)
{
    CUdeviceptr ticket;

    if (!ctx->ahead) {
        ctx->ahead = ferrum_cuda_host_alloc(ctx->device->host, sizeof *ctx->ahead, "a plan", err);
        if (!ctx->ahead)
            return FERRUM_OUT_OF_MEMORY;
    }
    *out_planned = made && ctx->ahead->ids == ids && !atomic_load(&ids->freed) &&
                   serves(&ctx->ahead->problem, ctx->ahead->rows, problem);
    ctx->ahead->problem = *problem;
    if (ctx->capturing || ctx->scratch[FERRUM_CUDA_SCRATCH_TICKETS])
        return FERRUM_OK;
    return ferrum_cuda_scratch(ctx, FERRUM_CUDA_SCRATCH_TICKETS, sizeof(uint32_t), &ticket, err);
}

void ferrum_cuda_drop_plan(ferrum_context_t *ctx)
{
    if (!ctx->ahead)
        return;
    if (ctx->ahead->ids)
        ferrum_cuda_memory_drop(ctx->ahead->ids);
    ferrum_cuda_host_free(ctx->device->host, ctx->ahead, sizeof *ctx->ahead);
    ctx->ahead = NULL;
}
