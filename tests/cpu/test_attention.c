/* SPDX-License-Identifier: MIT */
/* Attention and the paged cache against f64, in both layouts. */
#include "tests/cpu/fixture.h"

#include <math.h>
#include <stdlib.h>

static const double TOLERANCE = 1e-5;

/** Softmax attention of one query over keys [first, end) of caches with rows of @p dim. */
static void attend(const float *q, const float *k, const float *v, uint32_t first, uint32_t end,
                   uint32_t dim, double scale, double *out)
{
    double sum = 0.0, largest = -INFINITY, *p = malloc((end + 1) * sizeof *p);
    for (uint32_t d = 0; d < dim; d++)
        out[d] = 0.0;
    for (uint32_t i = first; i < end; i++) {
        p[i] = 0.0;
        for (uint32_t d = 0; d < dim; d++)
            p[i] += (double)q[d] * (double)k[i * dim + d] * scale;
        largest = p[i] > largest ? p[i] : largest;
    }
    for (uint32_t i = first; i < end; i++)
        sum += p[i] = exp(p[i] - largest);
    for (uint32_t i = first; i < end; i++)
        for (uint32_t d = 0; d < dim; d++)
            out[d] += p[i] / sum * (double)v[i * dim + d];
    free(p);
}

typedef struct flash_case {
    uint32_t batch, heads, kv_heads, dim, q_len, kv_len, pos, causal, window, stride;
} flash_case_t;

static void check_flash(cpu_fixture_t *f, const flash_case_t *c)
{
    const uint32_t stride = c->stride ? c->stride : c->kv_len;
    const size_t q_count = (size_t)c->batch * c->heads * c->q_len * c->dim;
    const size_t kv_count = (size_t)c->batch * c->kv_heads * stride * c->dim;
    ferrum_buffer_t *q = cpu_random_f32(f, 1, q_count), *k = cpu_random_f32(f, 2, kv_count);
    ferrum_buffer_t *v = cpu_random_f32(f, 3, kv_count), *out = cpu_output(f, q_count);
    const ferrum_attn_config_t config = {.head = FERRUM_HEAD(ferrum_attn_config_t),
                                         .num_heads = c->heads,
                                         .num_kv_heads = c->kv_heads,
                                         .head_dim = c->dim,
                                         .causal = c->causal,
                                         .scale = 0.7f,
                                         .kv_seq_stride = c->stride,
                                         .sliding_window = c->window};
    double *wanted = malloc(q_count * sizeof *wanted);
    const float *queries = cpu_floats(q);
    for (size_t row = 0; row < q_count / c->dim; row++) {
        const uint32_t i = (uint32_t)(row % c->q_len), h = (uint32_t)(row / c->q_len) % c->heads;
        const size_t b = row / c->q_len / c->heads;
        const size_t cache = (b * c->kv_heads + h / (c->heads / c->kv_heads)) * stride * c->dim;
        uint32_t end = c->kv_len;
        if (c->causal && c->pos + i + 1 < end)
            end = c->pos + i + 1;
        const uint32_t first = c->window && end > c->window ? end - c->window : 0;
        attend(queries + row * c->dim, cpu_floats(k) + cache, cpu_floats(v) + cache, first, end,
               c->dim, (double)config.scale, wanted + row * c->dim);
    }
    EXPECT_OK(BK->flash_attention(f->ctx, q, k, v, out, c->batch, c->q_len, c->kv_len, c->pos,
                                  &config, &err));
    cpu_check_rows(cpu_floats(out), wanted, q_count / c->dim, c->dim, TOLERANCE);
    cpu_check_guard(out, q_count);
    free(wanted);
    cpu_release(q, k, v, out, NULL);
}

START_TEST(flash)
{
    static const flash_case_t cases[] = {
        {1, 1, 1, 1, 1, 1, 0, 1, 0, 0},        {2, 6, 2, 20, 5, 9, 4, 1, 0, 0},
        {1, 4, 4, 16, 7, 7, 0, 1, 3, 0},       {1, 2, 1, 33, 3, 40, 37, 1, 0, 64},
        {2, 2, 2, 8, 4, 6, 0, 0, 0, 0},        {1, 2, 1, 8, 2, 10, 100, 1, 4, 16},
        {1, 2, 2, 128, 1, 300, 299, 1, 0, 300}};
    cpu_fixture_t f;
    cpu_open_config(&f, _i);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_flash(&f, &cases[i]);
    cpu_close(&f);
}
END_TEST

