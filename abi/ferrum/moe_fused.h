/* SPDX-License-Identifier: MIT */
/**
 * @file moe_fused.h
 * @brief Interface "ferrum.moe_fused/1": routing, planning and combining on the device, and the
 *        whole routed-expert FFN in one call.
 *
 * Two ways through a layer: the *granular* ops (route, plan, align, gather, GEMM phases, combine)
 * for parity and porting, and *expert_ffn*, the fast path, which holds gate, up and down of one
 * layer in whatever packed form the backend likes best. Where a plugin lacks expert_ffn the loader
 * composes it from granular ops.
 *
 * Everything here is deterministic: same inputs, same bits, on every run and for every thread
 * count; sorts are stable; sums run in slot order. Index buffers are i32, routing weights f32,
 * activations act. All calls that take a context are [one-per-context], all since 1.0.
 */
#ifndef FERRUM_MOE_FUSED_H
#define FERRUM_MOE_FUSED_H

#include <ferrum/backend.h>
#include <ferrum/quant_llm.h>
#include <ferrum/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** How router logits become weights. */
typedef uint32_t ferrum_score_function_t;
enum {
    FERRUM_SCORE_SOFTMAX = 0,            /**< softmax over all experts, then top-k (Qwen3) */
    FERRUM_SCORE_SOFTMAX_AFTER_TOPK = 1, /**< top-k of logits, softmax over the k (gpt-oss) */
    FERRUM_SCORE_SIGMOID = 2             /**< sigmoid per expert, then top-k (DeepSeek-V3) */
};

/** Routing beyond the plain case. NULL or all zero: softmax, no bias, no groups, no scaling. */
typedef struct ferrum_routing {
    ferrum_head_t head;
    ferrum_score_function_t score_function;
    uint32_t renormalise; /**< non-zero: divide the k weights by their sum */
    float scale;          /**< multiplies the final weights; 0 means 1 */
    uint32_t num_groups;  /**< experts fall into this many equal groups; 0 or 1: no groups */
    uint32_t topk_groups; /**< groups that stay eligible */
    uint32_t reserved;
    const ferrum_buffer_t *selection_bias; /**< f32 [E] added to scores for selection only */
} ferrum_routing_t;

/** Frozen least size of ferrum_routing_t. */
#define FERRUM_ROUTING_MIN_SIZE 40u

/** What stands between gate/up and down. */
typedef uint32_t ferrum_activation_kind_t;
enum {
    FERRUM_ACTIVATION_SILU_MUL = 0,       /**< silu(g) * u */
    FERRUM_ACTIVATION_SWIGLU_CLAMPED = 1, /**< g = min(g, limit), u = clamp(u, +-limit),
                                               g * sigmoid(alpha*g) * (u + 1) (gpt-oss) */
    FERRUM_ACTIVATION_GELU_MUL = 2        /**< gelu_tanh(g) * u */
};

/** Activation and its parameters. */
typedef struct ferrum_activation {
    ferrum_head_t head;
    ferrum_activation_kind_t kind;
    float alpha; /**< SWIGLU_CLAMPED: 1.702 in gpt-oss */
    float limit; /**< SWIGLU_CLAMPED: 7.0 in gpt-oss */
    uint32_t reserved;
} ferrum_activation_t;

/** Frozen least size of ferrum_activation_t. */
#define FERRUM_ACTIVATION_MIN_SIZE 24u

/** How exactly an expert_ffn computes. Each backend states its error per format and mode. */
typedef uint32_t ferrum_precision_t;
enum {
    FERRUM_PRECISION_DEFAULT = 0,  /**< the backend's default, which is ACCURATE */
    FERRUM_PRECISION_ACCURATE = 1, /**< relative error against f64 <= 5e-4 on CPU */
    FERRUM_PRECISION_FAST = 2      /**< int8 activations where that is faster; each object
                                        states its error */
};

/**
 * Weights of one role (gate, up or down) of the local experts: either one GGUF slab
 * [experts, rows, cols] or one GPTQ matrix per expert. Exactly one of the two is non-NULL.
 */
typedef struct ferrum_expert_weights {
    ferrum_head_t head;
    const ferrum_gguf_weights_t *gguf; /**< slab, or NULL */
    const ferrum_gptq_t *const *gptq;  /**< [local_experts] matrices, or NULL */
    const float *bias;                 /**< host f32 [local_experts, rows], or NULL */
} ferrum_expert_weights_t;

/** Frozen least size of ferrum_expert_weights_t. */
#define FERRUM_EXPERT_WEIGHTS_MIN_SIZE 32u

