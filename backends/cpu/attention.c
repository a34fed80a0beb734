/* SPDX-License-Identifier: MIT */
#include "backends/cpu/attention.h"
#include "backends/cpu/entries.h"

ferrum_status_t ferrum_cpu_attention_config(const char *function,
                                            const ferrum_attn_config_t *config, uint32_t kv_heads,
                                            uint32_t head_dim, ferrum_cpu_attention_t *attention,
                                            ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_check_struct(function, "config", config, FERRUM_ATTN_CONFIG_MIN_SIZE, err));
    if (config->num_kv_heads != kv_heads || config->head_dim != head_dim)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_HEAD_DIM,
                           "%s: config has %u kv heads of %u, the cache %u of %u",
                           ferrum_op_name(function), config->num_kv_heads, config->head_dim,
                           kv_heads, head_dim);
    if (kv_heads == 0 || head_dim == 0 || config->num_heads % kv_heads != 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_HEAD_DIM,
                           "%s: %u heads do not divide over %u kv heads of %u",
                           ferrum_op_name(function), config->num_heads, kv_heads, head_dim);
    attention->heads = config->num_heads;
    attention->scale = config->scale;
    attention->window = config->sliding_window;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_attention_new_queries(ferrum_context_t *ctx,
                                                 ferrum_cpu_attention_t *attention, uint64_t count,
                                                 ferrum_error_t *err)
{
    if (count > UINT32_MAX)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                           "%llu queries are too many for one call", (unsigned long long)count);
    attention->queries =
        ferrum_cpu_scratch(ctx, FERRUM_CPU_SCRATCH_OFFSETS, count, sizeof *attention->queries, err);
    attention->query_count = (uint32_t)count;
    return attention->queries ? FERRUM_OK : FERRUM_OUT_OF_MEMORY;
}

void ferrum_cpu_attention_set_query(ferrum_cpu_attention_t *attention, uint32_t index,
                                    uint32_t sequence, uint32_t keys)
{
    const uint32_t window = attention->window;
    attention->queries[index] =
        (ferrum_cpu_query_t){sequence, window && keys > window ? keys - window : 0, keys};
}

void ferrum_cpu_attention_token_major(ferrum_cpu_attention_t *attention)
{
    attention->group = 1;
    attention->group_stride = (size_t)attention->heads * attention->pool.head_dim;
    attention->head_stride = attention->pool.head_dim;
}

void ferrum_cpu_attention_head_major(ferrum_cpu_attention_t *attention, uint32_t q_len)
{
    attention->group = q_len;
    attention->query_stride = attention->pool.head_dim;
    attention->head_stride = (size_t)q_len * attention->pool.head_dim;
    attention->group_stride = attention->heads * attention->head_stride;
}

ferrum_status_t ferrum_cpu_attention_check_blocks(const char *function,
                                                  const ferrum_cpu_attention_t *attention,
                                                  uint32_t max_blocks, ferrum_error_t *err)
{
    const ferrum_cpu_query_t *queries = attention->queries;
    uint32_t first, last;

    /* Successive queries of a sequence see ever later positions: check each run of them once. */
    for (first = 0; first < attention->query_count; first = last) {
        const uint32_t sequence = queries[first].sequence;
        for (last = first + 1; last < attention->query_count && queries[last].sequence == sequence;)
            last++;
        const uint32_t end = queries[last - 1].end;
        FERRUM_TRY(
            ferrum_cpu_check_blocks(function, &attention->pool,
                                    attention->tables + (size_t)sequence * attention->table_stride,
                                    max_blocks, queries[first].first, end, err));
    }
    return FERRUM_OK;
}

static void attend(void *arg, uint64_t item, uint32_t thread)
{
    const ferrum_cpu_attention_t *a = arg;
    const ferrum_cpu_kv_pool_t *pool = &a->pool;
    const uint32_t index = (uint32_t)(item / a->heads), head = (uint32_t)(item % a->heads);
    const uint32_t kv_head = head / (a->heads / pool->kv_heads), dim = pool->head_dim;
    const ferrum_cpu_query_t query = a->queries[index];
    const uint32_t keys = query.end - query.first;
    const int32_t *table = a->tables + (size_t)query.sequence * a->table_stride;
    const size_t place = index / a->group * a->group_stride + index % a->group * a->query_stride +
                         head * a->head_stride;
    float *logits = a->scratch + thread * a->scratch_stride;
    float *temporary = logits + a->scratch_stride - dim;
    float *out = a->out + place;

    for (uint32_t i = 0; i < keys; i++) {
        const float *key = ferrum_cpu_kv_load(
            pool->k, ferrum_cpu_kv_place(pool, table, query.first + i, kv_head, false), dim,
            temporary);
        logits[i] = a->vector->dot(a->q + place, key, dim) * a->scale;
    }
    const float sum = keys > 0 ? a->vector->exp_sum(logits, keys) : 0.0f;
    memset(out, 0, dim * sizeof *out);
    for (uint32_t i = 0; i < keys; i++) {
        const float *value = ferrum_cpu_kv_load(
            pool->v, ferrum_cpu_kv_place(pool, table, query.first + i, kv_head, true), dim,
            temporary);
        a->vector->axpy(logits[i], value, out, dim);
    }
    if (sum != 0.0f)
        a->vector->scale(1.0f / sum, out, dim);
}

