/* SPDX-License-Identifier: MIT */
/**
 * @file backend.h
 * @brief Interface "ferrum.backend/1": devices, contexts, buffers, timers and the transformer ops.
 *
 * Objects form a chain, plugin > device > everything else, and each keeps its parent alive.
 * Work submitted to one context runs in submission order; only sync, reads to the host and event
 * waits block the caller. Activations have the device's activation dtype
 * (ferrum_device_info_t.activation_dtype); "act" below means that dtype. An op that gets a buffer
 * of another dtype, too short a buffer or a NULL returns FERRUM_INVALID_ARGUMENT and has written
 * nothing. Offsets and lengths count elements, not bytes. Inputs and outputs must not overlap
 * unless an op says so. A count of zero is valid and does nothing.
 *
 * Use of an object after its release is undefined, as with free().
 */
#ifndef FERRUM_BACKEND_H
#define FERRUM_BACKEND_H

#include <ferrum/host.h>
#include <ferrum/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ferrum_device ferrum_device_t;   /**< one processor or accelerator, opened */
typedef struct ferrum_context ferrum_context_t; /**< an ordered queue of work on a device */
typedef struct ferrum_buffer ferrum_buffer_t;   /**< typed device memory */
typedef struct ferrum_event ferrum_event_t;     /**< a point in one context's order */
typedef struct ferrum_timer ferrum_timer_t;     /**< two points and the time between them */

/** Capability bits of ferrum_device_info_t.caps. */
enum {
    FERRUM_CAP_HOST_WRAP = 1u << 0,        /**< buffer_wrap_host works */
    FERRUM_CAP_GRAPH = 1u << 1,            /**< graph capture and replay */
    FERRUM_CAP_PAGED_KV = 1u << 2,         /**< paged KV ops */
    FERRUM_CAP_PAGED_KV_VLLM = 1u << 3,    /**< paged KV in FERRUM_KV_LAYOUT_VLLM too */
    FERRUM_CAP_VARLEN_QKV = 1u << 4,       /**< mixed batches in one launch */
    FERRUM_CAP_BATCHED_DECODE = 1u << 5,   /**< the shared decode pass for several requests */
    FERRUM_CAP_MOE_GATE_UP_SILU = 1u << 6, /**< gemv_moe_id_gate_up_silu is one fused kernel */
    FERRUM_CAP_MOE_GEMV_BATCHED = 1u << 7, /**< gemv_moe_id_batched */
    FERRUM_CAP_MOE_GATE_UP_SILU_BATCHED = 1u << 8,
    FERRUM_CAP_DEVICE_ROUTE = 1u << 9 /**< routing, plan and alignment run on the device */
};

/** Facts about an open device. */
typedef struct ferrum_device_info {
    ferrum_head_t head;
    uint32_t ordinal;
    ferrum_dtype_t activation_dtype; /**< dtype of buffer_alloc_activation and of every "act" */
    uint64_t caps;                   /**< FERRUM_CAP_* */
    uint64_t memory_total_bytes;
    uint64_t memory_free_bytes;
    uint32_t max_experts; /**< largest E that the fused ops take; 0: no limit */
    uint32_t max_top_k;   /**< largest k; 0: no limit */
    char name[96];        /**< "AMD EPYC 9755", "NVIDIA H200" */
    char detail[96];      /**< "avx512, 2 threads", "sm_90, 132 SMs" */
} ferrum_device_info_t;

/** Frozen least size of ferrum_device_info_t. */
#define FERRUM_DEVICE_INFO_MIN_SIZE 240u

/** How device_open sets a device up. Zero is the default everywhere. */
typedef struct ferrum_device_options {
    ferrum_head_t head;
    uint32_t ordinal;
    ferrum_dtype_t activation_dtype; /**< read only when set_activation_dtype is non-zero */
    uint32_t set_activation_dtype;   /**< ask for a dtype; refused with a reason if not offered */
    uint32_t reserved;               /**< zero */
} ferrum_device_options_t;

/** Frozen least size of ferrum_device_options_t. */
#define FERRUM_DEVICE_OPTIONS_MIN_SIZE 24u

