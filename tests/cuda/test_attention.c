/* SPDX-License-Identifier: MIT */
/*
 * Attention on tensor cores against f64: grouped heads, both layouts of the paged cache, windows,
 * keys in several splits, several queries at once. What no position holds is NaN. A row has the
 * same bits alone, in a batch, in another chunk and replayed from a graph.
 */
#include "tests/cuda/fixture.h"

#include <math.h>
#include <stdlib.h>

/** One model's attention. */
typedef struct shape {
    uint32_t dim, heads, kv_heads, window;
    ferrum_kv_layout_t layout;
    ferrum_dtype_t act;
} shape_t;

static const shape_t shapes[] = {
    {64, 4, 2, 0, FERRUM_KV_LAYOUT_FA, FERRUM_DTYPE_F16},
    {64, 4, 2, 0, FERRUM_KV_LAYOUT_VLLM, FERRUM_DTYPE_F16},
    {128, 8, 1, 0, FERRUM_KV_LAYOUT_VLLM, FERRUM_DTYPE_BF16},
    {128, 2, 2, 100, FERRUM_KV_LAYOUT_FA, FERRUM_DTYPE_BF16},
    {64, 20, 1, 70, FERRUM_KV_LAYOUT_VLLM, FERRUM_DTYPE_F16},
    {64, 6, 2, 0, FERRUM_KV_LAYOUT_FA, FERRUM_DTYPE_BF16},
};
enum {
    SHAPES = sizeof shapes / sizeof shapes[0],
    BLOCK = 16
};

/** A paged cache of some sequences, and what it holds. */
typedef struct cache {
    shape_t shape;
    uint32_t sequences, capacity; /**< positions of a sequence, a multiple of BLOCK */
    float *k, *v;                 /**< [sequences, capacity, kv_heads, dim] */
    int32_t *table;
    ferrum_buffer_t *tables;
    ferrum_paged_kv_t kv;
} cache_t;

static uint32_t random_state = 1;

/** Exact in f16 and bf16. */
static float random_value(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (float)((int)(random_state >> 16 & 127) - 64) / 32.0f;
}

static float *random_values(size_t count)
{
    float *values = calloc(count ? count : 1, sizeof *values);

    ck_assert_ptr_nonnull(values);
    for (size_t i = 0; i < count; i++)
        values[i] = random_value();
    return values;
}

static ferrum_buffer_t *act_new(const shape_t *shape, const float *values, uint64_t count)
{
    ferrum_buffer_t *buffer;

    EXPECT_OK(cuda.be->buffer_alloc(cuda.device, shape->act, count, &buffer, &err));
    if (values)
        EXPECT_OK(cuda.be->buffer_write_f32(cuda.ctx, buffer, 0, values, count, &err));
    return buffer;
}

/** Where element d of a key or value lies in a pool. */
static size_t pool_place(const cache_t *cache, uint32_t block, uint32_t slot, uint32_t head,
                         uint32_t d, bool is_value)
{
    const shape_t *s = &cache->shape;
    const size_t start = ((size_t)block * s->kv_heads + head) * BLOCK * s->dim;

    if (s->layout == FERRUM_KV_LAYOUT_FA)
        return start + (size_t)slot * s->dim + d;
    return is_value ? start + (size_t)d * BLOCK + slot
                    : start + ((size_t)(d / 8) * BLOCK + slot) * 8 + d % 8;
}

/** A pool as the backend wants it; positions from lengths[s] on are NaN. */
static ferrum_buffer_t *make_pool(const cache_t *cache, const float *values, const int32_t *lengths,
                                  bool is_value)
{
    const shape_t *s = &cache->shape;
    const size_t count = (size_t)cache->kv.num_blocks * s->kv_heads * BLOCK * s->dim;
    float *pool = calloc(count, sizeof *pool);

    ck_assert_ptr_nonnull(pool);
    for (size_t i = 0; i < count; i++)
        pool[i] = NAN;
    for (uint32_t q = 0; q < cache->sequences; q++)
        for (uint32_t p = 0; (int32_t)p < lengths[q]; p++)
            for (uint32_t h = 0; h < s->kv_heads; h++)
                for (uint32_t d = 0; d < s->dim; d++)
                    pool[pool_place(cache,
                                    (uint32_t)cache->table[q * cache->capacity / BLOCK + p / BLOCK],
                                    p % BLOCK, h, d, is_value)] =
                        values[(((size_t)q * cache->capacity + p) * s->kv_heads + h) * s->dim + d];
    ferrum_buffer_t *buffer = act_new(s, pool, count);
    free(pool);
    return buffer;
}