START_TEST(no_keys_give_zeros)
{
    cpu_fixture_t f;
    cpu_open(&f, NULL, 1);
    ferrum_buffer_t *q = cpu_random_f32(&f, 1, 8), *k = cpu_random_f32(&f, 2, 8);
    ferrum_buffer_t *out = cpu_output(&f, 8);
    ferrum_attn_config_t config = {.head = FERRUM_HEAD(ferrum_attn_config_t),
                                   .num_heads = 2,
                                   .num_kv_heads = 1,
                                   .head_dim = 4,
                                   .scale = 1.0f};
    EXPECT_OK(BK->flash_attention(f.ctx, q, k, k, out, 1, 1, 0, 0, &config, &err));
    for (int i = 0; i < 8; i++)
        ck_assert(cpu_floats(out)[i] == 0.0f);
    config.num_heads = 3;
    config.num_kv_heads = 2;
    EXPECT_FAILS(BK->flash_attention(f.ctx, q, k, k, out, 1, 1, 1, 0, &config, &err),
                 FERRUM_INVALID_ARGUMENT, "3 heads");
    config.num_heads = 2;
    config.num_kv_heads = 1;
    config.kv_seq_stride = 1;
    EXPECT_FAILS(BK->flash_attention(f.ctx, q, k, k, out, 1, 1, 2, 0, &config, &err),
                 FERRUM_INVALID_ARGUMENT, "kv_seq_stride");
    cpu_release(q, k, out, NULL);
    cpu_close(&f);
}
END_TEST

/* A batch of three sequences, written and attended to in one go, against contiguous attention. */
enum {
    SEQS = 3,
    HEADS = 4,
    KV = 2,
    DIM = 12,
    BLOCK = 4,
    BLOCKS = 13,
    PER_SEQ = 4,
    TOKENS = 9
};
static const int32_t cu[SEQS + 1] = {0, 5, 6, TOKENS}, starts[SEQS] = {0, 9, 2};
static const int32_t table[SEQS * PER_SEQ] = {7, 2, -1, -1, 0, 5, 11, -1, 12, 3, -1, -1};

typedef struct paged {
    cpu_fixture_t f;
    ferrum_buffer_t *pool_k, *pool_v, *cu, *starts, *tables, *cos, *sin, *norm;
    ferrum_paged_kv_t kv;
    ferrum_rope_t rope;
    ferrum_attn_config_t config;
} paged_t;

static void paged_open(paged_t *p, int config, ferrum_kv_layout_t layout)
{
    enum {
        ANGLES = PER_SEQ * BLOCK * DIM / 2
    };
    float cosines[ANGLES], sines[ANGLES];
    cpu_open_config(&p->f, config);
    for (int i = 0; i < ANGLES; i++) {
        cosines[i] = cosf(0.1f * (float)i);
        sines[i] = sinf(0.1f * (float)i);
    }
    p->pool_k = cpu_random_f32(&p->f, 11, BLOCKS * KV * BLOCK * DIM);
    p->pool_v = cpu_random_f32(&p->f, 12, BLOCKS * KV * BLOCK * DIM);
    p->cu = cpu_i32(&p->f, cu, SEQS + 1);
    p->starts = cpu_i32(&p->f, starts, SEQS);
    p->tables = cpu_i32(&p->f, table, SEQS * PER_SEQ);
    p->cos = cpu_f32(&p->f, cosines, ANGLES);
    p->sin = cpu_f32(&p->f, sines, ANGLES);
    p->norm = cpu_random_f32(&p->f, 14, DIM);
    p->kv = (ferrum_paged_kv_t){.head = FERRUM_HEAD(ferrum_paged_kv_t),
                                .pool_k = p->pool_k,
                                .pool_v = p->pool_v,
                                .num_blocks = BLOCKS,
                                .block_size = BLOCK,
                                .num_kv_heads = KV,
                                .head_dim = DIM,
                                .layout = layout,
                                .max_blocks_per_seq = PER_SEQ};
    p->rope = (ferrum_rope_t){.head = FERRUM_HEAD(ferrum_rope_t),
                              .q_norm = p->norm,
                              .k_norm = p->norm,
                              .cos = p->cos,
                              .sin = p->sin,
                              .eps = 1e-6f,
                              .mode = FERRUM_ROPE_NORM_HALF};
    p->config = (ferrum_attn_config_t){.head = FERRUM_HEAD(ferrum_attn_config_t),
                                       .num_heads = HEADS,
                                       .num_kv_heads = KV,
                                       .head_dim = DIM,
                                       .causal = 1,
                                       .scale = 0.3f};
}

