/* SPDX-License-Identifier: MIT */
/* Keys and values through every pair of cache kinds, element by element, and what happens to the
 * requests afterwards. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "host/model/kv_migrate.h"
#include "host/runtime/session_internal.h"
#include "tests/swap/fixture.h"

enum {
    LAYERS = 2,
    HEADS = 2,
    DIM = 8,
    CAPACITY = 72,
    SEQUENCES = 3
};

typedef enum kind {
    KIND_FA,
    KIND_VLLM,
    KIND_CONTIGUOUS,
    KIND_COUNT
} kind_t;

static swap_fixture_t fixture;
static ferrum_session_t *session;
static const ferrum_ops_t *ops;
static ferrum_context_t *ctx;

static void set_up(void)
{
    fixture_open(&fixture, fixture_plugin_path("cpu"), NULL);
    ck_assert_int_eq(ferrum_session_new(fixture.runtime, 1, &session, NULL), FERRUM_OK);
    ops = ferrum_runtime_ops(fixture.runtime);
    ctx = ferrum_session_context(session);
}

static void tear_down(void)
{
    ferrum_session_free(session);
    fixture_close(&fixture);
}

static ferrum_kv_cache_t *new_cache(kind_t kind, bool prefix_cache)
{
    ferrum_kv_cache_t *cache = NULL;
    const ferrum_kv_shape_t shape = {.layers = LAYERS,
                                     .kv_heads = HEADS,
                                     .head_dim = DIM,
                                     .capacity = CAPACITY,
                                     .max_sequences = SEQUENCES,
                                     .paged = kind != KIND_CONTIGUOUS,
                                     .layout = kind == KIND_VLLM ? FERRUM_KV_LAYOUT_VLLM
                                                                 : FERRUM_KV_LAYOUT_FA,
                                     .prefix_cache = prefix_cache};
    ck_assert_int_eq(ferrum_kv_cache_new(ops, &shape, &cache, NULL), FERRUM_OK);
    ck_assert_int_eq(ferrum_kv_cache_prepare(cache, NULL), FERRUM_OK);
    return cache;
}

/* Buffer and index of one element, by the description of the layouts in ferrum/backend.h. */
static ferrum_buffer_t *find(const ferrum_kv_cache_t *cache, kind_t kind,
                             const ferrum_sequence_t *sequence, uint32_t layer, bool is_k,
                             uint32_t position, uint32_t head, uint32_t d, uint64_t *out_index)
{
    if (kind == KIND_CONTIGUOUS) {
        ferrum_buffer_t *k, *v;
        ferrum_kv_cache_contiguous(cache, sequence, layer, &k, &v);
        *out_index = ((uint64_t)head * CAPACITY + position) * DIM + d;
        return is_k ? k : v;
    }
    const ferrum_paged_kv_t *pool = ferrum_kv_cache_paged(cache, layer);
    uint64_t block = (uint64_t)ferrum_kv_cache_table(cache, sequence)[position / 16];
    uint32_t slot = position % 16;
    if (kind == KIND_FA)
        *out_index = ((block * HEADS + head) * 16 + slot) * DIM + d;
    else if (is_k) /* f32: 4 elements make 16 bytes */
        *out_index = (((block * HEADS + head) * (DIM / 4) + d / 4) * 16 + slot) * 4 + d % 4;
    else
        *out_index = ((block * HEADS + head) * DIM + d) * 16 + slot;
    return is_k ? pool->pool_k : pool->pool_v;
}

static float value_of(uint64_t id, uint32_t layer, bool is_k, uint32_t position, uint32_t head,
                      uint32_t d)
{
    return (float)(((((id * LAYERS + layer) * 2 + is_k) * CAPACITY + position) * HEADS + head) *
                       DIM +
                   d) +
           0.5f;
}

typedef void visit_fn(ferrum_buffer_t *buffer, uint64_t index, float value);

static void put(ferrum_buffer_t *buffer, uint64_t index, float value)
{
    ck_assert_int_eq(ops->backend->buffer_write_f32(ctx, buffer, index, &value, 1, NULL),
                     FERRUM_OK);
}