/** One layer's routed experts. gate, up: [I,h]; down: [h,I]. Roles may differ in format. */
typedef struct ferrum_expert_ffn_desc {
    ferrum_head_t head;
    uint32_t hidden;        /**< h */
    uint32_t intermediate;  /**< I */
    uint32_t num_experts;   /**< E: range of ids in forward */
    uint32_t first_expert;  /**< first expert held here (expert parallelism) */
    uint32_t local_experts; /**< experts held here; 0 means all E */
    ferrum_precision_t precision;
    const ferrum_expert_weights_t *gate;
    const ferrum_expert_weights_t *up;
    const ferrum_expert_weights_t *down;
    const ferrum_activation_t *activation; /**< NULL: SILU_MUL */
} ferrum_expert_ffn_desc_t;

/** Frozen least size of ferrum_expert_ffn_desc_t. */
#define FERRUM_EXPERT_FFN_DESC_MIN_SIZE 64u

typedef struct ferrum_expert_ffn ferrum_expert_ffn_t; /**< packed experts of one layer */

/** Facts about an expert_ffn. */
typedef struct ferrum_expert_ffn_info {
    ferrum_head_t head;
    uint32_t hidden;
    uint32_t intermediate;
    uint32_t num_experts;
    uint32_t local_experts;
    uint64_t bytes;        /**< memory held for weights; mapped bytes not counted */
    uint64_t source_bytes; /**< bytes of the weights as given */
    char kernel[64];       /**< which kernels run: "avx512 q4_k/q6_k" */
    float error_bound;     /**< stated bound of ||o-r||/||r|| per output row against f64 over the
                                dequantised weights, before rounding to act */
    uint32_t reserved;     /**< zero */
} ferrum_expert_ffn_info_t;

/** Frozen least size of ferrum_expert_ffn_info_t. */
#define FERRUM_EXPERT_FFN_INFO_MIN_SIZE 112u

/** Flags of expert_ffn_forward. Unknown bits are refused. */
enum {
    FERRUM_FFN_ACCUMULATE = 1u << 0 /**< add to out instead of overwriting it */
};

/** Arguments of expert_ffn_forward. */
typedef struct ferrum_expert_ffn_args {
    ferrum_head_t head;
    const ferrum_buffer_t *x;       /**< act [tokens,h] */
    const ferrum_buffer_t *ids;     /**< i32 [tokens,top_k] */
    const ferrum_buffer_t *weights; /**< f32 [tokens,top_k] */
    ferrum_buffer_t *out;           /**< act [tokens,h] */
    uint32_t tokens;
    uint32_t top_k;
    uint32_t flags; /**< FERRUM_FFN_* */
    uint32_t reserved;
} ferrum_expert_ffn_args_t;

/** Frozen least size of ferrum_expert_ffn_args_t. */
#define FERRUM_EXPERT_FFN_ARGS_MIN_SIZE 56u