static void cache_make(cache_t *cache, const shape_t *shape, uint32_t sequences, uint32_t capacity,
                       const int32_t *lengths)
{
    const uint32_t each = capacity / BLOCK, blocks = sequences * each;
    const size_t count = (size_t)sequences * capacity * shape->kv_heads * shape->dim;

    *cache = (cache_t){.shape = *shape, .sequences = sequences, .capacity = capacity};
    cache->k = random_values(count);
    cache->v = random_values(count);
    cache->table = calloc(blocks, sizeof *cache->table);
    ck_assert_ptr_nonnull(cache->table);
    for (uint32_t i = 0; i < blocks; i++) /* from the last block down */
        cache->table[i] = (int32_t)(blocks - i);
    cache->tables = cuda_i32(cache->table, blocks);
    cache->kv = (ferrum_paged_kv_t){.head = FERRUM_HEAD(ferrum_paged_kv_t),
                                    .num_blocks = blocks + 1,
                                    .block_size = BLOCK,
                                    .num_kv_heads = shape->kv_heads,
                                    .head_dim = shape->dim,
                                    .layout = shape->layout,
                                    .max_blocks_per_seq = each};
    cache->kv.pool_k = make_pool(cache, cache->k, lengths, false);
    cache->kv.pool_v = make_pool(cache, cache->v, lengths, true);
}

static void cache_free(cache_t *cache)
{
    cuda.be->buffer_release(cache->kv.pool_k);
    cuda.be->buffer_release(cache->kv.pool_v);
    cuda.be->buffer_release(cache->tables);
    free(cache->k);
    free(cache->v);
    free(cache->table);
}

static ferrum_attn_config_t config_of(const shape_t *shape)
{
    return (ferrum_attn_config_t){.head = FERRUM_HEAD(ferrum_attn_config_t),
                                  .num_heads = shape->heads,
                                  .num_kv_heads = shape->kv_heads,
                                  .head_dim = shape->dim,
                                  .causal = 1,
                                  .scale = 1.0f / sqrtf((float)shape->dim),
                                  .sliding_window = shape->window};
}

/** A query of one head that sees positions below @p end, in f64; hidden blocks are skipped. */
static void reference(const cache_t *cache, uint32_t sequence, uint32_t head, const float *q,
                      uint32_t end, double *out)
{
    const shape_t *s = &cache->shape;
    const uint32_t kv_head = head / (s->heads / s->kv_heads);
    const uint32_t first = s->window && end > s->window ? end - s->window : 0;
    const double scale = (double)config_of(s).scale;
    double *logits = calloc(end ? end : 1, sizeof *logits), top = -INFINITY, sum = 0;

    ck_assert_ptr_nonnull(logits);
    for (uint32_t d = 0; d < s->dim; d++)
        out[d] = 0;
    for (int pass = 0; pass < 3; pass++) /* logits, their sum, values */
        for (uint32_t p = first; p < end; p++) {
            const size_t at =
                (((size_t)sequence * cache->capacity + p) * s->kv_heads + kv_head) * s->dim;
            if (cache->table[sequence * cache->capacity / BLOCK + p / BLOCK] < 0)
                continue;
            for (uint32_t d = 0; pass == 0 && d < s->dim; d++)
                logits[p] += (double)q[d] * (double)cache->k[at + d] * scale;
            top = pass == 0 && logits[p] > top ? logits[p] : top;
            sum += pass == 1 ? exp(logits[p] - top) : 0;
            for (uint32_t d = 0; pass == 2 && d < s->dim; d++)
                out[d] += exp(logits[p] - top) / sum * (double)cache->v[at + d];
        }
    free(logits);
}

