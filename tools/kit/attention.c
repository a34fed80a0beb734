/* SPDX-License-Identifier: MIT */
/* Rotation, caches and attention, contiguous and paged. */
#include "tools/kit/kit.h"

#include <string.h>

enum {
    MAX_POS = 96
};

/* One attention geometry. */
typedef struct shape {
    uint32_t heads, kv_heads, dim, window;
} shape_t;

static const shape_t shapes[] = {{4, 2, 16, 0}, {1, 1, 8, 0}, {8, 1, 64, 0}, {4, 2, 32, 7}};

/* RoPE tables and norm weights of a case. */
typedef struct rotation {
    ferrum_rope_t rope;
    cf_tensor_t q_norm, k_norm, cos, sin;
} rotation_t;

static rotation_t make_rotation(cf_suite_t *suite, uint32_t dim, ferrum_rope_mode_t mode)
{
    rotation_t r;
    uint32_t half = dim / 2;
    double *c = cf_memory(suite, (size_t)MAX_POS * half * sizeof *c);
    double *s = cf_memory(suite, (size_t)MAX_POS * half * sizeof *s);
    for (uint32_t pos = 0; pos < MAX_POS; pos++)
        for (uint32_t i = 0; i < half; i++) {
            double angle = pos / pow(1e4, 2.0 * i / dim);
            c[pos * half + i] = cos(angle);
            s[pos * half + i] = sin(angle);
        }
    r.q_norm = cf_input(suite, dim, 1);
    r.k_norm = cf_input(suite, dim, 1);
    r.cos = cf_f32(suite, c, (uint64_t)MAX_POS * half);
    r.sin = cf_f32(suite, s, (uint64_t)MAX_POS * half);
    r.rope = (ferrum_rope_t){.head = FERRUM_HEAD(ferrum_rope_t),
                             .q_norm = r.q_norm.buffer,
                             .k_norm = r.k_norm.buffer,
                             .cos = r.cos.buffer,
                             .sin = r.sin.buffer,
                             .eps = 1e-6F,
                             .mode = mode};
    return r;
}

/* Norm and rotate one head vector as the mode says. */
static void prepare(const rotation_t *r, const double *norm, const double *in, double *out,
                    uint32_t pos, uint32_t dim)
{
    memcpy(out, in, dim * sizeof *out);
    if (r->rope.mode == FERRUM_ROPE_NORM_HALF)
        cf_ref_rms_norm(in, norm, 1e-6, out, dim);
    if (r->rope.mode != FERRUM_ROPE_NONE)
        cf_ref_rope(out, r->cos.v, r->sin.v, pos, dim, r->rope.mode);
}

/* Reference of splitting qkv rows: token-major q, k, v after norm and rotation. */
typedef struct split {
    double *q, *k, *v;
} split_t;

static split_t reference_split(cf_suite_t *suite, const rotation_t *r, const double *qkv,
                               const shape_t *s, uint32_t tokens, const uint32_t *positions)
{
    size_t q_row = (size_t)s->heads * s->dim, kv_row = (size_t)s->kv_heads * s->dim;
    split_t out = {cf_memory(suite, tokens * q_row * sizeof(double)),
                   cf_memory(suite, tokens * kv_row * sizeof(double)),
                   cf_memory(suite, tokens * kv_row * sizeof(double))};
    for (uint32_t t = 0; t < tokens; t++) {
        const double *row = qkv + t * (q_row + 2 * kv_row);
        for (uint32_t h = 0; h < s->heads; h++)
            prepare(r, r->q_norm.v, row + h * s->dim, out.q + t * q_row + h * s->dim, positions[t],
                    s->dim);
        for (uint32_t h = 0; h < s->kv_heads; h++)
            prepare(r, r->k_norm.v, row + q_row + h * s->dim, out.k + t * kv_row + h * s->dim,
                    positions[t], s->dim);
        memcpy(out.v + t * kv_row, row + q_row + kv_row, kv_row * sizeof(double));
    }
    return out;
}

