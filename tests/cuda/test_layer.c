/* SPDX-License-Identifier: MIT */
/*
 * A whole decoder layer, attention and experts, as a graph that serves every batch up to its bucket
 * of tokens: a replay with fewer tokens than that gives the bits that the layer gives when it is
 * run for these tokens alone, in its output and in the cache.
 */
#include "tests/cuda/layers.h"

#include <math.h>
#include <stdlib.h>

enum {
    HIDDEN = 128,
    HEADS = 4,
    KV_HEADS = 2,
    DIM = 64,
    QKV = (HEADS + 2 * KV_HEADS) * DIM,
    EXPERTS = 6,
    TOP_K = 2,
    BLOCK = 16,
    BLOCKS_EACH = 4, /* per sequence */
    MOST_SEQUENCES = 4,
    POOL = (MOST_SEQUENCES * BLOCKS_EACH + 1) * KV_HEADS * BLOCK * DIM,
    MOST_TOKENS = 32
};

/** What is run together: for decode a token per sequence. */
typedef struct batch {
    uint32_t tokens, sequences;
    bool decode;
    int32_t counts[MOST_SEQUENCES], positions[MOST_SEQUENCES];
} batch_t;

typedef struct model {
    layer_t weights;
    ferrum_expert_ffn_t *ffn;
    ferrum_buffer_t *residual, *norm, *qkv, *q, *attention, *projected, *logits, *ids, *scores,
        *moe;
    ferrum_buffer_t *norm_w, *qkv_w, *out_w, *router_w, *cos, *sin;
    ferrum_buffer_t *starts, *positions, *lengths, *tables;
    ferrum_paged_kv_t kv;
    uint32_t tokens, sequences; /**< what the step is run for: those of the bucket */
    bool decode;
} model_t;

static float *wave(size_t count, float scale, uint32_t seed)
{
    float *values = calloc(count, sizeof *values);

    ck_assert_ptr_nonnull(values);
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        values[i] = scale * ((float)(seed >> 8) / (float)(1 << 23) - 1.0f);
    }
    return values;
}

static ferrum_buffer_t *random_buffer(ferrum_dtype_t dtype, uint64_t count, float scale,
                                      uint32_t seed)
{
    ferrum_buffer_t *buffer;
    float *values = wave(count, scale, seed);

    EXPECT_OK(cuda.be->buffer_alloc(cuda.device, dtype, count, &buffer, &err));
    EXPECT_OK(cuda.be->buffer_write_f32(cuda.ctx, buffer, 0, values, count, &err));
    free(values);
    return buffer;
}