static void paged_close(paged_t *p)
{
    cpu_release(p->pool_k, p->pool_v, p->cu, p->starts, p->tables, p->cos, p->sin, p->norm, NULL);
    cpu_close(&p->f);
}

/** Element of the pool by the layouts' own formulas, written out once more. */
static float pool_at(const paged_t *p, const ferrum_buffer_t *pool, int seq, int position, int head,
                     int d)
{
    const size_t block = (size_t)table[seq * PER_SEQ + position / BLOCK];
    const size_t slot = (size_t)(position % BLOCK), bh = block * KV + (size_t)head;
    const size_t dim = (size_t)d;
    if (p->kv.layout == FERRUM_KV_LAYOUT_FA)
        return cpu_floats(pool)[(bh * BLOCK + slot) * DIM + dim];
    if (pool == p->pool_v)
        return cpu_floats(pool)[(bh * DIM + dim) * BLOCK + slot];
    return cpu_floats(pool)[((bh * (DIM / 4) + dim / 4) * BLOCK + slot) * 4 + dim % 4];
}

/** The first @p keys rows of one sequence and head, contiguous. */
static float *flatten(const paged_t *p, const ferrum_buffer_t *pool, int seq, int head, int keys)
{
    float *rows = malloc((size_t)keys * DIM * sizeof *rows);
    for (int i = 0; i < keys * DIM; i++)
        rows[i] = pool_at(p, pool, seq, i / DIM, head, i % DIM);
    return rows;
}

START_TEST(paged_write_places_keys)
{
    for (ferrum_kv_layout_t layout = 0; layout <= FERRUM_KV_LAYOUT_VLLM; layout++) {
        paged_t p;
        paged_open(&p, _i, layout);
        enum {
            WIDTH = (HEADS + 2 * KV) * DIM
        };
        ferrum_buffer_t *qkv = cpu_random_f32(&p.f, 20, TOKENS * WIDTH);
        ferrum_buffer_t *q = cpu_output(&p.f, TOKENS * HEADS * DIM);
        EXPECT_OK(QL->paged_kv_write_varlen(p.f.ctx, qkv, &p.rope, q, &p.kv, p.cu, p.starts,
                                            p.tables, SEQS, TOKENS, HEADS, &err));
        cpu_check_guard(q, TOKENS * HEADS * DIM);
        for (int s = 0; s < SEQS; s++)
            for (int t = cu[s]; t < cu[s + 1]; t++) {
                /* One token through the op that is checked against f64 elsewhere. */
                const int position = starts[s] + t - cu[s];
                ferrum_buffer_t *heads = cpu_f32(&p.f, cpu_floats(qkv) + t * WIDTH, WIDTH);
                ferrum_buffer_t *turned = cpu_output(&p.f, (HEADS + KV) * DIM);
                EXPECT_OK(BK->qk_norm_rope(p.f.ctx, heads, &p.rope, turned, 1, HEADS + KV, DIM,
                                           (uint32_t)position, &err));
                ck_assert_mem_eq(cpu_floats(q) + t * HEADS * DIM, cpu_floats(turned),
                                 HEADS * DIM * 4);
                for (int i = 0; i < KV * DIM; i++) {
                    const int h = i / DIM, d = i % DIM;
                    ck_assert(pool_at(&p, p.pool_k, s, position, h, d) ==
                              cpu_floats(turned)[HEADS * DIM + i]);
                    ck_assert(pool_at(&p, p.pool_v, s, position, h, d) ==
                              cpu_floats(heads)[(HEADS + KV) * DIM + i]);
                }
                cpu_release(heads, turned, NULL);
            }
        cpu_release(qkv, q, NULL);
        paged_close(&p);
    }
}
END_TEST