static double *to_head_major(cf_suite_t *suite, const double *x, uint32_t tokens, uint32_t heads,
                             uint32_t dim)
{
    double *out = cf_memory(suite, (size_t)tokens * heads * dim * sizeof *out);
    for (uint32_t t = 0; t < tokens; t++)
        for (uint32_t h = 0; h < heads; h++)
            memcpy(out + ((size_t)h * tokens + t) * dim, x + ((size_t)t * heads + h) * dim,
                   dim * sizeof *out);
    return out;
}

static void rope_cases(cf_suite_t *suite, ferrum_rope_mode_t mode)
{
    enum {
        TOKENS = 5,
        POS = 9
    };
    ferrum_error_t err = FERRUM_ERROR_INIT;
    const shape_t *s = &shapes[0];
    uint32_t positions[TOKENS];
    for (uint32_t t = 0; t < TOKENS; t++)
        positions[t] = POS + t;
    size_t q_row = (size_t)s->heads * s->dim, kv_row = (size_t)s->kv_heads * s->dim;

    cf_begin(suite, "qk_norm_rope mode %u", mode);
    rotation_t r = make_rotation(suite, s->dim, mode);
    cf_tensor_t in = cf_input(suite, TOKENS * q_row, 2), out = cf_output(suite, TOKENS * q_row);
    double *rotated = cf_memory(suite, TOKENS * q_row * sizeof *rotated);
    for (uint32_t i = 0; i < TOKENS * s->heads; i++)
        prepare(&r, r.q_norm.v, in.v + i * s->dim, rotated + i * s->dim, positions[i / s->heads],
                s->dim);
    double *reference = to_head_major(suite, rotated, TOKENS, s->heads, s->dim);
    if (cf_ok(suite,
              suite->be->qk_norm_rope(suite->ctx, in.buffer, &r.rope, out.buffer, TOKENS, s->heads,
                                      s->dim, POS, &err),
              &err))
        cf_expect_rows(suite, &out, reference, s->dim, 2);
    cf_end(suite);

    for (int into_cache = 0; into_cache < 2; into_cache++) {
        enum {
            CAPACITY = 12,
            LEN = 3
        };
        cf_begin(suite, "split_qkv_norm_rope%s mode %u", into_cache ? "_into_cache" : "", mode);
        r = make_rotation(suite, s->dim, mode);
        cf_tensor_t qkv = cf_input(suite, TOKENS * (q_row + 2 * kv_row), 2);
        split_t want = reference_split(suite, &r, qkv.v, s, TOKENS, positions);
        cf_tensor_t q = cf_output(suite, TOKENS * q_row);
        uint32_t rows = into_cache ? CAPACITY : TOKENS;
        cf_tensor_t k = cf_output(suite, rows * kv_row), v = cf_output(suite, rows * kv_row);
        double *rk = cf_memory(suite, k.count * sizeof *rk),
               *rv = cf_memory(suite, v.count * sizeof *rv);
        memcpy(rk, k.v, k.count * sizeof *rk);
        memcpy(rv, v.v, v.count * sizeof *rv);
        double *hk = to_head_major(suite, want.k, TOKENS, s->kv_heads, s->dim);
        double *hv = to_head_major(suite, want.v, TOKENS, s->kv_heads, s->dim);
        for (uint32_t h = 0; h < s->kv_heads; h++) {
            size_t at = ((size_t)h * rows + (into_cache ? LEN : 0)) * s->dim;
            memcpy(rk + at, hk + (size_t)h * TOKENS * s->dim, TOKENS * s->dim * sizeof *rk);
            memcpy(rv + at, hv + (size_t)h * TOKENS * s->dim, TOKENS * s->dim * sizeof *rv);
        }
        ferrum_status_t status =
            into_cache ? suite->be->split_qkv_norm_rope_into_cache(
                             suite->ctx, qkv.buffer, &r.rope, q.buffer, k.buffer, v.buffer, TOKENS,
                             s->heads, s->kv_heads, s->dim, POS, LEN, CAPACITY, &err)
                       : suite->be->split_qkv_norm_rope(suite->ctx, qkv.buffer, &r.rope, q.buffer,
                                                        k.buffer, v.buffer, TOKENS, s->heads,
                                                        s->kv_heads, s->dim, POS, &err);
        if (cf_ok(suite, status, &err)) {
            cf_expect_rows(suite, &q, to_head_major(suite, want.q, TOKENS, s->heads, s->dim),
                           s->dim, 2);
            cf_expect_rows(suite, &k, rk, s->dim, 2);
            cf_expect_rows(suite, &v, rv, s->dim, 0);
        }
        cf_end(suite);
    }
}