static void expect(ferrum_buffer_t *buffer, uint64_t index, float value)
{
    float got = -1;
    ck_assert_int_eq(ops->backend->buffer_read_f32(ctx, buffer, index, &got, 1, NULL), FERRUM_OK);
    ck_assert_float_eq(got, value);
}

static void visit(const ferrum_kv_cache_t *cache, kind_t kind, const ferrum_sequence_t *sequence,
                  uint32_t positions, visit_fn *fn)
{
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        for (int is_k = 0; is_k < 2; is_k++)
            for (uint32_t p = 0; p < positions; p++)
                for (uint32_t h = 0; h < HEADS; h++)
                    for (uint32_t d = 0; d < DIM; d++) {
                        uint64_t index;
                        ferrum_buffer_t *buffer =
                            find(cache, kind, sequence, layer, is_k, p, h, d, &index);
                        fn(buffer, index, value_of(sequence->id, layer, is_k, p, h, d));
                    }
}

static const uint32_t lengths[SEQUENCES] = {37, 16, 72};

static void fill(ferrum_kv_cache_t *cache, kind_t kind)
{
    uint32_t tokens[CAPACITY];
    for (uint32_t i = 0; i < CAPACITY; i++)
        tokens[i] = i * i % 97;
    for (uint64_t id = 0; id < SEQUENCES; id++) {
        ferrum_sequence_t *sequence;
        ck_assert_int_eq(ferrum_kv_cache_add(cache, id, &sequence, NULL), FERRUM_OK);
        ck_assert_int_eq(ferrum_kv_cache_reserve(cache, &sequence, 1, lengths[id], NULL),
                         FERRUM_OK);
        tokens[0] = (uint32_t)id; /* no prefix is shared here */
        ferrum_kv_cache_commit(cache, sequence, tokens, lengths[id]);
        visit(cache, kind, sequence, lengths[id], put);
    }
}

static ferrum_kv_cache_t *move(ferrum_kv_cache_t *from, kind_t to_kind)
{
    ferrum_kv_cache_t *to = new_cache(to_kind, ferrum_kv_cache_shape(from)->prefix_cache);
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ck_assert_msg(ferrum_kv_migrate(from, ctx, to, ctx, &err) == FERRUM_OK, "%s", err.message);
    ferrum_kv_hand_over(from, to);
    ferrum_kv_cache_free(from);
    return to;
}

START_TEST(every_element_arrives)
{
    kind_t from = (kind_t)(_i / KIND_COUNT), to = (kind_t)(_i % KIND_COUNT);
    ferrum_kv_cache_t *cache = new_cache(from, false);
    ferrum_sequence_t *before[SEQUENCES];
    fill(cache, from);
    for (uint64_t id = 0; id < SEQUENCES; id++)
        before[id] = ferrum_kv_cache_find(cache, id);
    cache = move(cache, to);
    ck_assert_uint_eq(ferrum_kv_cache_sequences(cache), SEQUENCES);
    for (uint64_t id = 0; id < SEQUENCES; id++) {
        ferrum_sequence_t *sequence = ferrum_kv_cache_find(cache, id);
        ck_assert_ptr_eq(sequence, before[id]);
        ck_assert_uint_eq(sequence->length, lengths[id]);
        visit(cache, to, sequence, lengths[id], expect);
    }
    /* requests go on, end, and give their blocks back */
    ferrum_sequence_t *first = ferrum_kv_cache_find(cache, 0);
    const uint32_t token = 5;
    ck_assert_int_eq(ferrum_kv_cache_reserve(cache, &first, 1, 20, NULL), FERRUM_OK);
    ferrum_kv_cache_trim(cache, first);
    ferrum_kv_cache_commit(cache, first, &token, 1);
    for (uint64_t id = 0; id < SEQUENCES; id++)
        ferrum_kv_cache_remove(cache, ferrum_kv_cache_find(cache, id));
    if (to != KIND_CONTIGUOUS) {
        ferrum_block_allocator_t *blocks = ferrum_kv_cache_blocks(cache);
        ck_assert_uint_eq(ferrum_block_allocator_free_count(blocks),
                          ferrum_block_allocator_total(blocks));
    }
    ferrum_kv_cache_free(cache);
}
END_TEST