START_TEST(one_sequence_writes_like_a_batch)
{
    enum {
        WIDTH = (HEADS + 2 * KV) * DIM,
        T = 5
    };
    paged_t p;
    paged_open(&p, _i, FERRUM_KV_LAYOUT_VLLM);
    ferrum_buffer_t *qkv = cpu_random_f32(&p.f, 20, 3 + TOKENS * WIDTH);
    ferrum_buffer_t *q = cpu_output(&p.f, 7 + T * HEADS * DIM),
                    *other = cpu_output(&p.f, HEADS * T * DIM);
    ferrum_buffer_t *cache_k = cpu_output(&p.f, KV * 16 * DIM);
    ferrum_buffer_t *cache_v = cpu_output(&p.f, KV * 16 * DIM), *tail = NULL;
    EXPECT_OK(
        QL->paged_kv_write(p.f.ctx, qkv, 3, &p.rope, q, 7, &p.kv, p.tables, T, HEADS, 3, 1, &err));
    cpu_check_guard(q, 7 + T * HEADS * DIM);
    tail = cpu_f32(&p.f, cpu_floats(qkv) + 3, T * WIDTH);
    EXPECT_OK(BK->split_qkv_norm_rope_into_cache(p.f.ctx, tail, &p.rope, other, cache_k, cache_v, T,
                                                 HEADS, KV, DIM, 3, 1, 16, &err));
    ck_assert_mem_eq(cpu_floats(q) + 7, cpu_floats(other), T * HEADS * DIM * 4);
    for (int i = 0; i < KV * T * DIM; i++) {
        const int h = i / T / DIM, t = i / DIM % T, d = i % DIM;
        const int cached = (h * 16 + 1 + t) * DIM + d;
        ck_assert(pool_at(&p, p.pool_k, 0, 1 + t, h, d) == cpu_floats(cache_k)[cached]);
        ck_assert(pool_at(&p, p.pool_v, 0, 1 + t, h, d) == cpu_floats(cache_v)[cached]);
    }
    ck_assert_int_eq(cpu_ints(cache_k)[0], 0x4b1d4b1d); /* position 0 was not asked for */
    EXPECT_OK(BK->split_qkv_norm_rope(p.f.ctx, tail, &p.rope, other, cache_k, cache_v, T, HEADS, KV,
                                      DIM, 3, &err));
    ck_assert(pool_at(&p, p.pool_k, 0, 2, 1, 3) == cpu_floats(cache_k)[(T + 1) * DIM + 3]);
    EXPECT_FAILS(
        QL->paged_kv_write(p.f.ctx, qkv, 3, &p.rope, q, 7, &p.kv, p.tables, T, HEADS, 0, 4, &err),
        FERRUM_INVALID_INPUT, "entry 2 is -1");
    EXPECT_FAILS(
        QL->paged_kv_write(p.f.ctx, qkv, 3, &p.rope, q, 7, &p.kv, p.tables, T, HEADS, 0, 14, &err),
        FERRUM_INVALID_INPUT, "position 18");
    cpu_release(qkv, q, other, cache_k, cache_v, tail, NULL);
    paged_close(&p);
}
END_TEST

