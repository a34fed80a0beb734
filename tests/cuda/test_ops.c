/* SPDX-License-Identifier: MIT */
/* Ops: what lies in device memory and is wrong, dtypes besides the activations', and a steady
 * state. */
#include "tests/cuda/fixture.h"

#include <stdlib.h>

enum {
    DIM = 16,
    HEADS = 2,
    BLOCK = 4,
    BLOCKS = 4,
    ROWS = 6
};

static void release(ferrum_buffer_t *const *buffers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        cuda.be->buffer_release(buffers[i]);
}
#define RELEASE(...)                                                                               \
    release((ferrum_buffer_t *const[]){__VA_ARGS__},                                               \
            sizeof((ferrum_buffer_t *const[]){__VA_ARGS__}) / sizeof(ferrum_buffer_t *))

START_TEST(ids_out_of_range_give_zeros)
{
    const int32_t ids[] = {1, -1, ROWS, 0};

    cuda_open();
    ferrum_buffer_t *table = cuda_ramp(ROWS * DIM, 1, 1), *out = cuda_ramp(4 * DIM, 99, 0);
    ferrum_buffer_t *device_ids = cuda_i32(ids, 4);
    EXPECT_OK(cuda.be->embedding_lookup_dev(cuda.ctx, table, device_ids, 4, out, DIM, &err));
    ck_assert(cuda_at(out, 0) == 17.0f && cuda_at(out, DIM) == 0.0f);
    ck_assert(cuda_at(out, 2 * DIM + 5) == 0.0f && cuda_at(out, 3 * DIM) == 1.0f);
    ck_assert_str_eq(cuda.fault(), "");
    RELEASE(table, out, device_ids);
    cuda_close();
}
END_TEST

/** One decode step over a pool with @p table; all values are 1, so any key seen gives 1. */
static float decode(const int32_t *table, int32_t keys)
{
    ferrum_buffer_t *k = cuda_ramp(BLOCKS * BLOCK * DIM, 1, 0),
                    *v = cuda_ramp(BLOCKS * BLOCK * DIM, 1, 0);
    ferrum_buffer_t *q = cuda_ramp(HEADS * DIM, 1, 0), *out = cuda_ramp(HEADS * DIM, 9, 0);
    ferrum_buffer_t *tables = cuda_i32(table, 2), *lens = cuda_i32(&keys, 1);
    const ferrum_paged_kv_t kv = {.head = FERRUM_HEAD(ferrum_paged_kv_t),
                                  .pool_k = k,
                                  .pool_v = v,
                                  .num_blocks = BLOCKS,
                                  .block_size = BLOCK,
                                  .num_kv_heads = 1,
                                  .head_dim = DIM,
                                  .max_blocks_per_seq = 2};
    const ferrum_attn_config_t config = {.head = FERRUM_HEAD(ferrum_attn_config_t),
                                         .num_heads = HEADS,
                                         .num_kv_heads = 1,
                                         .head_dim = DIM,
                                         .causal = 1,
                                         .scale = 0.25f};

    EXPECT_OK(
        cuda.ql->paged_decode_attention(cuda.ctx, q, &kv, out, tables, lens, 1, 1, &config, &err));
    const float result = cuda_at(out, DIM + 3);
    ck_assert_str_eq(cuda.fault(), "");
    RELEASE(k, v, q, out, tables, lens);
    return result;
}

START_TEST(bad_tables_hide_keys)
{
    cuda_open();
    ck_assert(decode((const int32_t[]){2, 0}, 7) == 1.0f);
    ck_assert(decode((const int32_t[]){2, -5}, 7) == 1.0f);
    ck_assert(decode((const int32_t[]){-1, BLOCKS}, 7) == 0.0f);
    ck_assert(decode((const int32_t[]){1, 3}, 1000000) == 1.0f);
    ck_assert(decode((const int32_t[]){1, 3}, -3) == 0.0f);
    cuda_close();
}
END_TEST

START_TEST(f32_weights_and_tables)
{
    const uint32_t id = 2;

    cuda_open();
    ferrum_buffer_t *x = cuda_ramp(DIM, 2, 0), *out = cuda_ramp(DIM, 9, 0);
    ferrum_buffer_t *w = cuda_f32(DIM, 3, 0), *table = cuda_f32(ROWS * DIM, 0, 1);
    EXPECT_OK(cuda.be->rms_norm(cuda.ctx, x, w, 0.0f, out, 1, DIM, &err));
    ck_assert(cuda_at(out, DIM - 1) == 3.0f);
    EXPECT_OK(cuda.be->add_bias(cuda.ctx, x, w, 1, DIM, &err));
    ck_assert(cuda_at(x, 0) == 5.0f);
    EXPECT_OK(cuda.be->embedding_lookup(cuda.ctx, table, &id, 1, out, DIM, &err));
    ck_assert(cuda_at(out, 1) == 33.0f);
    EXPECT_FAILS(cuda.be->add_inplace(cuda.ctx, x, w, DIM, &err), FERRUM_INVALID_ARGUMENT,
                 "add_inplace: x is f32, expected f16");
    RELEASE(x, out, w, table);
    cuda_close();
}
END_TEST

