/* SPDX-License-Identifier: MIT */
#include "backends/cpu/rope.h"

ferrum_status_t ferrum_cpu_rope_from(const char *function, const ferrum_context_t *ctx,
                                     const ferrum_rope_t *rope, uint32_t head_dim,
                                     uint64_t positions, bool with_k, ferrum_cpu_rope_t *out_rope,
                                     ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_check_struct(function, "rope", rope, FERRUM_ROPE_MIN_SIZE, err));
    if (rope->mode > FERRUM_ROPE_INTERLEAVED)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OTHER,
                           "%s: unknown rope mode %u", ferrum_op_name(function), rope->mode);
    const bool rotates = rope->mode != FERRUM_ROPE_NONE;
    const bool normed = rope->mode == FERRUM_ROPE_NORM_HALF;
    if (rotates && head_dim % 2 != 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_HEAD_DIM,
                           "%s: head_dim %u is odd and cannot be rotated", ferrum_op_name(function),
                           head_dim);

    ferrum_cpu_operand_t operands[4];
    size_t count = 0;
    const uint64_t angles = ferrum_size_mul(positions, head_dim / 2);
    if (rotates) {
        operands[count++] = (ferrum_cpu_operand_t){"cos", rope->cos, FERRUM_DTYPE_F32, 0, angles};
        operands[count++] = (ferrum_cpu_operand_t){"sin", rope->sin, FERRUM_DTYPE_F32, 0, angles};
    }
    if (normed)
        operands[count++] =
            (ferrum_cpu_operand_t){"q_norm", rope->q_norm, FERRUM_DTYPE_F32, 0, head_dim};
    if (normed && with_k)
        operands[count++] =
            (ferrum_cpu_operand_t){"k_norm", rope->k_norm, FERRUM_DTYPE_F32, 0, head_dim};
    FERRUM_TRY(ferrum_cpu_check_operands(function, ctx, operands, count, err));
    *out_rope = (ferrum_cpu_rope_t){
        .vector = ferrum_cpu_vector(ctx),
        .q_norm = normed ? ferrum_cpu_f32(rope->q_norm) : NULL,
        .k_norm = normed && with_k ? ferrum_cpu_f32(rope->k_norm) : NULL,
        .cos = rotates ? ferrum_cpu_f32(rope->cos) : NULL,
        .sin = rotates ? ferrum_cpu_f32(rope->sin) : NULL,
        .eps = rope->eps,
        .mode = rope->mode,
        .head_dim = head_dim,
    };
    return FERRUM_OK;
}

void ferrum_cpu_rope_head(const ferrum_cpu_rope_t *rope, const float *in, const float *norm,
                          uint32_t position, float *out)
{
    const uint32_t half = rope->head_dim / 2;

    if (norm)
        rope->vector->rms_norm(in, norm, rope->eps, out, rope->head_dim);
    else
        memcpy(out, in, rope->head_dim * sizeof *out);
    if (rope->mode == FERRUM_ROPE_NONE)
        return;

    /* Partners lie half a vector apart, or next to each other. */
    const bool interleaved = rope->mode == FERRUM_ROPE_INTERLEAVED;
    const uint32_t step = interleaved ? 2 : 1, apart = interleaved ? 1 : half;
    const float *cos = rope->cos + (size_t)position * half;
    const float *sin = rope->sin + (size_t)position * half;
    for (uint32_t i = 0; i < half; i++) {
        const float a = out[i * step], b = out[i * step + apart];
        out[i * step] = a * cos[i] - b * sin[i];
        out[i * step + apart] = b * cos[i] + a * sin[i];
    }
}

/** Sequence that token @p token belongs to. */
static uint32_t sequence_of(const ferrum_cpu_qkv_job_t *job, uint32_t token)
{
    uint32_t low = 0, high = job->sequences;

    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if ((uint32_t)job->cu_seqlens[middle] <= token)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void qkv_token(void *arg, uint64_t item, uint32_t thread)
{
    const ferrum_cpu_qkv_job_t *job = arg;
    const ferrum_cpu_kv_pool_t *pool = &job->pool;
    const uint32_t token = (uint32_t)item, dim = pool->head_dim;
    const uint32_t s = job->cu_seqlens ? sequence_of(job, token) : 0;
    const uint32_t local = token - (job->cu_seqlens ? (uint32_t)job->cu_seqlens[s] : 0);
    const uint32_t angle = (uint32_t)job->rope_start[s] + local;
    const uint32_t position = (uint32_t)job->cache_start[s] + local;
    const int32_t *table = job->tables + (size_t)s * job->table_stride;
    float *key = job->scratch + (size_t)thread * dim;
    const float *in = job->qkv + (size_t)token * (job->q_heads + 2 * (size_t)pool->kv_heads) * dim;

    for (uint32_t h = 0; h < job->q_heads; h++, in += dim) {
        const size_t row =
            job->q_token_major ? (size_t)token * job->q_heads + h : (size_t)h * job->tokens + token;
        ferrum_cpu_rope_head(&job->rope, in, job->rope.q_norm, angle, job->q + row * dim);
    }
    for (uint32_t h = 0; h < pool->kv_heads; h++, in += dim) {
        ferrum_cpu_rope_head(&job->rope, in, job->rope.k_norm, angle, key);
        ferrum_cpu_kv_store(pool->k, ferrum_cpu_kv_place(pool, table, position, h, false), dim,
                            key);
        ferrum_cpu_kv_store(pool->v, ferrum_cpu_kv_place(pool, table, position, h, true), dim,
                            in + (size_t)pool->kv_heads * dim);
    }
}

ferrum_status_t ferrum_cpu_qkv_run(ferrum_context_t *ctx, ferrum_cpu_qkv_job_t *job,
                                   ferrum_error_t *err)
{
    job->scratch = ferrum_cpu_scratch(ctx, FERRUM_CPU_SCRATCH_THREADS,
                                      ferrum_size_mul(ctx->width, job->pool.head_dim),
                                      sizeof *job->scratch, err);
    if (!job->scratch)
        return FERRUM_OUT_OF_MEMORY;
    ferrum_cpu_for_each(ctx, job->tokens, qkv_token, job);
    return FERRUM_OK;
}
