/* SPDX-License-Identifier: MIT */
/* Norm and rotation of projected heads, into head-major buffers or a contiguous cache. */
#include "backends/cpu/entries.h"
#include "backends/cpu/rope.h"

/** Argument of the loop over (token, head). */
typedef struct heads_job {
    ferrum_cpu_rope_t rope;
    const float *in;
    float *out;
    uint32_t tokens;
    uint32_t heads;
    uint32_t pos;
} heads_job_t;

static void rope_token(void *arg, uint64_t token, uint32_t thread)
{
    const heads_job_t *job = arg;
    const size_t dim = job->rope.head_dim;

    for (size_t h = 0; h < job->heads; h++)
        ferrum_cpu_rope_head(&job->rope, job->in + (token * job->heads + h) * dim, job->rope.q_norm,
                             job->pos + (uint32_t)token,
                             job->out + (h * job->tokens + token) * dim);
}

ferrum_status_t ferrum_cpu_qk_norm_rope(ferrum_context_t *ctx, const ferrum_buffer_t *in,
                                        const ferrum_rope_t *rope, ferrum_buffer_t *out,
                                        uint32_t tokens, uint32_t heads, uint32_t head_dim,
                                        uint32_t pos, ferrum_error_t *err)
{
    const uint64_t count = ferrum_size_mul3(tokens, heads, head_dim);
    heads_job_t job = {.tokens = tokens, .heads = heads, .pos = pos};

    FERRUM_CPU_CHECK(ctx, err, {"in", in, FERRUM_DTYPE_F32, 0, count},
                     {"out", out, FERRUM_DTYPE_F32, 0, count});
    FERRUM_TRY(ferrum_cpu_rope_from(__func__, ctx, rope, head_dim, (uint64_t)pos + tokens, false,
                                    &job.rope, err));
    job.in = ferrum_cpu_f32(in);
    job.out = ferrum_cpu_f32(out);
    ferrum_cpu_for_each(ctx, tokens, rope_token, &job);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_split_qkv_norm_rope_into_cache(
    ferrum_context_t *ctx, const ferrum_buffer_t *qkv, const ferrum_rope_t *rope,
    ferrum_buffer_t *q_out, ferrum_buffer_t *cache_k, ferrum_buffer_t *cache_v, uint32_t tokens,
    uint32_t q_heads, uint32_t kv_heads, uint32_t head_dim, uint32_t pos, uint32_t cache_len,
    uint32_t cache_capacity, ferrum_error_t *err)
{
    const uint64_t heads = q_heads + 2 * (uint64_t)kv_heads;
    const uint64_t cache_count = ferrum_size_mul3(kv_heads, cache_capacity, head_dim);
    const int32_t table = 0, rope_start = (int32_t)pos, cache_start = (int32_t)cache_len;

    FERRUM_CPU_CHECK(
        ctx, err, {"qkv", qkv, FERRUM_DTYPE_F32, 0, ferrum_size_mul3(tokens, heads, head_dim)},
        {"q_out", q_out, FERRUM_DTYPE_F32, 0, ferrum_size_mul3(tokens, q_heads, head_dim)},
        {"the key cache", cache_k, FERRUM_DTYPE_F32, 0, cache_count},
        {"the value cache", cache_v, FERRUM_DTYPE_F32, 0, cache_count});
    if ((uint64_t)cache_len + tokens > cache_capacity)
        return FERRUM_REFUSE(err, FERRUM_REASON_LENGTH,
                             "%u positions from %u on exceed the capacity of %u", tokens, cache_len,
                             cache_capacity);
    ferrum_cpu_qkv_job_t job = {
        .qkv = ferrum_cpu_f32(qkv),
        .q = ferrum_cpu_f32(q_out),
        .q_heads = q_heads,
        .tokens = tokens,
        .pool = {.k = ferrum_cpu_f32(cache_k),
                 .v = ferrum_cpu_f32(cache_v),
                 .layout = FERRUM_KV_LAYOUT_FA,
                 .num_blocks = 1,
                 .block_size = cache_capacity,
                 .kv_heads = kv_heads,
                 .head_dim = head_dim},
        .tables = &table,
        .sequences = 1,
        .rope_start = &rope_start,
        .cache_start = &cache_start,
    };
    FERRUM_TRY(ferrum_cpu_rope_from(__func__, ctx, rope, head_dim, (uint64_t)pos + tokens, true,
                                    &job.rope, err));
    return ferrum_cpu_qkv_run(ctx, &job, err);
}

ferrum_status_t ferrum_cpu_split_qkv_norm_rope(ferrum_context_t *ctx, const ferrum_buffer_t *qkv,
                                               const ferrum_rope_t *rope, ferrum_buffer_t *q_out,
                                               ferrum_buffer_t *k_out, ferrum_buffer_t *v_out,
                                               uint32_t tokens, uint32_t q_heads, uint32_t kv_heads,
                                               uint32_t head_dim, uint32_t pos, ferrum_error_t *err)
{
    /* Head-major outputs of `tokens` rows are a cache of that capacity, filled from the start. */
    return ferrum_cpu_split_qkv_norm_rope_into_cache(ctx, qkv, rope, q_out, k_out, v_out, tokens,
                                                     q_heads, kv_heads, head_dim, pos, 0, tokens,
                                                     err);
}