static void append_cases(cf_suite_t *suite)
{
    enum {
        HEADS = 2,
        DIM = 8,
        CAPACITY = 10,
        LEN = 4,
        COUNT = 3
    };
    ferrum_error_t err = FERRUM_ERROR_INIT;
    cf_begin(suite, "kv_cache_append_head_major");
    cf_tensor_t ck = cf_output(suite, HEADS * CAPACITY * DIM), cv = cf_output(suite, ck.count);
    cf_tensor_t nk = cf_input(suite, HEADS * COUNT * DIM, 1), nv = cf_input(suite, nk.count, 1);
    double rk[HEADS * CAPACITY * DIM], rv[HEADS * CAPACITY * DIM];
    memcpy(rk, ck.v, sizeof rk);
    memcpy(rv, cv.v, sizeof rv);
    for (int h = 0; h < HEADS; h++) {
        memcpy(rk + (h * CAPACITY + LEN) * DIM, nk.v + h * COUNT * DIM, COUNT * DIM * sizeof *rk);
        memcpy(rv + (h * CAPACITY + LEN) * DIM, nv.v + h * COUNT * DIM, COUNT * DIM * sizeof *rv);
    }
    if (cf_ok(suite,
              suite->be->kv_cache_append_head_major(suite->ctx, ck.buffer, cv.buffer, LEN, CAPACITY,
                                                    nk.buffer, nv.buffer, COUNT, HEADS, DIM, &err),
              &err)) {
        cf_expect_rows(suite, &ck, rk, DIM, 0);
        cf_expect_rows(suite, &cv, rv, DIM, 0);
    }
    cf_end(suite);

    cf_begin(suite, "kv_cache_append_head_major beyond the capacity");
    ck = cf_output(suite, HEADS * CAPACITY * DIM), cv = cf_output(suite, ck.count);
    nk = cf_input(suite, HEADS * COUNT * DIM, 1), nv = cf_input(suite, nk.count, 1);
    cf_expect_error(suite,
                    suite->be->kv_cache_append_head_major(suite->ctx, ck.buffer, cv.buffer,
                                                          CAPACITY - 1, CAPACITY, nk.buffer,
                                                          nv.buffer, COUNT, HEADS, DIM, &err),
                    FERRUM_INVALID_ARGUMENT, &err);
    cf_expect_untouched(suite, &ck);
    cf_end(suite);
}

static ferrum_attn_config_t config_of(const shape_t *s)
{
    return (ferrum_attn_config_t){.head = FERRUM_HEAD(ferrum_attn_config_t),
                                  .num_heads = s->heads,
                                  .num_kv_heads = s->kv_heads,
                                  .head_dim = s->dim,
                                  .causal = 1,
                                  .scale = (float)(1 / sqrt((double)s->dim)),
                                  .sliding_window = s->window};
}

/* Keys 0..visible-1, at most the last window, rows found through a callback's base and stride. */
static void attend(const shape_t *s, const double *q, const double *const *k,
                   const double *const *v, uint32_t visible, double *out)
{
    uint32_t first = s->window && visible > s->window ? visible - s->window : 0;
    cf_ref_attention(q, k + first, v + first, visible - first, s->dim, 1 / sqrt((double)s->dim),
                     out);
}

