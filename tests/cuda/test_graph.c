/* SPDX-License-Identifier: MIT */
/* Capture and replay: what may be recorded, and what becomes of a graph. */
#include "tests/cuda/fixture.h"

static const ferrum_graph_key_t key = {7, 1}, other_key = {7, 2};

static uint32_t replay(const ferrum_graph_key_t *which)
{
    uint32_t launched = 9;
    EXPECT_OK(cuda.ql->graph_replay(cuda.ctx, which, &launched, &err));
    return launched;
}

/** Capture `x *= factor` under @p which. */
static void capture_scale(const ferrum_graph_key_t *which, ferrum_buffer_t *x, float factor)
{
    EXPECT_OK(cuda.ql->graph_begin(cuda.ctx, &err));
    EXPECT_OK(cuda.be->scale_inplace(cuda.ctx, x, factor, 8, &err));
    EXPECT_OK(cuda.ql->graph_end(cuda.ctx, which, &err));
}

START_TEST(refuses_what_cannot_be_recorded)
{
    uint32_t id = 0, launched, flying;
    float value = 1;

    cuda_open();
    ferrum_buffer_t *x = cuda_ramp(8, 1, 1), *y = cuda_ramp(8, 0, 0);
    EXPECT_OK(cuda.ql->graph_begin(cuda.ctx, &err));
    EXPECT_FAILS(cuda.ql->graph_begin(cuda.ctx, &err), FERRUM_BUSY, "graph_begin");
    EXPECT_FAILS(cuda.be->buffer_write_f32(cuda.ctx, x, 0, &value, 1, &err), FERRUM_BUSY,
                 "buffer_write_f32: a graph capture is in flight");
    EXPECT_FAILS(cuda.be->buffer_read_f32(cuda.ctx, x, 0, &value, 1, &err), FERRUM_BUSY, "read");
    EXPECT_FAILS(cuda.be->context_sync(cuda.ctx, &err), FERRUM_BUSY, "context_sync");
    EXPECT_FAILS(cuda.be->argmax_rows(cuda.ctx, x, 1, 8, &id, &err), FERRUM_BUSY, "argmax_rows");
    EXPECT_FAILS(cuda.be->embedding_lookup(cuda.ctx, x, &id, 1, y, 8, &err), FERRUM_BUSY, "lookup");
    EXPECT_FAILS(cuda.ql->graph_replay(cuda.ctx, &key, &launched, &err), FERRUM_BUSY, "replay");
    EXPECT_FAILS(cuda.ql->graph_set_decode_state(cuda.ctx, 1, 1, &err), FERRUM_BUSY, "state");
    EXPECT_FAILS(cuda.ql->pregrow_gather_scratch(cuda.ctx, 1 << 20, &err), FERRUM_BUSY,
                 "scratch must grow");
    EXPECT_OK(cuda.be->add_inplace(cuda.ctx, y, x, 8, &err));
    EXPECT_OK(cuda.ql->graph_end(cuda.ctx, &key, &err));
    EXPECT_OK(cuda.ql->graph_in_flight(cuda.ctx, &flying, &err));
    ck_assert_uint_eq(flying, 0);
    ck_assert(cuda_at(y, 7) == 0.0f); /* recorded, not run */
    ck_assert_uint_eq(replay(&key), 1);
    ck_assert_uint_eq(replay(&key), 1);
    ck_assert(cuda_at(y, 7) == 16.0f);
    EXPECT_FAILS(cuda.ql->graph_end(cuda.ctx, &key, &err), FERRUM_INVALID_ARGUMENT, "graph_begin");
    cuda.be->buffer_release(x);
    cuda.be->buffer_release(y);
    cuda_close();
}
END_TEST

START_TEST(keys_and_contexts_are_apart)
{
    ferrum_context_t *second;
    uint32_t launched = 9;

    cuda_open();
    EXPECT_OK(cuda.be->context_new(cuda.device, NULL, &second, &err));
    ferrum_buffer_t *x = cuda_ramp(8, 1, 0);
    capture_scale(&key, x, 2.0f);
    capture_scale(&other_key, x, 3.0f);
    EXPECT_OK(cuda.ql->graph_replay(second, &key, &launched, &err));
    ck_assert_uint_eq(launched, 0);
    ck_assert_uint_eq(replay(&other_key), 1);
    ck_assert(cuda_at(x, 0) == 3.0f);
    capture_scale(&other_key, x, 5.0f); /* replaces the older one */
    ck_assert_uint_eq(replay(&other_key), 1);
    ck_assert(cuda_at(x, 0) == 15.0f);
    EXPECT_OK(cuda.ql->graph_reset(cuda.ctx, &other_key, &err));
    ck_assert_uint_eq(replay(&other_key), 0);
    ck_assert_uint_eq(replay(&key), 1);
    EXPECT_OK(cuda.ql->graph_reset_all(cuda.ctx, &err));
    ck_assert_uint_eq(replay(&key), 0);
    cuda.be->buffer_release(x);
    cuda.be->context_free(second);
    cuda_close();
}
END_TEST

