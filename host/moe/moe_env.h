/* SPDX-License-Identifier: MIT */
/**
 * @file moe_env.h
 * @brief The MoE options as a plain struct, parsed once and passed in, so that two engines in one
 *        process can differ and nothing on the hot path reads an option.
 */
#ifndef FERRUM_HOST_MOE_ENV_H
#define FERRUM_HOST_MOE_ENV_H

#include <ferrum/loader.h>
#include <stdbool.h>

/** Which way a layer's routed experts are computed. */
typedef enum ferrum_moe_path {
    FERRUM_MOE_PATH_AUTO,       /**< the first of the following that the backend supports */
    FERRUM_MOE_PATH_EXPERT_FFN, /**< one fused call per layer */
    FERRUM_MOE_PATH_BUCKETED,   /**< Marlin stacks (GPTQ), pairs grouped by expert */
    FERRUM_MOE_PATH_STACKED,    /**< GGUF stacks */
    FERRUM_MOE_PATH_PER_PAIR,   /**< one Linear per expert, one call per pair */
} ferrum_moe_path_t;

/** "auto", "expert_ffn", "bucketed", "stacked", "per-pair". */
const char *ferrum_moe_path_name(ferrum_moe_path_t path);

/** One field per option, named after it. */
typedef struct ferrum_moe_env {
    ferrum_moe_path_t path;      /**< FERRUM_MOE_PATH */
    bool profile;                /**< FERRUM_MOE_PROFILE */
    bool load_trace;             /**< FERRUM_MOE_LOAD_TRACE */
    bool vllm_moe;               /**< FERRUM_VLLM_MOE: aligned fused GEMM phases */
    bool pair_ids;               /**< FERRUM_VLLM_MOE_PAIR_IDS */
    bool zero_workspace;         /**< FERRUM_VLLM_MOE_ZERO_WS */
    bool host_route;             /**< FERRUM_MOE_HOST_ROUTE */
    int device_route;            /**< FERRUM_MOE_DEVICE_ROUTE: 1 force, 0 forbid, -1 unset */
    bool fused_gate_up_silu;     /**< FERRUM_MOE_FUSED_GATE_UP_SILU */
    bool host_topk;              /**< FERRUM_MOE_HOST_TOPK */
    bool direct_dispatch;        /**< FERRUM_MOE_DIRECT_DISPATCH */
    bool bucketed;               /**< FERRUM_MOE_BUCKETED */
    bool batched;                /**< FERRUM_MOE_BATCHED: shared decode pass (host/model) */
    bool batched_decode;         /**< FERRUM_MOE_BATCHED_DECODE */
    bool graph;                  /**< FERRUM_MOE_GRAPH (host/model) */
    uint32_t batch_threshold;    /**< FERRUM_MOE_BATCH_THRESHOLD (host/model) */
    uint32_t prefill_threshold;  /**< FERRUM_MOE_PREFILL_THRESHOLD */
    uint32_t block_size;         /**< FERRUM_MOE_BLOCK_SIZE: 8, 16, 32, 48, 64; 0 unset */
    uint32_t large_m_block_size; /**< FERRUM_MOE_LARGE_M_BLOCK_SIZE: same values */
    uint32_t large_m_min_pairs;  /**< FERRUM_MOE_LARGE_M_MIN_PAIRS */
} ferrum_moe_env_t;

/** All defaults. */
void ferrum_moe_env_defaults(ferrum_moe_env_t *out_env);

/**
 * Parse @p options (NULL: defaults). A block size outside the list is dropped, a minimum of pairs
 * that is no number becomes 1024. [any-thread]
 * Errors: INVALID_ARGUMENT (unknown FERRUM_MOE_PATH; FERRUM_MOE_HOST_ROUTE=1 together with
 * FERRUM_MOE_DEVICE_ROUTE=1).
 */
ferrum_status_t ferrum_moe_env_parse(const ferrum_options_t *options, ferrum_moe_env_t *out_env,
                                     ferrum_error_t *err);

#endif /* FERRUM_HOST_MOE_ENV_H */