static void flash_case(cf_suite_t *suite, const shape_t *s, uint32_t batch, uint32_t q_len,
                       uint32_t kv_len, uint32_t stride)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint32_t rows = stride ? stride : kv_len, offset = kv_len - q_len;
    cf_begin(suite, "flash_attention batch=%u q=%u kv=%u heads=%u/%u dim=%u window=%u stride=%u",
             batch, q_len, kv_len, s->heads, s->kv_heads, s->dim, s->window, stride);
    cf_tensor_t q = cf_input(suite, (uint64_t)batch * s->heads * q_len * s->dim, 2);
    cf_tensor_t k = cf_input(suite, (uint64_t)batch * s->kv_heads * rows * s->dim, 2);
    cf_tensor_t v = cf_input(suite, k.count, 2), out = cf_output(suite, q.count);
    double *reference = cf_memory(suite, q.count * sizeof *reference);
    const double **keys = cf_memory(suite, kv_len * sizeof *keys);
    const double **values = cf_memory(suite, kv_len * sizeof *values);
    for (uint32_t b = 0; b < batch; b++)
        for (uint32_t h = 0; h < s->heads; h++) {
            size_t kv = ((size_t)b * s->kv_heads + h / (s->heads / s->kv_heads)) * rows;
            for (uint32_t j = 0; j < kv_len; j++) {
                keys[j] = k.v + (kv + j) * s->dim;
                values[j] = v.v + (kv + j) * s->dim;
            }
            for (uint32_t i = 0; i < q_len; i++) {
                size_t at = (((size_t)b * s->heads + h) * q_len + i) * s->dim;
                attend(s, q.v + at, keys, values, offset + i + 1, reference + at);
            }
        }
    ferrum_attn_config_t config = config_of(s);
    config.kv_seq_stride = stride;
    if (cf_ok(suite,
              suite->be->flash_attention(suite->ctx, q.buffer, k.buffer, v.buffer, out.buffer,
                                         batch, q_len, kv_len, offset, &config, &err),
              &err))
        cf_expect_rows(suite, &out, reference, s->dim, 3);
    cf_end(suite);
}

void cf_group_attention(cf_suite_t *suite)
{
    for (ferrum_rope_mode_t mode = 0; mode <= FERRUM_ROPE_INTERLEAVED; mode++)
        rope_cases(suite, mode);
    append_cases(suite);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        flash_case(suite, &shapes[i], 1, 1, 1, 0);
        flash_case(suite, &shapes[i], 2, 5, 5, 0);
        flash_case(suite, &shapes[i], 1, 1, 67, 80);
        flash_case(suite, &shapes[i], 2, 9, 40, 41);
    }
}

/* A batch of sequences in a paged pool with a scrambled block table. */
typedef struct pool {
    ferrum_paged_kv_t kv;
    cf_tensor_t k, v;
    cf_ints_t tables;
    double **keys, **values; /* [seqs * MAX_POS] rows of [kv_heads, dim], reference side */
} pool_t;

enum {
    BLOCK = 16,
    PER_SEQ = MAX_POS / BLOCK,
    SEQS = 3,
    BLOCKS = SEQS * PER_SEQ + 2
};

static pool_t make_pool(cf_suite_t *suite, const shape_t *s, ferrum_kv_layout_t layout)
{
    pool_t p;
    int32_t tables[SEQS * PER_SEQ];
    uint64_t count = (uint64_t)BLOCKS * s->kv_heads * BLOCK * s->dim;
    for (int i = 0; i < SEQS * PER_SEQ; i++) /* 7 and BLOCKS = 20 have no common factor */
        tables[i] = (i * 7 + 3) % BLOCKS;
    p.k = cf_output(suite, count);
    p.v = cf_output(suite, count);
    p.tables = cf_ints(suite, tables, SEQS * PER_SEQ);
    p.keys = cf_memory(suite, SEQS * MAX_POS * sizeof *p.keys);
    p.values = cf_memory(suite, SEQS * MAX_POS * sizeof *p.values);
    p.kv = (ferrum_paged_kv_t){.head = FERRUM_HEAD(ferrum_paged_kv_t),
                               .pool_k = p.k.buffer,
                               .pool_v = p.v.buffer,
                               .num_blocks = BLOCKS,
                               .block_size = BLOCK,
                               .num_kv_heads = s->kv_heads,
                               .head_dim = s->dim,
                               .layout = layout,
                               .max_blocks_per_seq = PER_SEQ};
    return p;
}