START_TEST(a_steady_step_neither_allocates_nor_waits)
{
    const int32_t ids[] = {1, 2, 3};
    ferrum_context_stats_t before = {.head = FERRUM_HEAD(ferrum_context_stats_t)}, after = before;

    cuda_open();
    ferrum_buffer_t *table = cuda_ramp(ROWS * DIM, 0, 0.01f), *x = cuda_ramp(3 * DIM, 0, 0);
    ferrum_buffer_t *w = cuda_ramp(DIM * DIM, 0, 0.001f), *y = cuda_ramp(3 * DIM, 0, 0);
    ferrum_buffer_t *device_ids = cuda_i32(ids, 3);
    EXPECT_OK(cuda.be->context_sync(cuda.ctx, &err));
    const uint64_t allocated = cuda.count("cuMemAlloc_v2");
    EXPECT_OK(cuda.be->context_stats(cuda.ctx, &before, &err));
    for (int step = 0; step < 5; step++) {
        EXPECT_OK(cuda.be->embedding_lookup_dev(cuda.ctx, table, device_ids, 3, x, DIM, &err));
        EXPECT_OK(cuda.be->rms_norm(cuda.ctx, x, w, 1e-6f, y, 3, DIM, &err));
        EXPECT_OK(cuda.be->gemm(cuda.ctx, y, w, x, 3, DIM, DIM, &err));
        EXPECT_OK(cuda.be->buffer_copy(cuda.ctx, x, 0, y, 0, DIM, &err));
    }
    EXPECT_OK(cuda.be->context_stats(cuda.ctx, &after, &err));
    ck_assert_uint_eq(after.launches - before.launches, 15);
    ck_assert_uint_eq(after.allocations, before.allocations);
    ck_assert_uint_eq(after.copies, before.copies);
    ck_assert_uint_eq(after.syncs, before.syncs);
    ck_assert_uint_eq(cuda.count("cuMemAlloc_v2"), allocated);
    RELEASE(table, x, w, y, device_ids);
    cuda_close();
}
END_TEST

START_TEST(row_has_the_same_bits_in_every_batch)
{
    enum {
        M = 40, /* beyond the small tile's rows, so both kernels are compared */
        K = 72,
        N = 24
    };
    uint16_t alone[N], among[N];

    cuda_open();
    ferrum_buffer_t *a = cuda_ramp(M * K, -0.7f, 0.0013f), *b = cuda_ramp(N * K, 0.9f, -0.0017f);
    ferrum_buffer_t *many = cuda_ramp(M * N, 0, 0), *one = cuda_ramp(N, 0, 0);
    EXPECT_OK(cuda.be->gemm(cuda.ctx, a, b, many, M, N, K, &err));
    EXPECT_OK(cuda.be->gemm(cuda.ctx, a, b, one, 1, N, K, &err));
    EXPECT_OK(cuda.be->buffer_read(cuda.ctx, many, 0, FERRUM_DTYPE_F16, among, N, &err));
    EXPECT_OK(cuda.be->buffer_read(cuda.ctx, one, 0, FERRUM_DTYPE_F16, alone, N, &err));
    ck_assert_mem_eq(alone, among, sizeof alone);
    RELEASE(a, b, many, one);
    cuda_close();
}
END_TEST

/** More than the pinned memory holds, so that stages are used again while copies are queued. */
START_TEST(long_transfers_arrive_whole)
{
    enum {
        COUNT = 700000
    };
    uint32_t *values = calloc(COUNT, sizeof *values), *back = calloc(COUNT, sizeof *back);
    ferrum_buffer_t *buffer;

    ck_assert(values && back);
    for (uint32_t i = 0; i < COUNT; i++)
        values[i] = i * 2654435761u;
    cuda_open();
    EXPECT_OK(cuda.be->buffer_alloc(cuda.device, FERRUM_DTYPE_U32, COUNT, &buffer, &err));
    EXPECT_OK(cuda.be->buffer_write(cuda.ctx, buffer, 0, FERRUM_DTYPE_U32, values, COUNT, &err));
    EXPECT_OK(cuda.be->buffer_read(cuda.ctx, buffer, 0, FERRUM_DTYPE_U32, back, COUNT, &err));
    ck_assert_mem_eq(values, back, COUNT * sizeof *values);
    cuda.be->buffer_release(buffer);
    cuda_close();
    free(values);
    free(back);
}
END_TEST

int main(void)
{
    if (!cuda_built())
        return 77;
    Suite *suite = suite_create("cuda ops");
    TCase *cases = tcase_create("ops");
    tcase_add_test(cases, ids_out_of_range_give_zeros);
    tcase_add_test(cases, bad_tables_hide_keys);
    tcase_add_test(cases, f32_weights_and_tables);
    tcase_add_test(cases, a_steady_step_neither_allocates_nor_waits);
    tcase_add_test(cases, row_has_the_same_bits_in_every_batch);
    tcase_add_test(cases, long_transfers_arrive_whole);
    suite_add_tcase(suite, cases);
    return expect_run(suite);
}