ferrum_status_t ferrum_cpu_attention_run(ferrum_context_t *ctx, ferrum_cpu_attention_t *attention,
                                         ferrum_error_t *err)
{
    uint64_t most = attention->capacity;

    for (uint32_t i = 0; i < attention->query_count; i++) {
        const ferrum_cpu_query_t *query = &attention->queries[i];
        most = query->end - query->first > most ? query->end - query->first : most;
    }
    attention->vector = ferrum_cpu_vector(ctx);
    attention->scratch_stride = (size_t)(most + attention->pool.head_dim);
    attention->scratch = ferrum_cpu_scratch(ctx, FERRUM_CPU_SCRATCH_THREADS,
                                            ferrum_size_mul(ctx->width, attention->scratch_stride),
                                            sizeof *attention->scratch, err);
    if (!attention->scratch)
        return FERRUM_OUT_OF_MEMORY;
    ferrum_cpu_for_each(ctx, (uint64_t)attention->query_count * attention->heads, attend,
                        attention);
    return FERRUM_OK;
}

/** Caches as a pool whose blocks are whole rows of the batch; the table counts them. */
static ferrum_status_t contiguous_pool(ferrum_context_t *ctx, const ferrum_attn_config_t *config,
                                       const ferrum_buffer_t *k, const ferrum_buffer_t *v,
                                       uint32_t batch, uint32_t stride,
                                       ferrum_cpu_attention_t *attention, ferrum_error_t *err)
{
    attention->pool = (ferrum_cpu_kv_pool_t){.k = ferrum_cpu_f32(k),
                                             .v = ferrum_cpu_f32(v),
                                             .layout = FERRUM_KV_LAYOUT_FA,
                                             .num_blocks = batch,
                                             .block_size = stride,
                                             .kv_heads = config->num_kv_heads,
                                             .head_dim = config->head_dim};
    int32_t *table = ferrum_cpu_scratch(ctx, FERRUM_CPU_SCRATCH_COUNTS, batch, sizeof *table, err);
    if (!table)
        return FERRUM_OUT_OF_MEMORY;
    for (uint32_t b = 0; b < batch; b++)
        table[b] = (int32_t)b;
    attention->tables = table;
    attention->table_stride = 1;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_flash_attention(ferrum_context_t *ctx, const ferrum_buffer_t *q,
                                           const ferrum_buffer_t *k, const ferrum_buffer_t *v,
                                           ferrum_buffer_t *out, uint32_t batch, uint32_t q_len,
                                           uint32_t kv_len, uint32_t pos_offset,
                                           const ferrum_attn_config_t *config, ferrum_error_t *err)
{
    ferrum_cpu_attention_t attention = {0};

    FERRUM_CHECK_STRUCT(config, FERRUM_ATTN_CONFIG_MIN_SIZE, err);
    FERRUM_TRY(ferrum_cpu_attention_config(__func__, config, config->num_kv_heads, config->head_dim,
                                           &attention, err));
    const uint32_t stride = config->kv_seq_stride ? config->kv_seq_stride : kv_len;
    const uint64_t q_count =
        ferrum_size_mul(ferrum_size_mul3(batch, config->num_heads, q_len), config->head_dim);
    const uint64_t kv_count =
        ferrum_size_mul(ferrum_size_mul3(batch, config->num_kv_heads, stride), config->head_dim);
    FERRUM_CPU_CHECK(
        ctx, err, {"q", q, FERRUM_DTYPE_F32, 0, q_count}, {"k", k, FERRUM_DTYPE_F32, 0, kv_count},
        {"v", v, FERRUM_DTYPE_F32, 0, kv_count}, {"out", out, FERRUM_DTYPE_F32, 0, q_count});
    if (kv_len > stride)
        return FERRUM_REFUSE(err, FERRUM_REASON_LENGTH, "kv_len %u exceeds kv_seq_stride %u",
                             kv_len, stride);
    if (q_count == 0)
        return FERRUM_OK;
    FERRUM_TRY(contiguous_pool(ctx, config, k, v, batch, stride, &attention, err));
    FERRUM_TRY(
        ferrum_cpu_attention_new_queries(ctx, &attention, ferrum_size_mul(batch, q_len), err));
    for (uint32_t i = 0; i < attention.query_count; i++) {
        const uint64_t past = (uint64_t)pos_offset + i % q_len + 1;
        const bool hidden = config->causal && past < kv_len;
        ferrum_cpu_attention_set_query(&attention, i, i / q_len, hidden ? (uint32_t)past : kv_len);
    }
    attention.q = ferrum_cpu_f32(q);
    attention.out = ferrum_cpu_f32(out);
    attention.capacity = stride;
    ferrum_cpu_attention_head_major(&attention, q_len);
    return ferrum_cpu_attention_run(ctx, &attention, err);
}