/* Reference attention of one token of sequence `seq` that sees `visible` positions. */
static void paged_reference(cf_suite_t *suite, const shape_t *s, const pool_t *p, uint32_t seq,
                            const double *q, uint32_t visible, double *out)
{
    const double **keys = cf_memory(suite, MAX_POS * sizeof *keys);
    const double **values = cf_memory(suite, MAX_POS * sizeof *values);
    for (uint32_t h = 0; h < s->heads; h++) {
        size_t head = (size_t)(h / (s->heads / s->kv_heads)) * s->dim;
        for (uint32_t j = 0; j < visible; j++) {
            keys[j] = p->keys[seq * MAX_POS + j] + head;
            values[j] = p->values[seq * MAX_POS + j] + head;
        }
        attend(s, q + (size_t)h * s->dim, keys, values, visible, out + (size_t)h * s->dim);
    }
}

/* Record where the reference keys of new tokens are. */
static void note_rows(pool_t *p, uint32_t seq, uint32_t first, uint32_t count, double *k, double *v,
                      size_t kv_row)
{
    for (uint32_t t = 0; t < count; t++) {
        p->keys[seq * MAX_POS + first + t] = k + t * kv_row;
        p->values[seq * MAX_POS + first + t] = v + t * kv_row;
    }
}

static void paged_single_case(cf_suite_t *suite, const shape_t *s, ferrum_kv_layout_t layout)
{
    enum {
        FIRST = 21,
        SECOND = 6
    };
    ferrum_error_t err = FERRUM_ERROR_INIT;
    size_t q_row = (size_t)s->heads * s->dim, kv_row = (size_t)s->kv_heads * s->dim;
    uint32_t positions[FIRST], start = 0;
    cf_begin(suite,
             "paged write and attention of one sequence, layout %u, heads=%u/%u dim=%u "
             "window=%u",
             layout, s->heads, s->kv_heads, s->dim, s->window);
    rotation_t r = make_rotation(suite, s->dim, FERRUM_ROPE_NORM_HALF);
    pool_t p = make_pool(suite, s, layout);
    ferrum_attn_config_t config = config_of(s);
    const uint32_t chunks[2] = {FIRST, SECOND};
    for (int c = 0; c < 2; c++) {
        uint32_t tokens = chunks[c];
        for (uint32_t t = 0; t < tokens; t++)
            positions[t] = start + t;
        cf_tensor_t qkv = cf_input(suite, 5 + tokens * (q_row + 2 * kv_row), 2);
        split_t want = reference_split(suite, &r, qkv.v + 5, s, tokens, positions);
        note_rows(&p, 0, start, tokens, want.k, want.v, kv_row);
        cf_tensor_t q = cf_output(suite, 3 + tokens * q_row),
                    out = cf_output(suite, tokens * q_row);
        if (!cf_ok(suite,
                   suite->ql->paged_kv_write(suite->ctx, qkv.buffer, 5, &r.rope, q.buffer, 3, &p.kv,
                                             p.tables.buffer, tokens, s->heads, start, start, &err),
                   &err))
            break;
        start += tokens;
        const int32_t lens[1] = {(int32_t)start};
        cf_ints_t context = cf_ints(suite, lens, 1);
        /* q as the attention wants it, at offset 0. */
        cf_tensor_t query = cf_output(suite, tokens * q_row);
        cf_ok(
            suite,
            suite->be->buffer_copy(suite->ctx, q.buffer, 3, query.buffer, 0, tokens * q_row, &err),
            &err);
        double *token_major = cf_memory(suite, tokens * q_row * sizeof(double));
        for (uint32_t t = 0; t < tokens; t++)
            paged_reference(suite, s, &p, 0, want.q + t * q_row, start - tokens + t + 1,
                            token_major + t * q_row);
        if (cf_ok(suite,
                  suite->ql->paged_decode_attention(suite->ctx, query.buffer, &p.kv, out.buffer,
                                                    p.tables.buffer, context.buffer, 1, tokens,
                                                    &config, &err),
                  &err))
            cf_expect_rows(suite, &out, to_head_major(suite, token_major, tokens, s->heads, s->dim),
                           s->dim, 4);
    }
    cf_end(suite);
}