START_TEST(freed_buffer_drops_the_graph)
{
    cuda_open();
    ferrum_buffer_t *x = cuda_ramp(8, 1, 0), *y = cuda_ramp(8, 1, 0);
    capture_scale(&key, x, 2.0f);
    capture_scale(&other_key, y, 2.0f);
    cuda.be->buffer_release(x);
    ck_assert_uint_eq(replay(&key), 0);
    ck_assert_uint_eq(replay(&other_key), 1);
    EXPECT_OK(cuda.be->context_sync(cuda.ctx, &err));
    ck_assert_str_eq(cuda.fault(), "");
    cuda.be->buffer_release(y);
    cuda_close();
}
END_TEST

START_TEST(failed_end_leaves_nothing)
{
    cuda_open();
    ferrum_buffer_t *x = cuda_ramp(8, 1, 0);
    EXPECT_OK(cuda.ql->graph_begin(cuda.ctx, &err));
    EXPECT_OK(cuda.be->scale_inplace(cuda.ctx, x, 2.0f, 8, &err));
    ck_assert_int_eq(cuda.set("FAIL", "cuGraphInstantiateWithFlags:0:2"), 0);
    EXPECT_FAILS(cuda.ql->graph_end(cuda.ctx, &key, &err), FERRUM_OUT_OF_MEMORY, "capture");
    ck_assert_int_eq(cuda.set("FAIL", ""), 0);
    ck_assert_uint_eq(replay(&key), 0);
    EXPECT_OK(cuda.be->scale_inplace(cuda.ctx, x, 2.0f, 8, &err)); /* eagerly, as documented */
    ck_assert(cuda_at(x, 0) == 2.0f);
    cuda.be->buffer_release(x);
    cuda_close();
}
END_TEST

START_TEST(context_freed_during_a_capture)
{
    cuda_open();
    ferrum_buffer_t *x = cuda_ramp(8, 1, 0);
    EXPECT_OK(cuda.ql->graph_begin(cuda.ctx, &err));
    EXPECT_OK(cuda.be->scale_inplace(cuda.ctx, x, 2.0f, 8, &err));
    cuda.be->buffer_release(x);
    cuda_close();
}
END_TEST

/** One decode step at a position that the captured kernels read from the device. */
START_TEST(device_state_moves_a_captured_step)
{
    enum {
        DIM = 8,
        CAPACITY = 6
    };

    cuda_open();
    ferrum_buffer_t *qkv = cuda_ramp(3 * DIM, 1, 1), *q = cuda_ramp(DIM, 0, 0);
    ferrum_buffer_t *k = cuda_ramp(CAPACITY * DIM, 0, 0), *v = cuda_ramp(CAPACITY * DIM, 0, 0);
    const ferrum_rope_t rope = {.head = FERRUM_HEAD(ferrum_rope_t), .mode = FERRUM_ROPE_NONE};
    EXPECT_OK(cuda.ql->graph_set_device_state_mode(cuda.ctx, 1, &err));
    EXPECT_OK(cuda.ql->graph_begin(cuda.ctx, &err));
    EXPECT_OK(cuda.be->split_qkv_norm_rope_into_cache(cuda.ctx, qkv, &rope, q, k, v, 1, 1, 1, DIM,
                                                      0, 0, CAPACITY, &err));
    EXPECT_OK(cuda.ql->graph_end(cuda.ctx, &key, &err));
    for (uint32_t step = 2; step < 5; step++) {
        EXPECT_OK(cuda.ql->graph_set_decode_state(cuda.ctx, 0, step, &err));
        ck_assert_uint_eq(replay(&key), 1);
    }
    EXPECT_OK(cuda.ql->graph_set_decode_state(cuda.ctx, 0, CAPACITY, &err)); /* no such slot */
    ck_assert_uint_eq(replay(&key), 1);
    for (uint32_t slot = 0; slot < CAPACITY; slot++) {
        const bool written = slot >= 2 && slot < 5;
        ck_assert(cuda_at(k, slot * DIM) == (written ? 9.0f : 0.0f));
        ck_assert(cuda_at(v, slot * DIM) == (written ? 17.0f : 0.0f));
    }
    ferrum_buffer_t *const buffers[] = {qkv, q, k, v};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        cuda.be->buffer_release(buffers[i]);
    cuda_close();
}
END_TEST

int main(void)
{
    if (!cuda_built())
        return 77;
    Suite *suite = suite_create("cuda graph");
    TCase *cases = tcase_create("graph");
    tcase_add_test(cases, refuses_what_cannot_be_recorded);
    tcase_add_test(cases, keys_and_contexts_are_apart);
    tcase_add_test(cases, freed_buffer_drops_the_graph);
    tcase_add_test(cases, failed_end_leaves_nothing);
    tcase_add_test(cases, context_freed_during_a_capture);
    tcase_add_test(cases, device_state_moves_a_captured_step);
    suite_add_tcase(suite, cases);
    return expect_run(suite);
}