/** Row @p row of @p out (heads in a row) is what the reference says. */
static void check_row(const cache_t *cache, const float *out, const float *q, uint32_t row,
                      uint32_t sequence, uint32_t end)
{
    const shape_t *s = &cache->shape;
    double want[128];

    for (uint32_t h = 0; h < s->heads; h++) {
        const size_t at = ((size_t)row * s->heads + h) * s->dim;
        double difference = 0, norm = 0;
        reference(cache, sequence, h, q + at, end, want);
        for (uint32_t d = 0; d < s->dim; d++) {
            difference += pow((double)out[at + d] - want[d], 2);
            norm += want[d] * want[d];
        }
        const double bound = s->act == FERRUM_DTYPE_F16 ? 2e-3 : 1e-2;
        ck_assert_msg(sqrt(difference) <= bound * sqrt(norm),
                      "row %u (sequence %u, %u keys), head %u: relative error %g", row, sequence,
                      end, h, sqrt(difference / norm));
    }
}

static float *read_act(ferrum_buffer_t *buffer, uint64_t count)
{
    float *values = calloc(count ? count : 1, sizeof *values);

    ck_assert_ptr_nonnull(values);
    EXPECT_OK(cuda.be->buffer_read_f32(cuda.ctx, buffer, 0, values, count, &err));
    return values;
}

static void decode(cache_t *cache, ferrum_buffer_t *q, ferrum_buffer_t *out,
                   ferrum_buffer_t *tables, ferrum_buffer_t *lengths, uint32_t sequences)
{
    const ferrum_attn_config_t config = config_of(&cache->shape);

    EXPECT_OK(cuda.ql->paged_batched_decode_attention(cuda.ctx, q, &cache->kv, out, tables, lengths,
                                                      sequences, cache->capacity, &config, &err));
}

/** Decode of all sequences: against f64, each alone bit by bit, and from a graph. */
static void decode_case(const shape_t *shape, const int32_t *lengths, uint32_t sequences,
                        uint32_t capacity)
{
    const size_t row = (size_t)shape->heads * shape->dim, count = sequences * row;
    cache_t cache;

    cuda_open_as(shape->act);
    cache_make(&cache, shape, sequences, capacity, lengths);
    float *q_values = random_values(count);
    ferrum_buffer_t *q = act_new(shape, q_values, count), *out = act_new(shape, NULL, count);
    ferrum_buffer_t *lens = cuda_i32(lengths, sequences), *one = act_new(shape, NULL, row);
    decode(&cache, q, out, cache.tables, lens, sequences);
    float *all = read_act(out, count);
    for (uint32_t s = 0; s < sequences; s++)
        check_row(&cache, all, q_values, s, s, lengths[s] > 0 ? (uint32_t)lengths[s] : 0);
    for (uint32_t s = 0; s < sequences; s++) {
        ferrum_buffer_t *alone = act_new(shape, q_values + s * row, row);
        ferrum_buffer_t *table = cuda_i32(cache.table + s * capacity / BLOCK, capacity / BLOCK);
        ferrum_buffer_t *length = cuda_i32(lengths + s, 1);
        decode(&cache, alone, one, table, length, 1);
        float *values = read_act(one, row);
        ck_assert_mem_eq(values, all + s * row, row * sizeof *values);
        free(values);
        cuda.be->buffer_release(alone);
        cuda.be->buffer_release(table);
        cuda.be->buffer_release(length);
    }
    ck_assert_str_eq(cuda.fault(), "");
    free(all);
    free(q_values);
    cuda.be->buffer_release(q);
    cuda.be->buffer_release(out);
    cuda.be->buffer_release(lens);
    cuda.be->buffer_release(one);
    cache_free(&cache);
    cuda_close();
}

START_TEST(decode_matches)
{
    static const int32_t lengths[] = {1, 64, 700, 0, 63, 256, 257, 65};

    decode_case(&shapes[_i], lengths, 8, 704);
}
END_TEST