static void paged_batch_case(cf_suite_t *suite, const shape_t *s, ferrum_kv_layout_t layout)
{
    enum {
        ROUNDS = 2,
        MOST = 40
    };
    static const uint32_t lengths[ROUNDS][SEQS] = {{17, 1, 22}, {1, 1, 1}};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    size_t q_row = (size_t)s->heads * s->dim, kv_row = (size_t)s->kv_heads * s->dim;
    int32_t have[SEQS] = {0};
    cf_begin(suite, "paged varlen write and attention, layout %u, heads=%u/%u dim=%u window=%u",
             layout, s->heads, s->kv_heads, s->dim, s->window);
    rotation_t r = make_rotation(suite, s->dim, FERRUM_ROPE_NORM_HALF);
    pool_t p = make_pool(suite, s, layout);
    ferrum_attn_config_t config = config_of(s);
    for (int round = 0; round < ROUNDS && !suite->case_refused; round++) {
        uint32_t positions[MOST], total = 0;
        int32_t cu[SEQS + 1] = {0};
        for (uint32_t q = 0; q < SEQS; q++) {
            for (uint32_t t = 0; t < lengths[round][q]; t++)
                positions[total++] = (uint32_t)have[q] + t;
            cu[q + 1] = (int32_t)total;
        }
        cf_tensor_t qkv = cf_input(suite, total * (q_row + 2 * kv_row), 2);
        split_t want = reference_split(suite, &r, qkv.v, s, total, positions);
        cf_ints_t cu_dev = cf_ints(suite, cu, SEQS + 1), pos_dev = cf_ints(suite, have, SEQS);
        cf_tensor_t q = cf_output(suite, total * q_row), out = cf_output(suite, total * q_row);
        double *reference = cf_memory(suite, total * q_row * sizeof *reference);
        for (uint32_t i = 0; i < SEQS; i++) {
            uint32_t at = (uint32_t)cu[i];
            note_rows(&p, i, (uint32_t)have[i], lengths[round][i], want.k + at * kv_row,
                      want.v + at * kv_row, kv_row);
            for (uint32_t t = 0; t < lengths[round][i]; t++)
                paged_reference(suite, s, &p, i, want.q + (at + t) * q_row,
                                (uint32_t)have[i] + t + 1, reference + (at + t) * q_row);
        }
        if (!cf_ok(suite,
                   suite->ql->paged_kv_write_varlen(suite->ctx, qkv.buffer, &r.rope, q.buffer,
                                                    &p.kv, cu_dev.buffer, pos_dev.buffer,
                                                    p.tables.buffer, SEQS, total, s->heads, &err),
                   &err))
            break;
        cf_expect_rows(suite, &q, want.q, s->dim, 2);
        if (cf_ok(suite,
                  suite->ql->paged_varlen_attention(suite->ctx, q.buffer, &p.kv, out.buffer,
                                                    cu_dev.buffer, pos_dev.buffer, p.tables.buffer,
                                                    SEQS, total, MAX_POS, &config, &err),
                  &err))
            cf_expect_rows(suite, &out, reference, s->dim, 4);
        for (int i = 0; i < SEQS; i++)
            have[i] += (int32_t)lengths[round][i];
        if (total != SEQS)
            continue;
        /* One query per sequence: the two decode forms must say the same. */
        cf_ints_t lens = cf_ints(suite, have, SEQS);
        cf_tensor_t batched = cf_output(suite, total * q_row),
                    decode = cf_output(suite, total * q_row);
        if (cf_ok(suite,
                  suite->ql->paged_batched_decode_attention(
                      suite->ctx, q.buffer, &p.kv, batched.buffer, p.tables.buffer, lens.buffer,
                      SEQS, MAX_POS, &config, &err),
                  &err))
            cf_expect_rows(suite, &batched, reference, s->dim, 4);
        if (cf_ok(suite,
                  suite->ql->paged_decode_attention(suite->ctx, q.buffer, &p.kv, decode.buffer,
                                                    p.tables.buffer, lens.buffer, SEQS, 1, &config,
                                                    &err),
                  &err))
            cf_expect_rows(suite, &decode, reference, s->dim, 4);
    }
    cf_end(suite);
}

void cf_group_paged(cf_suite_t *suite)
{
    for (ferrum_kv_layout_t layout = 0; layout <= FERRUM_KV_LAYOUT_VLLM; layout++)
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            paged_single_case(suite, &shapes[i], layout);
            paged_batch_case(suite, &shapes[i], layout);
        }
}
