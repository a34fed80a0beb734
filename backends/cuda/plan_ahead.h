/* SPDX-License-Identifier: MIT */
/**
 * @file plan_ahead.h
 * @brief The plan of an expert FFN, made in one launch with the routing.
 *
 * route_topk_softmax does not know for which experts it routes. But layers of a model are alike: a
 * context remembers what the last expert_ffn_forward needed, and the next routing of few rows among
 * as many experts makes such a plan along with the ids. An expert_ffn_forward uses it if it comes
 * next on the context, with these ids, and wants just this plan; whatever comes between drops it.
 * So a wrong guess costs the time of a plan, never a result.
 */
#ifndef FERRUM_CUDA_PLAN_AHEAD_H
#define FERRUM_CUDA_PLAN_AHEAD_H

#include "backends/cuda/objects.h"
#include "backends/cuda/tile_choice.h"
#include "kernels/cuda/moe_args.h"

/** What a plan depends on, besides the ids. */
typedef struct ferrum_cuda_plan_problem {
    ferrum_cuda_tile_problem_t tiles; /**< experts: those held here */
    uint32_t num_experts;             /**< range of ids */
    uint32_t first_expert;
} ferrum_cuda_plan_problem_t;

/** A context's plan to come, from its first expert_ffn_forward on. */
struct ferrum_cuda_plan_ahead {
    bool made; /**< a plan lies in the scratch; the next call on the context ends that */
    ferrum_cuda_plan_problem_t problem; /**< of the last forward; its pairs: of the plan */
    uint32_t rows;                      /**< per tile of the plan */
    ferrum_cuda_memory_t *ids;          /**< that it was made for, kept; or NULL */
};

/**
 * Where a plan of @p rows rows per tile (> 1) lies, and its parameters but for the ids.
 * Errors: INVALID_ARGUMENT (too many pairs), those of scratch.
 */
ferrum_status_t ferrum_cuda_place_plan(ferrum_context_t *ctx,
                                       const ferrum_cuda_plan_problem_t *problem, uint32_t rows,
                                       ferrum_plan_args_t *out_plan, ferrum_error_t *err);

/** Route @p batch rows, with a plan if one is likely to be wanted. @p ids: where args->ids lies;
 *  NULL: no plan. */
ferrum_status_t ferrum_cuda_route(ferrum_context_t *ctx, const ferrum_route_args_t *args,
                                  uint32_t batch, ferrum_cuda_memory_t *ids, ferrum_error_t *err);

/** Whether the call before made a plan: to be asked before anything is checked. */
bool ferrum_cuda_plan_made(const ferrum_context_t *ctx);
/** Remember what is needed. *out_planned: @p made, and it is just this, for these ids. */
ferrum_status_t ferrum_cuda_want_plan(ferrum_context_t *ctx,
                                      const ferrum_cuda_plan_problem_t *problem, bool made,
                                      const ferrum_cuda_memory_t *ids, bool *out_planned,
                                      ferrum_error_t *err);

/** Free what a context holds of all that. */
void ferrum_cuda_drop_plan(ferrum_context_t *ctx);

#endif /* FERRUM_CUDA_PLAN_AHEAD_H */