/** The BackendMoeFused table. */
typedef struct ferrum_moe_fused_ops {
    ferrum_head_t head;

    /** As ferrum_quant_llm_ops_t.supports, for this interface's problems. [any-thread] */
    ferrum_status_t (*supports)(ferrum_device_t *device, const ferrum_problem_t *problem,
                                ferrum_error_t *err);

    /* ---- routing ---- */

    /**
     * Copy a host-built alignment into the buffers of @p routing: sorted [sorted_count],
     * expert_ids [block_count], past_padded [1]. Allocates nothing.
     */
    ferrum_status_t (*upload_moe_routing)(ferrum_context_t *ctx, const int32_t *sorted,
                                          uint32_t sorted_count, const int32_t *expert_ids,
                                          uint32_t block_count, int32_t past_padded,
                                          const ferrum_moe_routing_t *routing, ferrum_error_t *err);
    /**
     * Top-k routing. logits act or f32 [batch,E]; out_ids i32 [batch,top_k]; out_weights f32
     * [batch,top_k] in descending order of score; ties go to the lower expert. f32 arithmetic.
     * @param routing NULL: softmax with @c renormalise taken from @p norm_topk
     * Errors: INVALID_ARGUMENT (top_k 0 or > E), INVALID_INPUT naming the row of a non-finite
     * logit; a backend that cannot wait marks such a row with ids -1 and weights NaN and reports it
     * at the next context_sync.
     */
    ferrum_status_t (*route_topk_softmax)(ferrum_context_t *ctx, const ferrum_buffer_t *logits,
                                          ferrum_buffer_t *out_ids, ferrum_buffer_t *out_weights,
                                          uint32_t batch, uint32_t num_experts, uint32_t top_k,
                                          uint32_t norm_topk, const ferrum_routing_t *routing,
                                          ferrum_error_t *err);
    /** The same into host arrays u32 [batch,top_k] and f32 [batch,top_k]; waits. */
    ferrum_status_t (*route_topk_into_host)(ferrum_context_t *ctx, const ferrum_buffer_t *logits,
                                            uint32_t *out_ids, float *out_weights, uint32_t batch,
                                            uint32_t num_experts, uint32_t top_k,
                                            uint32_t norm_topk, const ferrum_routing_t *routing,
                                            ferrum_error_t *err);

    /* ---- plan and alignment ---- */

    /**
     * Stable counting sort of P pairs by expert. expert_ids i32 [P] in, pairs_by_token i32 [P]
     * (packed row of each pair), packed_token_idx i32 [P] (token of each packed row), offsets i32
     * [E+1] out. An id outside [0,E) gets -1 and no packed row; unused tail entries of
     * packed_token_idx are 0.
     */
    ferrum_status_t (*moe_build_pairs_by_token)(
        ferrum_context_t *ctx, const ferrum_buffer_t *expert_ids, ferrum_buffer_t *pairs_by_token,
        ferrum_buffer_t *packed_token_idx, ferrum_buffer_t *expert_offsets, uint32_t pairs,
        uint32_t num_experts, uint32_t top_k, ferrum_error_t *err);
    /**
     * Pad each expert's rows to a multiple of block_size. sorted i32 [sorted_max] gets *packed
     * rows* and the sentinel P; block_ids i32 [sorted_max/block_size] the expert of each block
     * (unused entries -1); total i32 [1] the padded row count. sorted_max >= P + E*block_size.
     */
    ferrum_status_t (*moe_align_block_size)(ferrum_context_t *ctx,
                                            const ferrum_buffer_t *expert_ids,
                                            ferrum_buffer_t *sorted, ferrum_buffer_t *block_ids,
                                            ferrum_buffer_t *total, uint32_t pairs,
                                            uint32_t num_experts, uint32_t block_size,
                                            uint32_t sorted_max, ferrum_error_t *err);
    /** The same with *pair ids* in sorted, for kernels that gather by id / top_k themselves. */
    ferrum_status_t (*moe_align_block_size_pair_ids)(
        ferrum_context_t *ctx, const ferrum_buffer_t *expert_ids, ferrum_buffer_t *sorted,
        ferrum_buffer_t *block_ids, ferrum_buffer_t *total, uint32_t pairs, uint32_t num_experts,
        uint32_t block_size, uint32_t sorted_max, ferrum_error_t *err);
    /**
     * Pair lists per expert with stride batch*top_k: selected i32 [batch*top_k] in; tpe i32 [E],
     * ids i32 [E, batch*top_k] (unused 0) out, and two launch triples u32 [3] =
     * (ceil(max(1, largest tpe)/32), ceil(m/64), E) for m = m_gate_up and m = m_down.
     */
    ferrum_status_t (*compute_ids_tpe)(ferrum_context_t *ctx, const ferrum_buffer_t *selected,
                                       ferrum_buffer_t *tpe, ferrum_buffer_t *ids,
                                       ferrum_buffer_t *gate_up_args, ferrum_buffer_t *down_args,
                                       uint32_t batch, uint32_t num_experts, uint32_t top_k,
                                       uint32_t m_gate_up, uint32_t m_down, ferrum_error_t *err);

    /* ---- between and after the GEMMs ---- */

    /** `out = silu(gate) * up`, all act [pairs, intermediate]. */
    ferrum_status_t (*silu_mul_batched)(ferrum_context_t *ctx, const ferrum_buffer_t *gate,
                                        const ferrum_buffer_t *up, ferrum_buffer_t *out,
                                        uint32_t pairs, uint32_t intermediate, ferrum_error_t *err);
    /** The decode shape of the same: [slots, intermediate]. */
    ferrum_status_t (*silu_mul_stacked)(ferrum_context_t *ctx, const ferrum_buffer_t *gate,
                                        const ferrum_buffer_t *up, ferrum_buffer_t *out,
                                        uint32_t slots, uint32_t intermediate, ferrum_error_t *err);
    /** `out[h] = sum_j w[j] * slots[j,h]`, overwriting; slots act [n,h], w f32 [n]. */
    ferrum_status_t (*weighted_sum_stacked)(ferrum_context_t *ctx, const ferrum_buffer_t *slots,
                                            const ferrum_buffer_t *weights, ferrum_buffer_t *out,
                                            uint32_t n, uint32_t hidden, ferrum_error_t *err);
    /** `residual[h] += sum_j w[j] * slots[j,h]`. */
    ferrum_status_t (*weighted_sum_residual_stacked)(ferrum_context_t *ctx,
                                                     const ferrum_buffer_t *slots,
                                                     const ferrum_buffer_t *weights,
                                                     ferrum_buffer_t *residual, uint32_t n,
                                                     uint32_t hidden, ferrum_error_t *err);
    /** The previous, then `normed_out = rms_norm(residual) * next_norm_w`. */
    ferrum_status_t (*weighted_sum_residual_norm_stacked)(
        ferrum_context_t *ctx, const ferrum_buffer_t *slots, const ferrum_buffer_t *weights,
        ferrum_buffer_t *residual, const ferrum_buffer_t *next_norm_w, ferrum_buffer_t *normed_out,
        uint32_t n, uint32_t hidden, float eps, ferrum_error_t *err);
    /** `out[t,:] = sum_j w[t,j] * slots[t,j,:]`, overwriting; slots act [batch,top_k,h], w f32
     *  [batch,top_k], out act [batch,h]. */
    ferrum_status_t (*weighted_sum_batched)(ferrum_context_t *ctx, const ferrum_buffer_t *slots,
                                            const ferrum_buffer_t *weights, ferrum_buffer_t *out,
                                            uint32_t batch, uint32_t top_k, uint32_t hidden,
                                            ferrum_error_t *err);
    /** The same with element offsets into weights and out. */
    ferrum_status_t (*weighted_sum_batched_offset)(
        ferrum_context_t *ctx, const ferrum_buffer_t *slots, const ferrum_buffer_t *weights,
        uint64_t weights_offset, ferrum_buffer_t *out, uint64_t out_offset, uint32_t batch,
        uint32_t top_k, uint32_t hidden, ferrum_error_t *err);
    /**
     * `out[t,:] = sum_j w[t,j] * packed_down[pairs[t,j],:]`, overwriting; a negative pair is
     * skipped. packed_down act [pairs_total,h], pairs i32 [batch,top_k], w f32 [batch,top_k],
     * out act [batch,h].
     */
    ferrum_status_t (*moe_combine)(ferrum_context_t *ctx, const ferrum_buffer_t *packed_down,
                                   const ferrum_buffer_t *pairs, const ferrum_buffer_t *weights,
                                   ferrum_buffer_t *out, uint32_t batch, uint32_t hidden,
                                   uint32_t top_k, uint32_t pairs_total, ferrum_error_t *err);

    /* ---- the whole FFN ---- */

    /** Pack one layer's experts. [any-thread] */
    ferrum_status_t (*expert_ffn_create)(ferrum_device_t *device,
                                         const ferrum_expert_ffn_desc_t *desc,
                                         ferrum_expert_ffn_t **out_ffn, ferrum_error_t *err);
    /** Add a reference. [any-thread] */
    void (*expert_ffn_retain)(ferrum_expert_ffn_t *ffn);
    /** Drop a reference; NULL is ignored. [any-thread] */
    void (*expert_ffn_release)(ferrum_expert_ffn_t *ffn);
    /** Describe; head of @p out_info is set by the caller. [any-thread] */
    ferrum_status_t (*expert_ffn_info)(const ferrum_expert_ffn_t *ffn,
                                       ferrum_expert_ffn_info_t *out_info, ferrum_error_t *err);
    /**
     * `out[t,:] = sum_j w[t,j] * down[e](act(gate[e] x[t], up[e] x[t]))`, e = ids[t,j], in slot
     * order. A pair with id -1, or with an expert that is not held here, is skipped; any other id
     * outside [0,E) is INVALID_INPUT; a backend that cannot see ids without waiting skips such a
     * pair and reports it at the next context_sync. A token whose pairs are all skipped gets zeros
     * (or is left alone with FERRUM_FFN_ACCUMULATE), so two objects with disjoint expert ranges, or
     * two plugins, can each do their part. out may be x.
     */
    ferrum_status_t (*expert_ffn_forward)(ferrum_context_t *ctx, ferrum_expert_ffn_t *ffn,
                                          const ferrum_expert_ffn_args_t *args,
                                          ferrum_error_t *err);
} ferrum_moe_fused_ops_t;

/** Frozen least size of ferrum_moe_fused_ops_t. */
#define FERRUM_MOE_FUSED_OPS_MIN_SIZE 176u

#ifdef __cplusplus
}
#endif

#endif /* FERRUM_MOE_FUSED_H */