/* A swap between two passes of a prompt: 21 of 40 rows are written, the length counts none. */
START_TEST(half_a_prompt_arrives)
{
    kind_t from = (kind_t)(_i / KIND_COUNT), to = (kind_t)(_i % KIND_COUNT);
    ferrum_kv_cache_t *cache = new_cache(from, false);
    ferrum_sequence_t *sequence;
    uint32_t tokens[40] = {0};
    ck_assert_int_eq(ferrum_kv_cache_add(cache, 1, &sequence, NULL), FERRUM_OK);
    ck_assert_int_eq(ferrum_kv_cache_reserve(cache, &sequence, 1, 40, NULL), FERRUM_OK);
    visit(cache, from, sequence, 21, put);
    ferrum_kv_cache_set_running(cache, sequence, 21, 40);
    cache = move(cache, to);
    ck_assert_uint_eq(sequence->length, 0);
    visit(cache, to, sequence, 21, expect);
    ferrum_kv_cache_set_running(cache, NULL, 0, 0);
    visit(cache, to, sequence, 40, put); /* the rest has its places */
    ferrum_kv_cache_commit(cache, sequence, tokens, 40);
    visit(cache, to, sequence, 40, expect);
    ferrum_kv_cache_free(cache);
}
END_TEST

START_TEST(prefixes_stay_shared)
{
    uint32_t tokens[40];
    ferrum_kv_cache_t *cache = new_cache(KIND_FA, true);
    ferrum_sequence_t *first, *second;
    for (uint32_t i = 0; i < 40; i++)
        tokens[i] = i;
    ck_assert_int_eq(ferrum_kv_cache_add(cache, 0, &first, NULL), FERRUM_OK);
    ck_assert_int_eq(ferrum_kv_cache_reserve(cache, &first, 1, 40, NULL), FERRUM_OK);
    ferrum_kv_cache_commit(cache, first, tokens, 40);
    visit(cache, KIND_FA, first, 40, put);
    ferrum_kv_cache_remove(cache, first); /* nobody holds the blocks, but their content is known */
    cache = move(cache, KIND_VLLM);
    ck_assert_int_eq(ferrum_kv_cache_add(cache, 0, &second, NULL), FERRUM_OK);
    ferrum_kv_cache_attach_prefix(cache, second, tokens, 40);
    ck_assert_uint_eq(second->length, 32);
    visit(cache, KIND_VLLM, second, 32, expect);

    /* in a contiguous cache nothing is shared, and coming back finds nothing wrong */
    cache = move(cache, KIND_CONTIGUOUS);
    visit(cache, KIND_CONTIGUOUS, second, 32, expect);
    cache = move(cache, KIND_FA);
    visit(cache, KIND_FA, second, 32, expect);
    ck_assert_int_eq(ferrum_kv_cache_reserve(cache, &second, 1, 16, NULL), FERRUM_OK);
    ferrum_kv_cache_commit(cache, second, tokens, 16); /* tokens 0 … 15 behind another prefix */
    ck_assert_int_eq(ferrum_kv_cache_add(cache, 7, &first, NULL), FERRUM_OK);
    ferrum_kv_cache_attach_prefix(cache, first, tokens, 40);
    ck_assert_uint_eq(first->length, 0);
    ferrum_kv_cache_free(cache);
}
END_TEST

START_TEST(empty_caches_move)
{
    ferrum_kv_cache_t *cache = new_cache(KIND_FA, false);
    for (int kind = KIND_COUNT - 1; kind >= 0; kind--)
        cache = move(cache, (kind_t)kind);
    ck_assert_uint_eq(ferrum_kv_cache_sequences(cache), 0);
    fill(cache, KIND_FA);
    ferrum_kv_cache_free(cache);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("kv_migrate");
    TCase *tcase = tcase_create("kv_migrate");
    fixture_need_plugin("cpu");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_loop_test(tcase, every_element_arrives, 0, KIND_COUNT * KIND_COUNT);
    tcase_add_loop_test(tcase, half_a_prompt_arrives, 0, KIND_COUNT * KIND_COUNT);
    tcase_add_test(tcase, prefixes_stay_shared);
    tcase_add_test(tcase, empty_caches_move);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