START_TEST(paged_attention_sees_its_keys)
{
    for (ferrum_kv_layout_t layout = 0; layout <= FERRUM_KV_LAYOUT_VLLM; layout++)
        for (uint32_t window = 0; window <= 3; window += 3) {
            paged_t p;
            paged_open(&p, _i, layout);
            p.config.sliding_window = window;
            ferrum_buffer_t *q = cpu_random_f32(&p.f, 21, TOKENS * HEADS * DIM);
            ferrum_buffer_t *out = cpu_output(&p.f, TOKENS * HEADS * DIM);
            double wanted[TOKENS * HEADS * DIM];
            int32_t lens[SEQS];
            for (int s = 0; s < SEQS; s++) {
                lens[s] = starts[s] + cu[s + 1] - cu[s];
                for (int t = cu[s]; t < cu[s + 1]; t++)
                    for (int h = 0; h < HEADS; h++) {
                        const uint32_t end = (uint32_t)(starts[s] + t - cu[s] + 1);
                        float *k = flatten(&p, p.pool_k, s, h / 2, (int)end);
                        float *v = flatten(&p, p.pool_v, s, h / 2, (int)end);
                        attend(cpu_floats(q) + (t * HEADS + h) * DIM, k, v,
                               window && end > window ? end - window : 0, end, DIM,
                               (double)p.config.scale, wanted + (t * HEADS + h) * DIM);
                        free(k);
                        free(v);
                    }
            }
            EXPECT_OK(QL->paged_varlen_attention(p.f.ctx, q, &p.kv, out, p.cu, p.starts, p.tables,
                                                 SEQS, TOKENS, 10, &p.config, &err));
            cpu_check_rows(cpu_floats(out), wanted, TOKENS * HEADS, DIM, TOLERANCE);
            cpu_check_guard(out, TOKENS * HEADS * DIM);

            /* The last token of each sequence, as decode asks for it: the same bits. */
            ferrum_buffer_t *last = cpu_output(&p.f, SEQS * HEADS * DIM);
            ferrum_buffer_t *decoded = cpu_output(&p.f, SEQS * HEADS * DIM);
            ferrum_buffer_t *kv_lens = cpu_i32(&p.f, lens, SEQS);
            for (int s = 0; s < SEQS; s++)
                memcpy(cpu_floats(last) + s * HEADS * DIM,
                       cpu_floats(q) + (cu[s + 1] - 1) * HEADS * DIM, HEADS * DIM * 4);
            EXPECT_OK(QL->paged_batched_decode_attention(p.f.ctx, last, &p.kv, decoded, p.tables,
                                                         kv_lens, SEQS, 10, &p.config, &err));
            for (int s = 0; s < SEQS; s++)
                ck_assert_mem_eq(cpu_floats(decoded) + s * HEADS * DIM,
                                 cpu_floats(out) + (cu[s + 1] - 1) * HEADS * DIM, HEADS * DIM * 4);
            EXPECT_OK(QL->paged_decode_attention(p.f.ctx, last, &p.kv, out, p.tables, kv_lens, SEQS,
                                                 1, &p.config, &err));
            ck_assert_mem_eq(cpu_floats(out), cpu_floats(decoded), SEQS * HEADS * DIM * 4);
            EXPECT_FAILS(QL->paged_batched_decode_attention(p.f.ctx, last, &p.kv, decoded, p.tables,
                                                            kv_lens, SEQS, 9, &p.config, &err),
                         FERRUM_INVALID_INPUT, "10");
            cpu_release(q, out, last, decoded, kv_lens, NULL);
            paged_close(&p);
        }
}
END_TEST

