/* SPDX-License-Identifier: MIT */
/**
 * @file expert_stack.h
 * @brief ExpertStack: the routed experts of one layer, in the one form that the chosen path needs.
 *
 * | form          | fields                                   | made for the paths     |
 * |---------------|------------------------------------------|------------------------|
 * | per expert    | gate_up[], down[]                        | PER_PAIR, the CPU reference |
 * | GGUF stacks   | gate_stacked, up_stacked, down_stacked   | STACKED                |
 * | Marlin stacks | gate_up_marlin, down_marlin, and gate_up[], down[] as views of them | BUCKETED
 * | | fused         | ffn                                      | EXPERT_FFN             |
 *
 * A gate_up Linear has 2*I outputs, gate first. Weights stay quantised; a format that the backend
 * refuses is refused here with its reason, never expanded. Methods whose form is missing return
 * FERRUM_NO_STACK naming it.
 */
#ifndef FERRUM_HOST_EXPERT_STACK_H
#define FERRUM_HOST_EXPERT_STACK_H

#include "host/formats/gguf.h"
#include "host/formats/safetensors.h"
#include "host/formats/model_config.h"
#include "host/moe/moe_env.h"
#include "host/runtime/ops.h"

/** One layer's experts. Owned by ferrum_expert_stack_free; zeroed is empty. */
typedef struct ferrum_expert_stack {
    const ferrum_ops_t *ops; /**< borrowed; outlives the stack */
    uint32_t hidden;
    uint32_t intermediate;
    ferrum_linear_t **gate_up; /**< [expert_count] or NULL */
    ferrum_linear_t **down;    /**< [expert_count] or NULL */
    uint32_t expert_count;     /**< length of the two lists */
    ferrum_stacked_experts_t *gate_stacked;
    ferrum_stacked_experts_t *up_stacked;
    ferrum_stacked_experts_t *down_stacked;
    ferrum_marlin_stack_t *gate_up_marlin;
    ferrum_marlin_stack_t *down_marlin;
    ferrum_expert_ffn_t *ffn;
    bool requires_vllm;       /**< a Marlin stack is packed for gemm_phase_vllm only */
    uint32_t stacked_experts; /**< experts of whichever stack or ffn there is */
    uint64_t bytes;           /**< memory held for weights as the backend reports it */
} ferrum_expert_stack_t;

/** Release everything; NULL and zeroed are fine. Leaves the struct zeroed. */
void ferrum_expert_stack_free(ferrum_expert_stack_t *stack);

/** Length of the per-expert lists, else the experts of a stack, else 0. [any-thread] */
uint32_t ferrum_expert_stack_num_experts(const ferrum_expert_stack_t *stack);

/**
 * Per-expert Linears from three f32 slabs: gate, up [E,I,h], down [E,h,I].
 * Errors: INVALID_ARGUMENT naming gate_stack, up_stack or down_stack when a count is wrong; those
 * of the loaders. [any-thread]
 */
ferrum_status_t ferrum_expert_stack_from_dense_stacks(
    const ferrum_ops_t *ops, const float *gate, uint64_t gate_count, const float *up,
    uint64_t up_count, const float *down, uint64_t down_count, uint32_t num_experts,
    uint32_t hidden, uint32_t intermediate, ferrum_expert_stack_t *out_stack, ferrum_error_t *err);

/**
 * The three slabs of a layer as descriptors, in the form that @p path needs (EXPERT_FFN, STACKED
 * or PER_PAIR; BUCKETED is UNSUPPORTED for GGUF blocks). [any-thread]
 * @param gate,up [E,I,h]; down [E,h,I]
 */
ferrum_status_t ferrum_expert_stack_from_blocks(const ferrum_ops_t *ops, ferrum_moe_path_t path,
                                                const ferrum_gguf_weights_t *gate,
                                                const ferrum_gguf_weights_t *up,
                                                const ferrum_gguf_weights_t *down,
                                                ferrum_expert_stack_t *out_stack,
                                                ferrum_error_t *err);

/**
 * Experts of layer @p layer of a GGUF file, which must stay open as long as the stack (weights may
 * stay mapped). Errors: NOT_FOUND naming a missing tensor, INVALID_INPUT (shape), UNSUPPORTED
 * (format or path) with the tensor's name. [any-thread]
 */
ferrum_status_t ferrum_expert_stack_load_from_gguf(const ferrum_ops_t *ops,
                                                   const ferrum_gguf_t *gguf, uint32_t layer,
                                                   uint32_t num_experts, uint32_t hidden,
                                                   uint32_t intermediate, ferrum_moe_path_t path,
                                                   ferrum_expert_stack_t *out_stack,
                                                   ferrum_error_t *err);

/** Open @p file, load one layer, and hand back the opened file too; close it after the stack. */
ferrum_status_t ferrum_expert_stack_open_and_load(const ferrum_ops_t *ops, const char *file,
                                                  uint32_t layer, uint32_t num_experts,
                                                  uint32_t hidden, uint32_t intermediate,
                                                  ferrum_moe_path_t path,
                                                  ferrum_expert_stack_t *out_stack,
                                                  ferrum_gguf_t **out_gguf, ferrum_error_t *err);

