/* SPDX-License-Identifier: MIT */
/**
 * @file args.h
 * @brief The parameters of the kernels, one struct each, as host (C) and device (C++) see them.
 *
 * Every kernel has exactly one parameter, a struct of this file passed by value; the host fills it
 * and gives it to ferrum_cuda_launch. Counts are elements. "act" is the kernel's activation type.
 */
#ifndef FERRUM_KERNELS_CUDA_ARGS_H
#define FERRUM_KERNELS_CUDA_ARGS_H

#include <stdint.h>

/** An address in device memory; NULL or 0: none. */
#ifdef __cplusplus
typedef void *ferrum_gpu_ptr_t;
#else
typedef unsigned long long ferrum_gpu_ptr_t;
#endif

/** gemm_*: out[m,n] = a[m,k] * b[n,k]^T, all act. */
typedef struct ferrum_gemm_args {
    ferrum_gpu_ptr_t a, b, out;
    uint32_t m, n, k;
    uint32_t reserved;
} ferrum_gemm_args_t;

/** rms_norm: out = norm(x) * w per row of dim; with a residual: residual += x first. */
typedef struct ferrum_rms_norm_args {
    ferrum_gpu_ptr_t x, residual, w, out;
    uint32_t dim;
    uint32_t w_is_f32;
    float eps;
    uint32_t reserved;
} ferrum_rms_norm_args_t;

/** axpby: y = alpha*x + beta*y over count elements, act; x may be 0 (no such term). */
typedef struct ferrum_axpby_args {
    ferrum_gpu_ptr_t x, y;
    uint64_t count;
    float alpha, beta;
} ferrum_axpby_args_t;

/** add_bias: data[r,c] += bias[c]. */
typedef struct ferrum_add_bias_args {
    ferrum_gpu_ptr_t data, bias;
    uint64_t count;
    uint32_t cols;
    uint32_t bias_is_f32;
} ferrum_add_bias_args_t;

/** silu_mul: out[t,i] = silu(gate_up[t,i]) * gate_up[t,I+i]. */
typedef struct ferrum_silu_mul_args {
    ferrum_gpu_ptr_t gate_up, out;
    uint64_t count; /**< tokens * I */
    uint32_t intermediate;
    uint32_t reserved;
} ferrum_silu_mul_args_t;

/** lookup: out[i,:] = table[ids[i],:], zeros for an id out of range. */
typedef struct ferrum_lookup_args {
    ferrum_gpu_ptr_t table, ids, out;
    uint64_t rows;
    uint32_t dim;
    uint32_t table_dtype; /**< ferrum_dtype_t: 0 f32, 1 f16, 2 bf16 */
} ferrum_lookup_args_t;

/** penalise: repetition penalties, in place; one block per row. */
typedef struct ferrum_penalise_args {
    ferrum_gpu_ptr_t logits;
    ferrum_gpu_ptr_t row_offsets; /**< u32 [m+1] */
    ferrum_gpu_ptr_t token_ids;   /**< u32 */
    ferrum_gpu_ptr_t penalties;   /**< f32 [m] */
    uint32_t n;
    uint32_t reserved;
} ferrum_penalise_args_t;

/** argmax: ids[r] = index of the largest allowed logit of row r, or n when none is allowed. */
typedef struct ferrum_argmax_args {
    ferrum_gpu_ptr_t logits;
    ferrum_gpu_ptr_t mask; /**< u32, bit i%32 of word i/32; 0: all */
    ferrum_gpu_ptr_t ids;  /**< u32 [m] */
    uint32_t n;
    uint32_t reserved;
} ferrum_argmax_args_t;

/** One strided copy of rows of 16-bit elements: dst[i,j,0..dim) = src[i,j,0..dim). */
typedef struct ferrum_move {
    ferrum_gpu_ptr_t src, dst;
    uint64_t src_i, src_j; /**< strides in elements */
    uint64_t dst_i, dst_j;
    uint32_t count_j;
    uint32_t dim;
    uint64_t count; /**< elements in all */
} ferrum_move_t;

/** move: up to three such copies in one launch, one per block_y. */
typedef struct ferrum_move_args {
    ferrum_move_t moves[3];
} ferrum_move_args_t;

