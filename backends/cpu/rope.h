/* SPDX-License-Identifier: MIT */
/**
 * @file rope.h
 * @brief Norm and rotation of head vectors, and the job that takes qkv rows apart.
 */
#ifndef FERRUM_CPU_ROPE_H
#define FERRUM_CPU_ROPE_H

#include "backends/cpu/paged_kv.h"
#include "backends/cpu/parallel.h"

/** Parameters of a caller's ferrum_rope_t, checked. */
typedef struct ferrum_cpu_rope {
    const ferrum_vector_ops_t *vector;
    const float *q_norm;
    const float *k_norm;
    const float *cos;
    const float *sin;
    float eps;
    ferrum_rope_mode_t mode;
    uint32_t head_dim;
} ferrum_cpu_rope_t;

/** Check for heads of @p head_dim at positions below @p positions; @p with_k: keys too. */
ferrum_status_t ferrum_cpu_rope_from(const char *function, const ferrum_context_t *ctx,
                                     const ferrum_rope_t *rope, uint32_t head_dim,
                                     uint64_t positions, bool with_k, ferrum_cpu_rope_t *out_rope,
                                     ferrum_error_t *err);

/** out = norm and rotation of @p in at @p position; @p norm is rope->q_norm or k_norm. */
void ferrum_cpu_rope_head(const ferrum_cpu_rope_t *rope, const float *in, const float *norm,
                          uint32_t position, float *out);

/** qkv rows of one or several sequences into q and a cache. */
typedef struct ferrum_cpu_qkv_job {
    ferrum_cpu_rope_t rope;
    const float *qkv; /**< [tokens, (q_heads + 2*kv_heads)*head_dim] */
    float *q;
    bool q_token_major; /**< else [q_heads, tokens, head_dim] */
    uint32_t q_heads;
    uint32_t tokens;
    ferrum_cpu_kv_pool_t pool;
    const int32_t *tables; /**< [sequences, table_stride] */
    uint32_t table_stride;
    const int32_t *cu_seqlens; /**< [sequences + 1], NULL: one sequence */
    uint32_t sequences;
    const int32_t *rope_start;  /**< [sequences] position of a sequence's first token */
    const int32_t *cache_start; /**< [sequences] where its keys go */
    float *scratch;             /**< [width, head_dim] */
} ferrum_cpu_qkv_job_t;

/** Run a checked job; may fail for want of scratch only, before anything is written. */
ferrum_status_t ferrum_cpu_qkv_run(ferrum_context_t *ctx, ferrum_cpu_qkv_job_t *job,
                                   ferrum_error_t *err);

#endif /* FERRUM_CPU_ROPE_H */
