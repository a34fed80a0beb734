/* SPDX-License-Identifier: MIT */
/**
 * @file moe_plan.h
 * @brief Which path the MoE layers of a model take, decided once from what the backend supports and
 *        the options, so that nothing is resolved or probed while tokens flow.
 *
 * FERRUM_MOE_PATH=auto tries, in this order: the plugin's own expert_ffn; the batched form of the
 * weights (GGUF: stacked, GPTQ: bucketed); per pair; refuse with every reason. A path that is named
 * is taken or refused, never replaced.
 */
#ifndef FERRUM_HOST_MOE_PLAN_H
#define FERRUM_HOST_MOE_PLAN_H

#include "host/formats/gguf.h"
#include "host/formats/safetensors.h"
#include "host/formats/model_config.h"
#include "host/moe/moe_env.h"
#include "host/runtime/ops.h"

/** The experts of one layer as they lie in the file. */
typedef struct ferrum_moe_problem {
    uint32_t hidden;
    uint32_t intermediate;
    uint32_t num_experts;
    uint32_t top_k;
    bool norm_topk;
    ferrum_weight_format_t gate, up, down; /**< FERRUM_FORMAT_GPTQ in all three for GPTQ */
    uint32_t bits;                         /**< GPTQ */
    uint32_t group_size;                   /**< GPTQ; 0: per channel */
    bool act_order;                        /**< GPTQ: some g_idx is not k / group_size */
    bool asymmetric;                       /**< GPTQ: some zero is not the middle code */
} ferrum_moe_problem_t;

/** The decision. Plain data; one serves all layers of a model. */
typedef struct ferrum_moe_plan {
    ferrum_moe_path_t path; /**< never AUTO */
    ferrum_moe_env_t env;
    uint32_t hidden;
    uint32_t intermediate;
    uint32_t num_experts;
    uint32_t top_k;
    bool norm_topk;
    bool device_route;          /**< routing (and plan, alignment) stay on the device */
    bool backend_host_route;    /**< host routing goes through route_topk_into_host */
    bool vllm;                  /**< BUCKETED: aligned fused GEMM phases */
    bool fused_gate_up;         /**< STACKED: gate+up+silu in one op at one token */
    bool fused_gate_up_batched; /**< STACKED: the same for batched decode */
    bool gemv_batched;          /**< STACKED: batched decode has its own op */
    char description[200];      /**< one line for logs and `ferrum info` */
} ferrum_moe_plan_t;

/** Describe layer @p layer of a GGUF file (`blk.N.ffn_{gate,up,down}_exps.weight`), its shapes
 *  checked. [any-thread] Errors: NOT_FOUND naming the tensor, INVALID_INPUT (shape), UNSUPPORTED.
 */
ferrum_status_t ferrum_moe_problem_from_gguf(const ferrum_gguf_t *gguf, uint32_t layer,
                                             const ferrum_model_config_t *config,
                                             ferrum_moe_problem_t *out_problem,
                                             ferrum_error_t *err);

/** Describe layer @p layer of a GPTQ checkpoint by gate and down of its expert 0
 *  (`model.layers.N.mlp.experts.0.{gate,down}_proj`); loading checks the others. [any-thread]
 *  Errors: as ferrum_gptq_checkpoint_load. */
ferrum_status_t ferrum_moe_problem_from_gptq(const ferrum_safetensors_t *checkpoint, uint32_t layer,
                                             const ferrum_model_config_t *config,
                                             ferrum_moe_problem_t *out_problem,
                                             ferrum_error_t *err);

/**
 * Decide the path for @p count layers, which must agree in all but the formats. The decision is
 * logged at INFO. [any-thread]
 * Errors: UNSUPPORTED with the reason of every path that was considered; INVALID_ARGUMENT.
 */
ferrum_status_t ferrum_moe_plan_resolve(const ferrum_ops_t *ops, const ferrum_moe_env_t *env,
                                        const ferrum_moe_problem_t *problems, uint32_t count,
                                        ferrum_moe_plan_t *out_plan, ferrum_error_t *err);

#endif /* FERRUM_HOST_MOE_PLAN_H */