/** What a buffer is. */
typedef struct ferrum_buffer_info {
    ferrum_head_t head;
    ferrum_dtype_t dtype;
    uint32_t reserved;
    uint64_t count; /**< elements */
    void *host_ptr; /**< address when the memory can be read by the host, else NULL */
} ferrum_buffer_info_t;

/** Frozen least size of ferrum_buffer_info_t. */
#define FERRUM_BUFFER_INFO_MIN_SIZE 32u

/**
 * Counters of a context since it was made: what a steady-state step must keep flat. Work that is
 * recorded into a graph is not counted, a replay counts as one graph_replay.
 */
typedef struct ferrum_context_stats {
    ferrum_head_t head;
    uint64_t launches;    /**< kernels or parallel regions started */
    uint64_t syncs;       /**< times the host waited for the device */
    uint64_t allocations; /**< allocations of host or device memory */
    uint64_t copies;      /**< copies between host and device */
    uint64_t graph_replays;
    uint64_t device_copies; /**< copies within the device that are no kernel of the backend */
    uint64_t memsets;       /**< the same for clears */
} ferrum_context_stats_t;

/** Frozen least size of ferrum_context_stats_t. */
#define FERRUM_CONTEXT_STATS_MIN_SIZE 48u

/** Attention geometry. */
typedef struct ferrum_attn_config {
    ferrum_head_t head;
    uint32_t num_heads; /**< query heads; a multiple of num_kv_heads */
    uint32_t num_kv_heads;
    uint32_t head_dim;
    uint32_t causal;         /**< non-zero: query i sees keys up to its own position */
    float scale;             /**< multiplies the logits, normally 1/sqrt(head_dim) */
    uint32_t kv_seq_stride;  /**< rows per kv head in the cache; 0: tightly packed (= kv_len) */
    uint32_t sliding_window; /**< a query sees at most this many last keys; 0: all */
    uint32_t reserved;
} ferrum_attn_config_t;

/** Frozen least size of ferrum_attn_config_t. */
#define FERRUM_ATTN_CONFIG_MIN_SIZE 40u

/** What qk_norm_rope does to a head vector. */
typedef uint32_t ferrum_rope_mode_t;
enum {
    FERRUM_ROPE_NONE = 0,       /**< transpose only */
    FERRUM_ROPE_NORM_HALF = 1,  /**< RMS norm per head, then half-split rotation (Qwen3) */
    FERRUM_ROPE_HALF = 2,       /**< half-split rotation: y[i] = x[i]c - x[i+d/2]s,
                                     y[i+d/2] = x[i+d/2]c + x[i]s */
    FERRUM_ROPE_INTERLEAVED = 3 /**< rotation of pairs (2i, 2i+1), no norm */
};

/** Rotation and norm parameters shared by the ops that prepare q and k. */
typedef struct ferrum_rope {
    ferrum_head_t head;
    const ferrum_buffer_t *q_norm; /**< act or f32 [head_dim]; only FERRUM_ROPE_NORM_HALF */
    const ferrum_buffer_t *k_norm; /**< same for keys */
    const ferrum_buffer_t *cos;    /**< f32 [max_pos, head_dim/2] */
    const ferrum_buffer_t *sin;    /**< f32 [max_pos, head_dim/2] */
    float eps;
    ferrum_rope_mode_t mode;
} ferrum_rope_t;

/** Frozen least size of ferrum_rope_t. */
#define FERRUM_ROPE_MIN_SIZE 48u

/** Layout of a paged KV pool. A model uses one throughout. */
typedef uint32_t ferrum_kv_layout_t;
enum {
    /** K and V each [num_blocks, num_kv_heads, block_size, head_dim]. */
    FERRUM_KV_LAYOUT_FA = 0,
    /** K [num_blocks, num_kv_heads, head_dim/x, block_size, x] with x = 16 / sizeof(element),
     *  V [num_blocks, num_kv_heads, head_dim, block_size]. */
    FERRUM_KV_LAYOUT_VLLM = 1
};

/**
 * One layer's paged cache. Position p of a sequence lives in physical block
 * `table[p / block_size]` at slot `p % block_size`.
 */