/** So long that splits have more than 256 keys. */
START_TEST(long_decode_matches)
{
    static const int32_t lengths[] = {8704, 8193};
    const shape_t shape = {64, 2, 1, 0, FERRUM_KV_LAYOUT_VLLM, FERRUM_DTYPE_F16};

    decode_case(&shape, lengths, 2, 8704);
}
END_TEST

START_TEST(small_decode)
{
    static const int32_t lengths[] = {70, 300, 5};

    decode_case(&shapes[_i], lengths, 3, 304);
}
END_TEST

/** One mixed batch of @p counts queries from @p positions on; the values of out, free() them. */
static float *run_varlen(cache_t *cache, const float *q_values, const int32_t *counts,
                         const int32_t *positions, uint32_t sequences)
{
    const shape_t *s = &cache->shape;
    const ferrum_attn_config_t config = config_of(s);
    int32_t starts[8] = {0};

    for (uint32_t i = 0; i < sequences; i++)
        starts[i + 1] = starts[i] + counts[i];
    const uint32_t total = (uint32_t)starts[sequences];
    const uint64_t count = (uint64_t)total * s->heads * s->dim;
    ferrum_buffer_t *q = act_new(s, q_values, count), *out = act_new(s, NULL, count);
    ferrum_buffer_t *cu = cuda_i32(starts, sequences + 1), *pos = cuda_i32(positions, sequences);
    EXPECT_OK(cuda.ql->paged_varlen_attention(cuda.ctx, q, &cache->kv, out, cu, pos, cache->tables,
                                              sequences, total, cache->capacity, &config, &err));
    float *values = read_act(out, count);
    cuda.be->buffer_release(q);
    cuda.be->buffer_release(out);
    cuda.be->buffer_release(cu);
    cuda.be->buffer_release(pos);
    return values;
}

/** A mixed batch against f64; its last sequence again, in two chunks, bit by bit. */
static void prefill_case(const shape_t *shape, const int32_t *counts, const int32_t *positions,
                         uint32_t sequences, uint32_t capacity)
{
    enum {
        FIRST_CHUNK = 13
    };
    int32_t lengths[8], chunk_counts[8] = {0}, chunk_positions[8] = {0};
    uint32_t total = 0, row = 0;
    const size_t width = (size_t)shape->heads * shape->dim;
    const uint32_t last = sequences - 1;
    cache_t cache;

    cuda_open_as(shape->act);
    for (uint32_t s = 0; s < sequences; s++) {
        lengths[s] = positions[s] + counts[s];
        total += (uint32_t)counts[s];
    }
    cache_make(&cache, shape, sequences, capacity, lengths);
    float *q = random_values(total * width);
    float *all = run_varlen(&cache, q, counts, positions, sequences);
    for (uint32_t s = 0; s < sequences; s++)
        for (int32_t i = 0; i < counts[s]; i++)
            check_row(&cache, all, q, row++, s, (uint32_t)(positions[s] + i + 1));
    row = total - (uint32_t)counts[last];
    for (int chunk = 0; chunk < 2; chunk++) {
        chunk_counts[last] = chunk ? counts[last] - FIRST_CHUNK : FIRST_CHUNK;
        chunk_positions[last] = positions[last] + (chunk ? FIRST_CHUNK : 0);
        float *part = run_varlen(&cache, q + row * width, chunk_counts, chunk_positions, sequences);
        ck_assert_mem_eq(part, all + row * width,
                         (size_t)chunk_counts[last] * width * sizeof *part);
        row += FIRST_CHUNK;
        free(part);
    }
    ck_assert_str_eq(cuda.fault(), "");
    free(q);
    free(all);
    cache_free(&cache);
    cuda_close();
}

START_TEST(prefill_matches)
{
    static const int32_t counts[] = {17, 0, 1, 64, 40}, positions[] = {0, 9, 200, 33, 30};

    prefill_case(&shapes[_i], counts, positions, 5, 208);
}
END_TEST

START_TEST(small_prefill)
{
    static const int32_t counts[] = {3, 18}, positions[] = {70, 0};

    prefill_case(&shapes[_i], counts, positions, 2, 80);
}
END_TEST

/** What a captured decode step is given. */
typedef struct step {
    cache_t cache;
    ferrum_buffer_t *q, *out, *lengths;
    uint32_t sequences;
} step_t;