static void model_open(model_t *m, bool gptq)
{
    const layer_shape_t shape = {gptq, EXPERTS, HIDDEN, 64, TOP_K};
    const ferrum_dtype_t act = FERRUM_DTYPE_F16;
    int32_t table[MOST_SEQUENCES * BLOCKS_EACH];

    *m = (model_t){0};
    cuda_open();
    layer_make(&m->weights, &shape);
    EXPECT_OK(cuda.mf->expert_ffn_create(cuda.device, &m->weights.desc, &m->ffn, &err));
    m->residual = random_buffer(act, MOST_TOKENS * HIDDEN, 1, 1);
    m->norm = random_buffer(act, MOST_TOKENS * HIDDEN, 0, 1);
    m->qkv = random_buffer(act, MOST_TOKENS * QKV, 0, 1);
    m->q = random_buffer(act, MOST_TOKENS * HEADS * DIM, 0, 1);
    m->attention = random_buffer(act, MOST_TOKENS * HEADS * DIM, 0, 1);
    m->projected = random_buffer(act, MOST_TOKENS * HIDDEN, 0, 1);
    m->logits = random_buffer(act, MOST_TOKENS * EXPERTS, 0, 1);
    m->moe = random_buffer(act, MOST_TOKENS * HIDDEN, 0, 1);
    m->scores = random_buffer(FERRUM_DTYPE_F32, MOST_TOKENS * TOP_K, 0, 1);
    m->norm_w = random_buffer(act, HIDDEN, 1, 2);
    m->qkv_w = random_buffer(act, QKV * HIDDEN, 0.2f, 3);
    m->out_w = random_buffer(act, HIDDEN * HEADS * DIM, 0.1f, 4);
    m->router_w = random_buffer(act, EXPERTS * HIDDEN, 0.3f, 5);
    m->cos = random_buffer(FERRUM_DTYPE_F32, BLOCKS_EACH * BLOCK * DIM / 2, 1, 6);
    m->sin = random_buffer(FERRUM_DTYPE_F32, BLOCKS_EACH * BLOCK * DIM / 2, 1, 7);
    for (int i = 0; i < MOST_SEQUENCES * BLOCKS_EACH; i++)
        table[i] = (i * 5 + 3) % (MOST_SEQUENCES * BLOCKS_EACH + 1);
    m->tables = cuda_i32(table, MOST_SEQUENCES * BLOCKS_EACH);
    EXPECT_OK(
        cuda.be->buffer_alloc(cuda.device, FERRUM_DTYPE_I32, MOST_SEQUENCES + 1, &m->starts, &err));
    EXPECT_OK(
        cuda.be->buffer_alloc(cuda.device, FERRUM_DTYPE_I32, MOST_SEQUENCES, &m->positions, &err));
    EXPECT_OK(
        cuda.be->buffer_alloc(cuda.device, FERRUM_DTYPE_I32, MOST_SEQUENCES, &m->lengths, &err));
    EXPECT_OK(
        cuda.be->buffer_alloc(cuda.device, FERRUM_DTYPE_I32, MOST_TOKENS * TOP_K, &m->ids, &err));
    m->kv = (ferrum_paged_kv_t){.head = FERRUM_HEAD(ferrum_paged_kv_t),
                                .pool_k = random_buffer(act, POOL, 1, 8),
                                .pool_v = random_buffer(act, POOL, 1, 9),
                                .num_blocks = MOST_SEQUENCES * BLOCKS_EACH + 1,
                                .block_size = BLOCK,
                                .num_kv_heads = KV_HEADS,
                                .head_dim = DIM,
                                .layout = FERRUM_KV_LAYOUT_VLLM,
                                .max_blocks_per_seq = BLOCKS_EACH};
}

static void model_close(model_t *m)
{
    ferrum_buffer_t *const buffers[] = {
        m->residual, m->norm,     m->qkv,       m->q,        m->attention, m->projected,
        m->logits,   m->ids,      m->scores,    m->moe,      m->norm_w,    m->qkv_w,
        m->out_w,    m->router_w, m->cos,       m->sin,      m->starts,    m->positions,
        m->lengths,  m->tables,   m->kv.pool_k, m->kv.pool_v};

    EXPECT_OK(cuda.be->context_sync(cuda.ctx, &err));
    ck_assert_str_eq(cuda.fault(), "");
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        cuda.be->buffer_release(buffers[i]);
    cuda.mf->expert_ffn_release(m->ffn);
    layer_free(&m->weights);
    cuda_close();
}

static void attend(const model_t *m)
{
    const ferrum_rope_t rope = {
        .head = FERRUM_HEAD(ferrum_rope_t), .cos = m->cos, .sin = m->sin, .mode = FERRUM_ROPE_HALF};
    const ferrum_attn_config_t config = {.head = FERRUM_HEAD(ferrum_attn_config_t),
                                         .num_heads = HEADS,
                                         .num_kv_heads = KV_HEADS,
                                         .head_dim = DIM,
                                         .causal = 1,
                                         .scale = 0.125f};

    EXPECT_OK(cuda.ql->paged_kv_write_varlen(cuda.ctx, m->qkv, &rope, m->q, &m->kv, m->starts,
                                             m->positions, m->tables, m->sequences, m->tokens,
                                             HEADS, &err));
    if (m->decode)
        EXPECT_OK(cuda.ql->paged_batched_decode_attention(cuda.ctx, m->q, &m->kv, m->attention,
                                                          m->tables, m->lengths, m->sequences,
                                                          BLOCKS_EACH * BLOCK, &config, &err));
    else
        EXPECT_OK(cuda.ql->paged_varlen_attention(cuda.ctx, m->q, &m->kv, m->attention, m->starts,
                                                  m->positions, m->tables, m->sequences, m->tokens,
                                                  BLOCKS_EACH * BLOCK, &config, &err));
}