typedef struct ferrum_paged_kv {
    ferrum_head_t head;
    ferrum_buffer_t *pool_k; /**< act */
    ferrum_buffer_t *pool_v; /**< act */
    uint32_t num_blocks;
    uint32_t block_size; /**< positions per block, normally 16 */
    uint32_t num_kv_heads;
    uint32_t head_dim;
    ferrum_kv_layout_t layout;
    uint32_t max_blocks_per_seq; /**< row length of block tables */
} ferrum_paged_kv_t;

/** Frozen least size of ferrum_paged_kv_t. */
#define FERRUM_PAGED_KV_MIN_SIZE 48u

/**
 * The Backend table. `head.version` is the ABI minor of the plugin. Entries marked *mandatory*
 * must be there; the loader lists every missing one in a single message. All others may be NULL,
 * and the loader then substitutes a stub that returns FERRUM_UNSUPPORTED.
 */
typedef struct ferrum_backend_ops {
    ferrum_head_t head;

    /* ---- devices and contexts ---- */

    /**
     * Open a device. Mandatory.
     * @param host    kept by the device until it is closed
     * @param options NULL: defaults
     * @param out_device owned by the caller; released with device_release
     * Errors: NOT_FOUND (no such ordinal), UNSUPPORTED (driver, features), OUT_OF_MEMORY.
     * [init] Since 1.0.
     */
    ferrum_status_t (*device_open)(const ferrum_host_t *host,
                                   const ferrum_device_options_t *options,
                                   ferrum_device_t **out_device, ferrum_error_t *err);
    /** Add a reference. Mandatory. [any-thread] Since 1.0. */
    void (*device_retain)(ferrum_device_t *device);
    /** Drop a reference; NULL is ignored. Mandatory. [any-thread] Since 1.0. */
    void (*device_release)(ferrum_device_t *device);
    /** Describe an open device; head of @p out_info is set by the caller. Mandatory.
     *  [any-thread] Since 1.0. */
    ferrum_status_t (*device_info)(const ferrum_device_t *device, ferrum_device_info_t *out_info,
                                   ferrum_error_t *err);
    /**
     * Make a context. Mandatory.
     * @param executor threads for this context's work; must outlive it; NULL: the calling thread
     * @param out_context owned by the caller; keeps the device alive
     * Errors: OUT_OF_MEMORY, DEVICE_ERROR. [any-thread] Since 1.0.
     */
    ferrum_status_t (*context_new)(ferrum_device_t *device, const ferrum_executor_t *executor,
                                   ferrum_context_t **out_context, ferrum_error_t *err);
    /** Finish queued work and free the context, its graphs and scratch; NULL is ignored.
     *  Mandatory. [one-per-context] Since 1.0. */
    void (*context_free)(ferrum_context_t *ctx);
    /** Wait for all work of the context; reports errors of earlier asynchronous work. Mandatory.
     *  [one-per-context] Since 1.0. */
    ferrum_status_t (*context_sync)(ferrum_context_t *ctx, ferrum_error_t *err);
    /** Make finished results visible to a host read that bypasses buffer_read (wrapped memory).
     *  [one-per-context] Since 1.0. */
    ferrum_status_t (*context_sync_before_readback)(ferrum_context_t *ctx, ferrum_error_t *err);
    /** Counters; head of @p out_stats is set by the caller. [one-per-context] Since 1.0. */
    ferrum_status_t (*context_stats)(const ferrum_context_t *ctx, ferrum_context_stats_t *out_stats,
                                     ferrum_error_t *err);

    /* ---- events and timers ---- */

    /** Make an event on a device. [any-thread] Since 1.0. */
    ferrum_status_t (*event_new)(ferrum_device_t *device, ferrum_event_t **out_event,
                                 ferrum_error_t *err);
    /** Mark the current end of @p ctx's work. [one-per-context] Since 1.0. */
    ferrum_status_t (*event_record)(ferrum_context_t *ctx, ferrum_event_t *event,
                                    ferrum_error_t *err);
    /** Let later work of @p ctx start only after the event's recorded point; does not block the
     *  host. An unrecorded event is complete. [one-per-context] Since 1.0. */
    ferrum_status_t (*event_wait)(ferrum_context_t *ctx, ferrum_event_t *event,
                                  ferrum_error_t *err);
    /** Block the host until the recorded point is reached. [any-thread] Since 1.0. */
    ferrum_status_t (*event_sync)(ferrum_event_t *event, ferrum_error_t *err);
    /** Free an event; NULL is ignored. [any-thread] Since 1.0. */
    void (*event_free)(ferrum_event_t *event);

    /** Make a timer on a device. [any-thread] Since 1.0. */
    ferrum_status_t (*timer_new)(ferrum_device_t *device, ferrum_timer_t **out_timer,
                                 ferrum_error_t *err);
    /** Mark the start in the context's order. [one-per-context] Since 1.0. */
    ferrum_status_t (*timer_record_start)(ferrum_context_t *ctx, ferrum_timer_t *timer,
                                          ferrum_error_t *err);
    /** Mark the end in the context's order. [one-per-context] Since 1.0. */
    ferrum_status_t (*timer_record_end)(ferrum_context_t *ctx, ferrum_timer_t *timer,
                                        ferrum_error_t *err);
    /** Milliseconds from start to end, waiting for the end; 0.0 when either was not recorded.
     *  [any-thread] Since 1.0. */
    ferrum_status_t (*timer_elapsed_ms)(ferrum_timer_t *timer, double *out_ms, ferrum_error_t *err);
    /** Free a timer; NULL is ignored. [any-thread] Since 1.0. */
    void (*timer_free)(ferrum_timer_t *timer);

    /* ---- buffers ---- */

    /**
     * Allocate @p count zeroed elements of @p dtype. Mandatory. count 0 is valid.
     * @param out_buffer one reference, owned by the caller; keeps the device alive
     * Errors: OUT_OF_MEMORY (with bytes asked), INVALID_ARGUMENT (dtype, overflow).
     * [any-thread] Since 1.0.
     */
    ferrum_status_t (*buffer_alloc)(ferrum_device_t *device, ferrum_dtype_t dtype, uint64_t count,
                                    ferrum_buffer_t **out_buffer, ferrum_error_t *err);
    /**
     * Wrap host memory without a copy. @p ptr must be aligned to the element and stay valid until
     * the last reference is dropped. Errors: UNSUPPORTED where the device cannot read host memory.
     * [any-thread] Since 1.0.
     */
    ferrum_status_t (*buffer_wrap_host)(ferrum_device_t *device, void *ptr, ferrum_dtype_t dtype,
                                        uint64_t count, ferrum_buffer_t **out_buffer,
                                        ferrum_error_t *err);
    /** Add a reference. Mandatory. [any-thread] Since 1.0. */
    void (*buffer_retain)(ferrum_buffer_t *buffer);
    /** Drop a reference; memory is freed after queued work that uses it; NULL is ignored.
     *  Mandatory. [any-thread] Since 1.0. */
    void (*buffer_release)(ferrum_buffer_t *buffer);
    /** Describe a buffer; head of @p out_info is set by the caller. Mandatory.
     *  [any-thread] Since 1.0. */
    ferrum_status_t (*buffer_info)(const ferrum_buffer_t *buffer, ferrum_buffer_info_t *out_info,
                                   ferrum_error_t *err);
    /**
     * Overwrite `dst[dst_offset .. +count)` from host elements of exactly dst's dtype
     * (@p dtype repeats it as a check). @p src is consumed before the call returns; the write is
     * ordered with the context's work. Mandatory. [one-per-context] Since 1.0.
     */
    ferrum_status_t (*buffer_write)(ferrum_context_t *ctx, ferrum_buffer_t *dst,
                                    uint64_t dst_offset, ferrum_dtype_t dtype, const void *src,
                                    uint64_t count, ferrum_error_t *err);
    /** Same from host f32 into a buffer of dtype f32, f16 or bf16, rounding to nearest even.
     *  Mandatory. [one-per-context] Since 1.0. */
    ferrum_status_t (*buffer_write_f32)(ferrum_context_t *ctx, ferrum_buffer_t *dst,
                                        uint64_t dst_offset, const float *src, uint64_t count,
                                        ferrum_error_t *err);
    /** Copy `src[src_offset .. +count)` to host elements of exactly src's dtype; waits for the
     *  context's work. Mandatory. [one-per-context] Since 1.0. */
    ferrum_status_t (*buffer_read)(ferrum_context_t *ctx, const ferrum_buffer_t *src,
                                   uint64_t src_offset, ferrum_dtype_t dtype, void *out_dst,
                                   uint64_t count, ferrum_error_t *err);
    /** Same from a buffer of dtype f32, f16 or bf16 into host f32. Mandatory.
     *  [one-per-context] Since 1.0. */
    ferrum_status_t (*buffer_read_f32)(ferrum_context_t *ctx, const ferrum_buffer_t *src,
                                       uint64_t src_offset, float *out_dst, uint64_t count,
                                       ferrum_error_t *err);
    /** Zero `buf[offset .. +count)`. Mandatory. [one-per-context] Since 1.0. */
    ferrum_status_t (*buffer_zero)(ferrum_context_t *ctx, ferrum_buffer_t *buf, uint64_t offset,
                                   uint64_t count, ferrum_error_t *err);
    /** Copy elements between buffers of one dtype (copy_slice); the ranges must not overlap.
     *  Mandatory. [one-per-context] Since 1.0. */
    ferrum_status_t (*buffer_copy)(ferrum_context_t *ctx, const ferrum_buffer_t *src,
                                   uint64_t src_offset, ferrum_buffer_t *dst, uint64_t dst_offset,
                                   uint64_t count, ferrum_error_t *err);

    /* ---- core transformer ops, all [one-per-context], since 1.0 ---- */

    /** `out[m,n] = a[m,k] * b[n,k]^T`, act; f32 accumulation. */
    ferrum_status_t (*gemm)(ferrum_context_t *ctx, const ferrum_buffer_t *a,
                            const ferrum_buffer_t *b, ferrum_buffer_t *out, uint32_t m, uint32_t n,
                            uint32_t k, ferrum_error_t *err);
    /** Per row: `out = x * w / sqrt(mean(x^2) + eps)`. x, out act [tokens,dim]; w act or f32
     *  [dim]. out may be x. */
    ferrum_status_t (*rms_norm)(ferrum_context_t *ctx, const ferrum_buffer_t *x,
                                const ferrum_buffer_t *w, float eps, ferrum_buffer_t *out,
                                uint32_t tokens, uint32_t dim, ferrum_error_t *err);
    /** `residual += x` (stored), then `out = rms_norm(residual)`. All act [tokens,dim]. */
    ferrum_status_t (*fused_add_rms_norm)(ferrum_context_t *ctx, ferrum_buffer_t *residual,
                                          const ferrum_buffer_t *x, const ferrum_buffer_t *w,
                                          float eps, ferrum_buffer_t *out, uint32_t tokens,
                                          uint32_t dim, ferrum_error_t *err);
    /**
     * Attention over a contiguous cache with a stable softmax. q, out act
     * [batch, num_heads, q_len, head_dim]; k, v act [batch, num_kv_heads, stride, head_dim].
     * Query head i uses kv head i / (num_heads/num_kv_heads). If causal, query q sees keys
     * `0 .. min(kv_len, pos_offset+q+1)-1`, at most the last `sliding_window` of them.
     */
    ferrum_status_t (*flash_attention)(ferrum_context_t *ctx, const ferrum_buffer_t *q,
                                       const ferrum_buffer_t *k, const ferrum_buffer_t *v,
                                       ferrum_buffer_t *out, uint32_t batch, uint32_t q_len,
                                       uint32_t kv_len, uint32_t pos_offset,
                                       const ferrum_attn_config_t *config, ferrum_error_t *err);
    /** `out[i,:] = table[ids[i],:]` with ids in host memory. table act or a half format
     *  [rows,dim], out act [count,dim]. An id out of range: INVALID_INPUT, nothing written.
     *  Also the gather of MoE rows, the table being x[b,h]. */
    ferrum_status_t (*embedding_lookup)(ferrum_context_t *ctx, const ferrum_buffer_t *table,
                                        const uint32_t *ids, uint32_t count, ferrum_buffer_t *out,
                                        uint32_t dim, ferrum_error_t *err);
    /** Same with ids in a device buffer, i32 [count]. A backend that cannot check ids without
     *  waiting writes zeros for an id out of range. */
    ferrum_status_t (*embedding_lookup_dev)(ferrum_context_t *ctx, const ferrum_buffer_t *table,
                                            const ferrum_buffer_t *ids, uint32_t count,
                                            ferrum_buffer_t *out, uint32_t dim,
                                            ferrum_error_t *err);
    /** qkv act [tokens, q_dim + 2*kv_dim] into three token-major buffers. */
    ferrum_status_t (*split_qkv)(ferrum_context_t *ctx, const ferrum_buffer_t *qkv,
                                 ferrum_buffer_t *q, ferrum_buffer_t *k, ferrum_buffer_t *v,
                                 uint32_t tokens, uint32_t q_dim, uint32_t kv_dim,
                                 ferrum_error_t *err);
    /** gate_up act [tokens, 2*I], gate first: `out[t,i] = silu(gate) * up`, out act [tokens,I]. */
    ferrum_status_t (*fused_silu_mul_split)(ferrum_context_t *ctx, const ferrum_buffer_t *gate_up,
                                            ferrum_buffer_t *out, uint32_t tokens,
                                            uint32_t intermediate, ferrum_error_t *err);
    /** Same, reading from row @p in_row on and writing from row @p out_row on. */
    ferrum_status_t (*fused_silu_mul_split_strided)(ferrum_context_t *ctx,
                                                    const ferrum_buffer_t *gate_up, uint64_t in_row,
                                                    ferrum_buffer_t *out, uint64_t out_row,
                                                    uint32_t tokens, uint32_t intermediate,
                                                    ferrum_error_t *err);
    /** Token-major in [tokens, heads, head_dim] to head-major out [heads, tokens, head_dim], with
     *  norm and rotation by @p rope->mode. The norm weight is rope->q_norm; row t is rotated by
     *  position `pos + t`. */
    ferrum_status_t (*qk_norm_rope)(ferrum_context_t *ctx, const ferrum_buffer_t *in,
                                    const ferrum_rope_t *rope, ferrum_buffer_t *out,
                                    uint32_t tokens, uint32_t heads, uint32_t head_dim,
                                    uint32_t pos, ferrum_error_t *err);
    /** split_qkv and qk_norm_rope in one: q_out [q_heads,tokens,head_dim], k_out and v_out
     *  [kv_heads,tokens,head_dim]; v is only transposed. */
    ferrum_status_t (*split_qkv_norm_rope)(ferrum_context_t *ctx, const ferrum_buffer_t *qkv,
                                           const ferrum_rope_t *rope, ferrum_buffer_t *q_out,
                                           ferrum_buffer_t *k_out, ferrum_buffer_t *v_out,
                                           uint32_t tokens, uint32_t q_heads, uint32_t kv_heads,
                                           uint32_t head_dim, uint32_t pos, ferrum_error_t *err);
    /** Same, with k and v appended to a contiguous cache [kv_heads, capacity, head_dim] at
     *  positions cache_len .. cache_len+tokens. */
    ferrum_status_t (*split_qkv_norm_rope_into_cache)(
        ferrum_context_t *ctx, const ferrum_buffer_t *qkv, const ferrum_rope_t *rope,
        ferrum_buffer_t *q_out, ferrum_buffer_t *cache_k, ferrum_buffer_t *cache_v, uint32_t tokens,
        uint32_t q_heads, uint32_t kv_heads, uint32_t head_dim, uint32_t pos, uint32_t cache_len,
        uint32_t cache_capacity, ferrum_error_t *err);
    /** Write new_k, new_v [kv_heads, count, head_dim] at positions len .. len+count of caches
     *  [kv_heads, capacity, head_dim]; the caller tracks len. */
    ferrum_status_t (*kv_cache_append_head_major)(ferrum_context_t *ctx, ferrum_buffer_t *cache_k,
                                                  ferrum_buffer_t *cache_v, uint32_t len,
                                                  uint32_t capacity, const ferrum_buffer_t *new_k,
                                                  const ferrum_buffer_t *new_v, uint32_t count,
                                                  uint32_t kv_heads, uint32_t head_dim,
                                                  ferrum_error_t *err);
    /** [heads, tokens, dim] to [tokens, heads, dim]. */
    ferrum_status_t (*transpose_head_to_token)(ferrum_context_t *ctx, const ferrum_buffer_t *src,
                                               ferrum_buffer_t *dst, uint32_t tokens,
                                               uint32_t heads, uint32_t dim, ferrum_error_t *err);
    /** [tokens, heads, dim] to [heads, tokens, dim]. */
    ferrum_status_t (*transpose_token_to_head)(ferrum_context_t *ctx, const ferrum_buffer_t *src,
                                               ferrum_buffer_t *dst, uint32_t tokens,
                                               uint32_t heads, uint32_t dim, ferrum_error_t *err);
    /** `r += x` over len elements, act. */
    ferrum_status_t (*add_inplace)(ferrum_context_t *ctx, ferrum_buffer_t *r,
                                   const ferrum_buffer_t *x, uint64_t len, ferrum_error_t *err);
    /** `dst += s * src` over len elements, act. */
    ferrum_status_t (*scaled_add_inplace)(ferrum_context_t *ctx, ferrum_buffer_t *dst,
                                          const ferrum_buffer_t *src, float s, uint64_t len,
                                          ferrum_error_t *err);
    /** `x *= s` over len elements, act. */
    ferrum_status_t (*scale_inplace)(ferrum_context_t *ctx, ferrum_buffer_t *x, float s,
                                     uint64_t len, ferrum_error_t *err);
    /** `data[r,c] += bias[c]`; data act [rows,cols], bias act or f32 [cols]. */
    ferrum_status_t (*add_bias)(ferrum_context_t *ctx, ferrum_buffer_t *data,
                                const ferrum_buffer_t *bias, uint32_t rows, uint32_t cols,
                                ferrum_error_t *err);
    /** Index of the largest of each row of act [m,n]; the lowest index wins a tie; NaN loses to
     *  every number. out_ids: host u32 [m]; waits for the context. */
    ferrum_status_t (*argmax_rows)(ferrum_context_t *ctx, const ferrum_buffer_t *logits, uint32_t m,
                                   uint32_t n, uint32_t *out_ids, ferrum_error_t *err);
    /** Same over ids whose mask bit is set: mask u32 [ceil(n/32)], bit i%32 of word i/32, shared by
     *  all rows. INVALID_INPUT when no bit below n is set. */
    ferrum_status_t (*argmax_rows_masked)(ferrum_context_t *ctx, const ferrum_buffer_t *logits,
                                          const ferrum_buffer_t *mask, uint32_t m, uint32_t n,
                                          uint32_t *out_ids, ferrum_error_t *err);
    /**
     * Repetition penalty, then (masked) argmax. For row r and each id in
     * `token_ids[row_offsets[r] .. row_offsets[r+1])` (host arrays, distinct within a row): a
     * positive logit is divided by penalties[r], a negative one multiplied by it, in place.
     * mask may be NULL.
     */
    ferrum_status_t (*argmax_rows_repetition_penalty)(
        ferrum_context_t *ctx, ferrum_buffer_t *logits, const ferrum_buffer_t *mask,
        const uint32_t *row_offsets, const uint32_t *token_ids, const float *penalties, uint32_t m,
        uint32_t n, uint32_t *out_ids, ferrum_error_t *err);
} ferrum_backend_ops_t;

/** Frozen least size of ferrum_backend_ops_t: the head and the entries up to buffer_copy. */
#define FERRUM_BACKEND_OPS_MIN_SIZE 248u

#ifdef __cplusplus
}
#endif

#endif /* FERRUM_BACKEND_H */