/**
 * A KV cache. Element d of the vector of `position` lies in block table[position / block_size] (of
 * the sequence's row of tables, or the sequence's own number when there are no tables).
 */
typedef struct ferrum_kv_args {
    ferrum_gpu_ptr_t k, v;   /**< act */
    ferrum_gpu_ptr_t tables; /**< i32 [sequences, table_stride], or 0 */
    uint32_t table_stride;   /**< also: most blocks of a sequence */
    uint32_t num_blocks;
    uint32_t block_size;
    uint32_t kv_heads;
    uint32_t head_dim;
    uint32_t layout; /**< ferrum_kv_layout_t */
} ferrum_kv_args_t;

/**
 * qkv_norm_rope: rows act [tokens, (q_heads + k_heads + v_heads)*head_dim] apart; q and k are
 * normed and rotated, v is only moved. k_heads and v_heads are kv.kv_heads or 0.
 */
typedef struct ferrum_qkv_args {
    ferrum_gpu_ptr_t qkv, q;
    ferrum_gpu_ptr_t q_norm, k_norm; /**< or 0 */
    ferrum_gpu_ptr_t cos, sin;       /**< f32 [angles, head_dim/2] */
    ferrum_gpu_ptr_t cu_seqlens;     /**< i32 [sequences+1]; 0: one sequence */
    ferrum_gpu_ptr_t pos_offsets;    /**< i32 [sequences], with cu_seqlens */
    ferrum_gpu_ptr_t step;           /**< u32, replaces rope_start and cache_start; or 0 */
    ferrum_kv_args_t kv;
    uint32_t tokens, sequences;
    uint32_t q_heads;
    uint32_t has_kv;
    uint32_t q_token_major; /**< else [q_heads, tokens, head_dim] */
    uint32_t rope_start, cache_start;
    uint32_t angles; /**< rows of cos and sin */
    uint32_t mode;   /**< ferrum_rope_mode_t */
    uint32_t norm_is_f32;
    float eps;
    uint32_t reserved;
} ferrum_qkv_args_t;

/** Which keys a query sees. */
enum {
    FERRUM_VISIBLE_CONTIGUOUS =
        0,                      /**< sequence i / q_len; kv_len keys, causal from pos_offset on */
    FERRUM_VISIBLE_LENGTHS = 1, /**< sequence i / q_len; the last q_len of lengths[s] */
    FERRUM_VISIBLE_VARLEN = 2   /**< by cu_seqlens and pos_offsets */
};

enum {
    FERRUM_ATTENTION_SPLIT_KEYS = 256, /**< least keys of a split */
    FERRUM_ATTENTION_MOST_SPLITS = 32, /**< per query: a split of a longer one has more keys */
    FERRUM_ATTENTION_STATE = 2         /**< floats behind a partial row: maximum, sum */
};

/** attention*: softmax(q k^T * scale) v per (query, head). */
typedef struct ferrum_attention_args {
    ferrum_gpu_ptr_t q, out;
    ferrum_gpu_ptr_t partial;     /**< decode: f32 [queries, heads, splits, head_dim + STATE] */
    ferrum_gpu_ptr_t tickets;     /**< decode: u32 [queries, grid y]: 0 before and after */
    ferrum_gpu_ptr_t lengths;     /**< i32 [sequences]: LENGTHS, or cu_seqlens [sequences+1] */
    ferrum_gpu_ptr_t pos_offsets; /**< i32 [sequences]: VARLEN */
    ferrum_gpu_ptr_t step;        /**< u32, replaces pos_offset; or 0 */
    ferrum_kv_args_t kv;
    uint64_t group_stride; /**< query i: (i / q_len)*group_stride + (i % q_len)*query_stride */
    uint64_t query_stride;
    uint64_t head_stride;
    uint32_t heads;
    uint32_t visible; /**< FERRUM_VISIBLE_* */
    uint32_t q_len, sequences;
    uint32_t kv_len, pos_offset, causal;
    uint32_t window; /**< 0: all */
    float scale;
    uint32_t splits;  /**< decode: grid z */
    uint32_t queries; /**< rows of q for each head */
    uint32_t reserved;
} ferrum_attention_args_t;

#endif