static void run_step(void *arg)
{
    step_t *step = arg;
    decode(&step->cache, step->q, step->out, step->cache.tables, step->lengths, step->sequences);
}

/** One launch per step; replays follow the lengths, and leave the tickets as they were. */
START_TEST(decode_in_a_graph)
{
    static const int32_t most[] = {700, 300, 650};
    const shape_t *shape = &shapes[1];
    const uint64_t count = 3 * (uint64_t)shape->heads * shape->dim;
    step_t step = {.sequences = 3};

    cuda_open_as(shape->act);
    cache_make(&step.cache, shape, 3, 704, most);
    float *q = random_values(count);
    step.q = act_new(shape, q, count);
    step.out = act_new(shape, NULL, count);
    step.lengths = cuda_i32(most, 3);
    ck_assert_uint_eq(cuda_steady(run_step, &step, 1), 1);
    cuda_capture(run_step, &step, 1);
    for (int32_t shorter = 0; shorter < 300; shorter += 90) {
        const int32_t lengths[] = {700 - 2 * shorter, 300 - shorter, 650 - shorter};
        EXPECT_OK(
            cuda.be->buffer_write(cuda.ctx, step.lengths, 0, FERRUM_DTYPE_I32, lengths, 3, &err));
        run_step(&step);
        float *eager = read_act(step.out, count);
        EXPECT_OK(cuda.be->buffer_zero(cuda.ctx, step.out, 0, count, &err));
        cuda_replay(1);
        float *replayed = read_act(step.out, count);
        ck_assert_mem_eq(replayed, eager, count * sizeof *eager);
        free(eager);
        free(replayed);
    }
    free(q);
    cuda.be->buffer_release(step.q);
    cuda.be->buffer_release(step.out);
    cuda.be->buffer_release(step.lengths);
    cache_free(&step.cache);
    cuda_close();
}
END_TEST

/** Blocks that do not exist hide their keys, in the middle of a split, too. */
START_TEST(missing_blocks_hide_keys)
{
    static const int32_t lengths[] = {330};
    const shape_t *shape = &shapes[_i];
    const uint64_t count = (uint64_t)shape->heads * shape->dim;
    cache_t cache;

    cuda_open_as(shape->act);
    cache_make(&cache, shape, 1, 336, lengths);
    cache.table[1] = -1;
    cache.table[17] = -7;
    EXPECT_OK(
        cuda.be->buffer_write(cuda.ctx, cache.tables, 0, FERRUM_DTYPE_I32, cache.table, 21, &err));
    float *q = random_values(count);
    ferrum_buffer_t *query = act_new(shape, q, count), *out = act_new(shape, NULL, count);
    ferrum_buffer_t *lens = cuda_i32(lengths, 1);
    decode(&cache, query, out, cache.tables, lens, 1);
    float *values = read_act(out, count);
    check_row(&cache, values, q, 0, 0, 330);
    ck_assert_str_eq(cuda.fault(), "");
    free(q);
    free(values);
    cuda.be->buffer_release(query);
    cuda.be->buffer_release(out);
    cuda.be->buffer_release(lens);
    cache_free(&cache);
    cuda_close();
}
END_TEST

int main(void)
{
    if (!cuda_built())
        return 77;
    Suite *suite = suite_create("cuda attention");
    TCase *cases = tcase_create("attention");
    tcase_set_timeout(cases, 300);
    tcase_add_loop_test(cases, decode_matches, 0, SHAPES);
    tcase_add_test(cases, long_decode_matches);
    tcase_add_loop_test(cases, prefill_matches, 0, SHAPES);
    tcase_add_test(cases, decode_in_a_graph);
    tcase_add_loop_test(cases, missing_blocks_hide_keys, 0, SHAPES);
    suite_add_tcase(suite, cases);
    TCase *races = tcase_create("small");
    tcase_set_timeout(races, 300);
    tcase_add_loop_test(races, small_decode, 0, 4);
    tcase_add_loop_test(races, small_prefill, 0, 4);
    suite_add_tcase(suite, races);
    return expect_run(suite);
}
