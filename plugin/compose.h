/* SPDX-License-Identifier: MIT */
/*
 * expert_ffn for plugins that have only the granular ops. A GGUF layer becomes three
 * StackedExperts (gemv_moe_id_batched for few tokens, gemm_moe_id for many, then silu_mul_batched,
 * the down projection and weighted_sum_batched); a GPTQ layer three MarlinExpertStacks (rows
 * gathered by expert, gemm_phase_batched, silu_mul_batched, gemm_phase_batched, moe_combine).
 *
 * It is the portable path, not the fast one: each call reads the ids back to the host. Biases,
 * other activations and mixed kinds of weights are refused with a reason.
 */
#ifndef FERRUM_PLUGIN_COMPOSE_H
#define FERRUM_PLUGIN_COMPOSE_H

#include "tables.h"

#include <pthread.h>
#include <stdatomic.h>

/** Buffers and arrays that the composed calls of one context share; they only grow. */
typedef struct ferrum_compose_scratch {
    struct ferrum_compose_scratch *next;
    ferrum_context_t *ctx;
    ferrum_buffer_t *ids;      /**< i32: experts of pairs, or packed rows of pairs */
    ferrum_buffer_t *weights;  /**< f32 [P], zero for skipped pairs */
    ferrum_buffer_t *lists;    /**< i32: pair ids per expert */
    ferrum_buffer_t *counts;   /**< i32: pairs per expert */
    ferrum_buffer_t *packed_x; /**< act: rows of x, by expert */
    ferrum_buffer_t *gate;     /**< act */
    ferrum_buffer_t *up;       /**< act */
    ferrum_buffer_t *hidden;   /**< act: silu(gate) * up */
    ferrum_buffer_t *slots;    /**< act: outputs of pairs */
    ferrum_buffer_t *sum;      /**< act: what ACCUMULATE adds */
    int32_t *host;             /**< routing and plan of the call */
    uint64_t host_words;
    int32_t *host_lists; /**< what goes into lists */
    uint64_t host_list_words;
} ferrum_compose_scratch_t;

/** Composition for one module. */
typedef struct ferrum_compose {
    const ferrum_tables_t *tables;
    const ferrum_logger_t *logger;
    uint32_t gemm_tokens; /**< from this many tokens on, GGUF layers use gemm_moe_id */
    bool has_gguf, has_gptq;
    bool has_gemv, has_gemm;
    char lacks[160]; /**< entries without which GGUF or GPTQ layers cannot be composed */
    void (*native_context_free)(ferrum_context_t *ctx);
    ferrum_status_t (*native_supports)(ferrum_device_t *device, const ferrum_problem_t *problem,
                                       ferrum_error_t *err);
    unsigned slot;
    pthread_mutex_t mutex; /**< guards the list, not the scratch in it */
    ferrum_compose_scratch_t *scratch;
    uint32_t live_ffns;
} ferrum_compose_t;

enum {
    FERRUM_GATE,
    FERRUM_UP,
    FERRUM_DOWN,
    FERRUM_ROLES
};

/** What `ferrum_expert_ffn_t *` points to when it was composed. */
typedef struct ferrum_composed_ffn {
    atomic_uint refs;
    ferrum_compose_t *compose;
    ferrum_device_t *device;
    ferrum_dtype_t activation_dtype;
    uint32_t hidden;
    uint32_t intermediate;
    uint32_t num_experts;
    uint32_t first_expert;
    uint32_t local_experts;
    bool gptq;
    ferrum_stacked_experts_t *stacked[FERRUM_ROLES];
    ferrum_marlin_stack_t *marlin[FERRUM_ROLES];
    uint64_t bytes;
    uint64_t source_bytes;
    float error_bound; /**< from those of the three stacks */
} ferrum_composed_ffn_t;

/**
 * Fill in expert_ffn in @p tables when the plugin lacks it and has what it takes.
 * @param out_compose NULL when nothing was composed; else freed with ferrum_compose_free
 */
ferrum_status_t ferrum_compose_expert_ffn(ferrum_tables_t *tables, const ferrum_logger_t *logger,
                                          uint32_t gemm_tokens, ferrum_compose_t **out_compose,
                                          ferrum_error_t *err);
/** NULL is ignored. */
void ferrum_compose_free(ferrum_compose_t *compose);

/** expert_ffn_forward of a composed object. */
ferrum_status_t ferrum_composed_forward(ferrum_context_t *ctx, ferrum_expert_ffn_t *ffn,
                                        const ferrum_expert_ffn_args_t *args, ferrum_error_t *err);
/** Free the scratch of @p ctx, or of all contexts (NULL). */
void ferrum_compose_drop_scratch(ferrum_compose_t *compose, const ferrum_context_t *ctx);

#endif /* FERRUM_PLUGIN_COMPOSE_H */