START_TEST(several_queries_of_one_sequence)
{
    enum {
        T = 4
    };
    paged_t p;
    paged_open(&p, _i, FERRUM_KV_LAYOUT_FA);
    const int32_t len[] = {7};
    ferrum_buffer_t *q = cpu_random_f32(&p.f, 22, HEADS * T * DIM), *lens = cpu_i32(&p.f, len, 1);
    ferrum_buffer_t *out = cpu_output(&p.f, HEADS * T * DIM);
    double wanted[HEADS * T * DIM];
    for (int i = 0; i < HEADS * T; i++) {
        float *k = flatten(&p, p.pool_k, 0, i / T / 2, 7),
              *v = flatten(&p, p.pool_v, 0, i / T / 2, 7);
        attend(cpu_floats(q) + i * DIM, k, v, 0, (uint32_t)(7 - T + 1 + i % T), DIM,
               (double)p.config.scale, wanted + i * DIM);
        free(k);
        free(v);
    }
    EXPECT_OK(
        QL->paged_decode_attention(p.f.ctx, q, &p.kv, out, p.tables, lens, 1, T, &p.config, &err));
    cpu_check_rows(cpu_floats(out), wanted, HEADS * T, DIM, TOLERANCE);
    EXPECT_FAILS(
        QL->paged_decode_attention(p.f.ctx, q, &p.kv, out, p.tables, lens, 2, 2, &p.config, &err),
        FERRUM_INVALID_ARGUMENT, "one sequence");
    cpu_ints(lens)[0] = 3;
    EXPECT_FAILS(
        QL->paged_decode_attention(p.f.ctx, q, &p.kv, out, p.tables, lens, 1, T, &p.config, &err),
        FERRUM_INVALID_INPUT, "3");
    cpu_release(q, lens, out, NULL);
    paged_close(&p);
}
END_TEST

START_TEST(bad_batches_are_refused)
{
    paged_t p;
    paged_open(&p, 0, FERRUM_KV_LAYOUT_FA);
    ferrum_buffer_t *q = cpu_random_f32(&p.f, 22, TOKENS * HEADS * DIM);
    ferrum_buffer_t *out = cpu_output(&p.f, TOKENS * HEADS * DIM);
#define RUN()                                                                                      \
    QL->paged_varlen_attention(p.f.ctx, q, &p.kv, out, p.cu, p.starts, p.tables, SEQS, TOKENS, 99, \
                               &p.config, &err)
    cpu_ints(p.cu)[1] = 7;
    EXPECT_FAILS(RUN(), FERRUM_INVALID_INPUT, "falls from 7 to 6");
    cpu_ints(p.cu)[1] = 5;
    cpu_ints(p.cu)[0] = -1;
    EXPECT_FAILS(RUN(), FERRUM_INVALID_INPUT, "expected 0 to 9");
    cpu_ints(p.cu)[0] = 0;
    cpu_ints(p.starts)[1] = -2;
    EXPECT_FAILS(RUN(), FERRUM_INVALID_INPUT, "pos_offsets[1]");
    cpu_ints(p.starts)[1] = 40;
    EXPECT_FAILS(RUN(), FERRUM_INVALID_INPUT, "beyond the 4 blocks");
    cpu_ints(p.starts)[1] = 9;
    cpu_ints(p.tables)[1] = BLOCKS;
    EXPECT_FAILS(RUN(), FERRUM_INVALID_INPUT, "13 blocks");
    cpu_ints(p.tables)[1] = 2;
    p.kv.layout = 2;
    EXPECT_FAILS(RUN(), FERRUM_UNSUPPORTED, "layout 2");
    p.kv.layout = FERRUM_KV_LAYOUT_VLLM;
    p.kv.head_dim = p.config.head_dim = 6;
    EXPECT_FAILS(RUN(), FERRUM_UNSUPPORTED, "multiple of 4");
    p.kv.head_dim = DIM;
    EXPECT_FAILS(RUN(), FERRUM_INVALID_ARGUMENT, "config has");
    p.config.head_dim = DIM;
    p.kv.block_size = 0;
    EXPECT_FAILS(RUN(), FERRUM_INVALID_ARGUMENT, "block_size 0");
    cpu_check_untouched(out, TOKENS * HEADS * DIM);
    p.kv.block_size = BLOCK;
    EXPECT_OK(RUN());
    cpu_release(q, out, NULL);
    paged_close(&p);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu attention");
    TCase *tc = tcase_create("all");
    tcase_add_loop_test(tc, flash, 0, CPU_CONFIGS);
    tcase_add_test(tc, no_keys_give_zeros);
    tcase_add_loop_test(tc, paged_write_places_keys, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, one_sequence_writes_like_a_batch, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, paged_attention_sees_its_keys, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, several_queries_of_one_sequence, 0, CPU_CONFIGS);
    tcase_add_test(tc, bad_batches_are_refused);
    suite_add_tcase(suite, tc);
    return expect_run(suite);
}