static void run_layer(void *arg)
{
    const model_t *m = arg;
    const uint32_t t = m->tokens;
    const ferrum_expert_ffn_args_t args = {.head = FERRUM_HEAD(ferrum_expert_ffn_args_t),
                                           .x = m->norm,
                                           .ids = m->ids,
                                           .weights = m->scores,
                                           .out = m->moe,
                                           .tokens = t,
                                           .top_k = TOP_K};

    EXPECT_OK(cuda.be->rms_norm(cuda.ctx, m->residual, m->norm_w, 1e-6f, m->norm, t, HIDDEN, &err));
    EXPECT_OK(cuda.be->gemm(cuda.ctx, m->norm, m->qkv_w, m->qkv, t, QKV, HIDDEN, &err));
    attend(m);
    EXPECT_OK(cuda.be->gemm(cuda.ctx, m->attention, m->out_w, m->projected, t, HIDDEN, HEADS * DIM,
                            &err));
    EXPECT_OK(cuda.be->fused_add_rms_norm(cuda.ctx, m->residual, m->projected, m->norm_w, 1e-6f,
                                          m->norm, t, HIDDEN, &err));
    EXPECT_OK(cuda.be->gemm(cuda.ctx, m->norm, m->router_w, m->logits, t, EXPERTS, HIDDEN, &err));
    EXPECT_OK(cuda.mf->route_topk_softmax(cuda.ctx, m->logits, m->ids, m->scores, t, EXPERTS, TOP_K,
                                          1, NULL, &err));
    EXPECT_OK(cuda.mf->expert_ffn_forward(cuda.ctx, m->ffn, &args, &err));
    EXPECT_OK(cuda.be->add_inplace(cuda.ctx, m->residual, m->moe, (uint64_t)t * HIDDEN, &err));
}

/** Inputs of a batch; sequences and tokens up to those of the bucket are padding. */
static void write_inputs(const model_t *m, const batch_t *batch, uint32_t seed)
{
    int32_t starts[MOST_SEQUENCES + 1] = {0}, positions[MOST_SEQUENCES] = {0};
    int32_t lengths[MOST_SEQUENCES] = {0};
    float *rows = wave(MOST_TOKENS * HIDDEN, 1, seed), *pool = wave(POOL, 1, 11);

    for (uint32_t s = 0; s < MOST_SEQUENCES; s++) {
        const bool used = s < batch->sequences;
        positions[s] = used ? batch->positions[s] : 0;
        lengths[s] = used ? batch->positions[s] + batch->counts[s] : 0;
        starts[s + 1] = starts[s] + (used ? batch->counts[s] : 0);
    }
    EXPECT_OK(
        cuda.be->buffer_write_f32(cuda.ctx, m->residual, 0, rows, MOST_TOKENS * HIDDEN, &err));
    EXPECT_OK(cuda.be->buffer_write_f32(cuda.ctx, m->kv.pool_k, 0, pool, POOL, &err));
    EXPECT_OK(cuda.be->buffer_write_f32(cuda.ctx, m->kv.pool_v, 0, pool, POOL, &err));
    EXPECT_OK(cuda.be->buffer_write(cuda.ctx, m->starts, 0, FERRUM_DTYPE_I32, starts,
                                    MOST_SEQUENCES + 1, &err));
    EXPECT_OK(cuda.be->buffer_write(cuda.ctx, m->positions, 0, FERRUM_DTYPE_I32, positions,
                                    MOST_SEQUENCES, &err));
    EXPECT_OK(cuda.be->buffer_write(cuda.ctx, m->lengths, 0, FERRUM_DTYPE_I32, lengths,
                                    MOST_SEQUENCES, &err));
    free(rows);
    free(pool);
}

