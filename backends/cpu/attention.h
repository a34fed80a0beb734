/* SPDX-License-Identifier: MIT */
/**
 * @file attention.h
 * @brief Attention of queries over cached keys, the one loop behind all attention ops.
 *
 * Per (query, head): logits of all visible keys, softmax, weighted sum of values in order of
 * position, then the division by the sum. Nothing depends on the other queries of the batch.
 */
#ifndef FERRUM_CPU_ATTENTION_H
#define FERRUM_CPU_ATTENTION_H

#include "backends/cpu/paged_kv.h"
#include "backends/cpu/parallel.h"

/** One query: whose cache it sees, and which positions [first, end) of it. */
typedef struct ferrum_cpu_query {
    uint32_t sequence;
    uint32_t first;
    uint32_t end;
} ferrum_cpu_query_t;

/** A batch of queries. Query i of head h lies at
 *  `i / group * group_stride + i % group * query_stride + h * head_stride` of q and out. */
typedef struct ferrum_cpu_attention {
    const ferrum_vector_ops_t *vector;
    ferrum_cpu_kv_pool_t pool;
    const int32_t *tables; /**< [sequences, table_stride] */
    uint32_t table_stride;
    const float *q;
    float *out;
    uint32_t heads;
    float scale;
    uint32_t window;   /**< most keys that a query sees, the last ones; 0: all */
    uint64_t capacity; /**< keys that a sequence can grow to: sizes scratch once and for all */
    uint32_t group;
    size_t group_stride;
    size_t query_stride;
    size_t head_stride;
    ferrum_cpu_query_t *queries;
    uint32_t query_count;
    float *scratch; /**< per thread: logits, then room for a key or value */
    size_t scratch_stride;
} ferrum_cpu_attention_t;

/** The geometry agrees with itself and with the cache; fills heads, scale and window. */
ferrum_status_t ferrum_cpu_attention_config(const char *function,
                                            const ferrum_attn_config_t *config, uint32_t kv_heads,
                                            uint32_t head_dim, ferrum_cpu_attention_t *attention,
                                            ferrum_error_t *err);

/** Room for @p count queries, in the OFFSETS scratch. */
ferrum_status_t ferrum_cpu_attention_new_queries(ferrum_context_t *ctx,
                                                 ferrum_cpu_attention_t *attention, uint64_t count,
                                                 ferrum_error_t *err);

/** Positions [.., @p keys) of @p sequence for query @p index, less what the window hides. */
void ferrum_cpu_attention_set_query(ferrum_cpu_attention_t *attention, uint32_t index,
                                    uint32_t sequence, uint32_t keys);

/** Queries and outputs token-major [tokens, heads, head_dim]. */
void ferrum_cpu_attention_token_major(ferrum_cpu_attention_t *attention);

/** Queries and outputs head-major [batch, heads, q_len, head_dim]. */
void ferrum_cpu_attention_head_major(ferrum_cpu_attention_t *attention, uint32_t q_len);

/** Blocks that queries see exist; INVALID_INPUT if not. @p max_blocks: entries per table. */
ferrum_status_t ferrum_cpu_attention_check_blocks(const char *function,
                                                  const ferrum_cpu_attention_t *attention,
                                                  uint32_t max_blocks, ferrum_error_t *err);

/** Run a checked batch; may fail for want of scratch only, before anything is written. */
ferrum_status_t ferrum_cpu_attention_run(ferrum_context_t *ctx, ferrum_cpu_attention_t *attention,
                                         ferrum_error_t *err);

#endif /* FERRUM_CPU_ATTENTION_H */