/**
 * From GPTQ matrices, gate and up [E] each h x I, down [E] each I x h, in the form that @p path
 * needs (EXPERT_FFN, BUCKETED or PER_PAIR; STACKED is UNSUPPORTED for GPTQ). For the fused gate_up
 * matrices of BUCKETED and PER_PAIR the two are joined along N, so they must agree in bits, group
 * size, convention, presence of zeros and g_idx, else INVALID_INPUT names the expert, and have no
 * bias (UNSUPPORTED).
 * [any-thread]
 */
ferrum_status_t
ferrum_expert_stack_from_gptq(const ferrum_ops_t *ops, ferrum_moe_path_t path,
                              const ferrum_gptq_t *const *gate, const ferrum_gptq_t *const *up,
                              const ferrum_gptq_t *const *down, uint32_t num_experts,
                              ferrum_expert_stack_t *out_stack, ferrum_error_t *err);

/** Experts of layer @p layer of a GPTQ checkpoint
 *  (`model.layers.N.mlp.experts.E.{gate_proj,up_proj,down_proj}`), which must stay open as long as
 *  the stack. Errors: as the above and ferrum_gptq_checkpoint_load. [any-thread] */
ferrum_status_t
ferrum_expert_stack_load_from_gptq(const ferrum_ops_t *ops, const ferrum_safetensors_t *checkpoint,
                                   const ferrum_gptq_config_t *config, uint32_t layer,
                                   uint32_t num_experts, uint32_t hidden, uint32_t intermediate,
                                   ferrum_moe_path_t path, ferrum_expert_stack_t *out_stack,
                                   ferrum_error_t *err);

/* ---- stores of the bucketed path ---- */

/** The Marlin stack of gate_up or down, or NULL. */
ferrum_marlin_stack_t *ferrum_expert_stack_gate_up_store(const ferrum_expert_stack_t *stack);
ferrum_marlin_stack_t *ferrum_expert_stack_down_store(const ferrum_expert_stack_t *stack);

/* ---- pass-through to the GGUF stacks, all [one-per-context]; shapes as in quant_llm.h ---- */

/** Which of the three GGUF stacks. */
typedef enum ferrum_expert_role {
    FERRUM_ROLE_GATE,
    FERRUM_ROLE_UP,
    FERRUM_ROLE_DOWN,
} ferrum_expert_role_t;

/** One token: `out[i,:] = W[ids[i]] * x`, with input stride 0 for gate and up and I for down. */
ferrum_status_t ferrum_expert_stack_gemv(ferrum_context_t *ctx, const ferrum_expert_stack_t *stack,
                                         ferrum_expert_role_t role, const ferrum_buffer_t *x,
                                         const ferrum_buffer_t *ids, ferrum_buffer_t *out,
                                         uint32_t n, ferrum_error_t *err);
/** The same with element offsets into x and ids. */
ferrum_status_t ferrum_expert_stack_gemv_offset(ferrum_context_t *ctx,
                                                const ferrum_expert_stack_t *stack,
                                                ferrum_expert_role_t role, const ferrum_buffer_t *x,
                                                uint64_t x_offset, const ferrum_buffer_t *ids,
                                                uint64_t ids_offset, ferrum_buffer_t *out,
                                                uint32_t n, ferrum_error_t *err);
/** One token: `out[i,:] = silu(gate) * up`. */
ferrum_status_t
ferrum_expert_stack_gemv_gate_up_silu(ferrum_context_t *ctx, const ferrum_expert_stack_t *stack,
                                      const ferrum_buffer_t *x, const ferrum_buffer_t *ids,
                                      ferrum_buffer_t *out, uint32_t n, ferrum_error_t *err);
/** m tokens of top_k pairs; pair p reads from `(p/top_k)*outer + (p%top_k)*inner`. */
ferrum_status_t ferrum_expert_stack_gemv_batched(
    ferrum_context_t *ctx, const ferrum_expert_stack_t *stack, ferrum_expert_role_t role,
    const ferrum_buffer_t *x, const ferrum_buffer_t *ids, ferrum_buffer_t *out, uint32_t m,
    uint32_t top_k, uint64_t outer, uint64_t inner, ferrum_error_t *err);
/** The fused gate/up form. */
ferrum_status_t ferrum_expert_stack_gemv_gate_up_silu_batched(
    ferrum_context_t *ctx, const ferrum_expert_stack_t *stack, const ferrum_buffer_t *x,
    const ferrum_buffer_t *ids, ferrum_buffer_t *out, uint32_t m, uint32_t top_k, uint64_t outer,
    uint64_t inner, ferrum_error_t *err);
/** Pair lists per expert: input row per token for gate and up, per pair for down. @p args NULL:
 *  direct launch; else the launch triple of compute_ids_tpe. */
ferrum_status_t ferrum_expert_stack_gemm(ferrum_context_t *ctx, const ferrum_expert_stack_t *stack,
                                         ferrum_expert_role_t role, const ferrum_buffer_t *x,
                                         const ferrum_buffer_t *ids, const ferrum_buffer_t *tpe,
                                         ferrum_buffer_t *out, const ferrum_buffer_t *args,
                                         uint32_t top_k, uint32_t max_per_expert, uint32_t batch,
                                         ferrum_error_t *err);

#endif /* FERRUM_HOST_EXPERT_STACK_H */