/** The bits that a run left behind. */
typedef struct result {
    uint16_t rows[MOST_TOKENS * HIDDEN], k[POOL], v[POOL];
} result_t;

static result_t *read_result(const model_t *m, uint32_t tokens)
{
    result_t *result = calloc(1, sizeof *result);

    ck_assert_ptr_nonnull(result);
    EXPECT_OK(cuda.be->buffer_read(cuda.ctx, m->residual, 0, FERRUM_DTYPE_F16, result->rows,
                                   (uint64_t)tokens * HIDDEN, &err));
    EXPECT_OK(
        cuda.be->buffer_read(cuda.ctx, m->kv.pool_k, 0, FERRUM_DTYPE_F16, result->k, POOL, &err));
    EXPECT_OK(
        cuda.be->buffer_read(cuda.ctx, m->kv.pool_v, 0, FERRUM_DTYPE_F16, result->v, POOL, &err));
    return result;
}

static const batch_t buckets[] = {
    {1, 1, true, {0}, {0}},
    {4, 4, true, {0}, {0}},
    {8, 2, false, {0}, {0}},
    {32, 4, false, {0}, {0}},
};
static const batch_t batches[] = {
    {1, 1, true, {1}, {40}},
    {3, 3, true, {1, 1, 1}, {0, 33, 20}},
    {4, 4, true, {1, 1, 1, 1}, {1, 2, 3, 60}},
    {5, 1, false, {5}, {12}},
    {8, 2, false, {1, 7}, {50, 0}},
    {19, 3, false, {4, 0, 15}, {30, 3, 0}},
    {32, 4, false, {29, 1, 1, 1}, {0, 5, 6, 7}},
};
enum {
    BUCKETS = sizeof buckets / sizeof buckets[0],
    BATCHES = sizeof batches / sizeof batches[0]
};

static void set_size(model_t *m, const batch_t *batch)
{
    m->tokens = batch->tokens;
    m->sequences = batch->sequences;
    m->decode = batch->decode;
}

START_TEST(a_graph_serves_its_bucket)
{
    const batch_t *bucket = &buckets[_i % BUCKETS];
    uint32_t served = 0;
    model_t m;

    model_open(&m, _i >= BUCKETS);
    set_size(&m, bucket);
    write_inputs(&m, &batches[0], 1);
    (void)cuda_steady(run_layer, &m, 14);
    cuda_capture(run_layer, &m, bucket->tokens);
    for (uint32_t i = 0; i < BATCHES; i++) {
        const batch_t *batch = &batches[i];
        if (batch->decode != bucket->decode || batch->tokens > bucket->tokens ||
            batch->sequences > bucket->sequences)
            continue;
        set_size(&m, batch);
        write_inputs(&m, batch, i + 20);
        run_layer(&m);
        result_t *alone = read_result(&m, batch->tokens);
        write_inputs(&m, batch, i + 20);
        cuda_replay(bucket->tokens);
        result_t *replayed = read_result(&m, batch->tokens);
        ck_assert_mem_eq(replayed, alone, sizeof *alone);
        free(alone);
        free(replayed);
        served++;
    }
    ck_assert_uint_ge(served, 1);
    model_close(&m);
}
END_TEST

int main(void)
{
    if (!cuda_built())
        return 77;
    Suite *suite = suite_create("cuda layer");
    TCase *cases = tcase_create("layer");
    tcase_set_timeout(cases, 300);
    tcase_add_loop_test(cases, a_graph_serves_its_bucket, 0, 2 * BUCKETS);
    suite_add_tcase(suite, cases);
    return expect_run(suite);
}
