/* SPDX-License-Identifier: MIT */
/* Bucket plan, alignment, block sizes and pair lists. */
#include "host/moe/align.h"
#include "host/moe/route_scratch.h"
#include "tests/moe/random.h"
#include "tests/support/expect.h"

#include <stdlib.h>

static void set_ids(ferrum_router_output_t *out, uint32_t batch, uint32_t top_k,
                    const uint32_t *ids)
{
    EXPECT_OK(ferrum_router_output_reset(out, batch, top_k, &err));
    for (uint32_t p = 0; p < batch * top_k; p++) {
        out->expert_ids[p] = ids[p];
        out->expert_weights[p] = 0.25f + (float)p;
    }
}

static void check_invariants(const ferrum_router_output_t *out, const ferrum_bucket_plan_t *plan)
{
    uint32_t pairs = out->batch * out->top_k;
    uint8_t *seen = calloc(pairs + 1, 1);
    ck_assert_uint_eq(plan->pairs, pairs);
    ck_assert_uint_eq(plan->expert_offsets[0], 0);
    ck_assert_uint_eq(plan->expert_offsets[plan->num_experts], pairs);
    for (uint32_t e = 0; e < plan->num_experts; e++)
        ck_assert_uint_le(plan->expert_offsets[e], plan->expert_offsets[e + 1]);
    for (uint32_t p = 0; p < pairs; p++) {
        uint32_t row = (uint32_t)plan->pairs_by_token[p], e = out->expert_ids[p];
        ck_assert_uint_lt(row, pairs);
        ck_assert_msg(!seen[row], "packed row %u is used twice", row);
        seen[row] = 1;
        ck_assert_uint_ge(row, plan->expert_offsets[e]);
        ck_assert_uint_lt(row, plan->expert_offsets[e + 1]);
        ck_assert_uint_eq(plan->packed_token_idx[row], p / out->top_k);
        ck_assert_uint_eq(plan->packed_pairs[row], p);
        ck_assert_float_eq(plan->pair_weights[p], out->expert_weights[p]);
    }
    for (uint32_t row = 0; row + 1 < pairs; row++)
        if (out->expert_ids[plan->packed_pairs[row]] ==
            out->expert_ids[plan->packed_pairs[row + 1]])
            ck_assert_uint_lt(plan->packed_pairs[row], plan->packed_pairs[row + 1]); /* stable */
    free(seen);
}

START_TEST(random_plans)
{
    uint64_t seed = 99;
    ferrum_router_output_t out = {0};
    ferrum_bucket_plan_t plan = {0};
    for (int round = 0; round < 200; round++) {
        uint32_t experts = 1 + lcg_below(&seed, 130), top_k = 1 + lcg_below(&seed, 8);
        uint32_t batch = lcg_below(&seed, 40);
        EXPECT_OK(ferrum_router_output_reset(&out, batch, top_k, &err));
        for (uint32_t p = 0; p < batch * top_k; p++) {
            /* Half of the rounds are skewed: few experts get nearly everything. */
            uint32_t id = lcg_below(&seed, experts);
            out.expert_ids[p] = round % 2 ? id * id / (experts * 2 + 1) : id;
            out.expert_weights[p] = lcg_unit(&seed);
        }
        EXPECT_OK(ferrum_bucket_plan_rebuild(&out, experts, &plan, &err));
        check_invariants(&out, &plan);
    }
    ferrum_router_output_free(&out);
    ferrum_bucket_plan_free(&plan);
}
END_TEST

START_TEST(empty_plan)
{
    ferrum_router_output_t out = {0};
    ferrum_bucket_plan_t plan = {0};
    ferrum_moe_alignment_t alignment = {0};
    EXPECT_OK(ferrum_router_output_reset(&out, 0, 4, &err));
    EXPECT_OK(ferrum_bucket_plan_rebuild(&out, 8, &plan, &err));
    ck_assert_uint_eq(plan.pairs, 0);
    for (uint32_t e = 0; e <= 8; e++)
        ck_assert_uint_eq(plan.expert_offsets[e], 0);
    EXPECT_OK(ferrum_moe_align(&plan, 16, FERRUM_ALIGN_PACKED_ROWS, &alignment, &err));
    ck_assert_uint_eq(alignment.total, 0);
    ck_assert_uint_eq(ferrum_moe_pick_block_size(&plan), 16);
    ferrum_moe_alignment_free(&alignment);
    ferrum_bucket_plan_free(&plan);
    ferrum_router_output_free(&out);
}
END_TEST

START_TEST(id_out_of_range)
{
    const uint32_t ids[] = {0, 1, 2, 99};
    ferrum_router_output_t out = {0};
    ferrum_bucket_plan_t plan = {0};
    set_ids(&out, 2, 2, ids);
    EXPECT_FAILS(ferrum_bucket_plan_rebuild(&out, 4, &plan, &err), FERRUM_INVALID_INPUT,
                 "expert id 99 of token 1, slot 1");
    ck_assert_uint_eq(plan.pairs, 0);
    ferrum_bucket_plan_free(&plan);
    ferrum_router_output_free(&out);
}
END_TEST

START_TEST(too_many_pairs)
{
    ferrum_router_output_t out = {.batch = 1u << 30, .top_k = 8};
    ferrum_bucket_plan_t plan = {0};
    EXPECT_FAILS(ferrum_bucket_plan_rebuild(&out, 4, &plan, &err), FERRUM_INVALID_ARGUMENT,
                 "2^31-1");
    ferrum_bucket_plan_free(&plan);
}
END_TEST

START_TEST(no_growth_once_warm)
{
    uint64_t seed = 1;
    ferrum_router_output_t out = {0};
    ferrum_bucket_plan_t plan = {0};
    uint64_t bytes[2] = {0};
    for (int round = 0; round < 17; round++) {
        EXPECT_OK(ferrum_router_output_reset(&out, 32, 8, &err));
        for (uint32_t p = 0; p < 256; p++)
            out.expert_ids[p] = lcg_below(&seed, 128);
        EXPECT_OK(ferrum_bucket_plan_rebuild(&out, 128, &plan, &err));
        if (round > 0) {
            ck_assert_uint_eq(plan.by_expert_store.bytes, bytes[0]);
            ck_assert_uint_eq(plan.by_pair_store.bytes, bytes[1]);
        }
        bytes[0] = plan.by_expert_store.bytes;
        bytes[1] = plan.by_pair_store.bytes;
    }
    ferrum_bucket_plan_free(&plan);
    ferrum_router_output_free(&out);
}
END_TEST

/* The worked example of align.h. */
START_TEST(worked_example)
{
    static const uint32_t ids[] = {1, 3, 1, 0, 3, 1};
    static const int32_t rows[] = {0, 6, 6, 6, 1, 2, 3, 6, 4, 5, 6, 6};
    static const int32_t pairs[] = {3, 6, 6, 6, 0, 2, 5, 6, 1, 4, 6, 6};
    static const int32_t blocks[] = {0, 1, 3};
    static const uint32_t offsets[] = {0, 1, 4, 4, 6};
    ferrum_router_output_t out = {0};
    ferrum_bucket_plan_t plan = {0};
    ferrum_moe_alignment_t alignment = {0};
    set_ids(&out, 3, 2, ids);
    EXPECT_OK(ferrum_bucket_plan_rebuild(&out, 4, &plan, &err));
    check_invariants(&out, &plan);
    ck_assert_mem_eq(plan.expert_offsets, offsets, sizeof offsets);
    EXPECT_OK(ferrum_moe_align(&plan, 4, FERRUM_ALIGN_PACKED_ROWS, &alignment, &err));
    ck_assert_uint_eq(alignment.total, 12);
    ck_assert_uint_eq(alignment.blocks, 3);
    ck_assert_mem_eq(alignment.sorted, rows, sizeof rows);
    ck_assert_mem_eq(alignment.block_ids, blocks, sizeof blocks);
    EXPECT_OK(ferrum_moe_align(&plan, 4, FERRUM_ALIGN_PAIR_IDS, &alignment, &err));
    ck_assert_mem_eq(alignment.sorted, pairs, sizeof pairs);
    ck_assert_mem_eq(alignment.block_ids, blocks, sizeof blocks);
    EXPECT_FAILS(ferrum_moe_align(&plan, 0, FERRUM_ALIGN_PAIR_IDS, &alignment, &err),
                 FERRUM_INVALID_ARGUMENT, "block size");
    ferrum_moe_alignment_free(&alignment);
    ferrum_bucket_plan_free(&plan);
    ferrum_router_output_free(&out);
}
END_TEST

START_TEST(random_alignments)
{
    static const uint32_t sizes[] = {1, 8, 16, 32, 48, 64};
    uint64_t seed = 7;
    ferrum_router_output_t out = {0};
    ferrum_bucket_plan_t plan = {0};
    ferrum_moe_alignment_t alignment = {0};
    for (int round = 0; round < 60; round++) {
        uint32_t experts = 1 + lcg_below(&seed, 40), block = sizes[round % 6];
        EXPECT_OK(ferrum_router_output_reset(&out, 1 + lcg_below(&seed, 60), 2, &err));
        for (uint32_t p = 0; p < out.batch * 2; p++)
            out.expert_ids[p] = lcg_below(&seed, experts);
        EXPECT_OK(ferrum_bucket_plan_rebuild(&out, experts, &plan, &err));
        EXPECT_OK(ferrum_moe_align(&plan, block, FERRUM_ALIGN_PAIR_IDS, &alignment, &err));
        ck_assert_uint_eq(alignment.total, alignment.blocks * block);
        uint32_t real = 0;
        for (uint32_t s = 0; s < alignment.total; s++) {
            uint32_t id = (uint32_t)alignment.sorted[s];
            if (id == plan.pairs)
                continue;
            real++;
            ck_assert_uint_lt(id, plan.pairs);
            ck_assert_int_eq(alignment.block_ids[s / block], (int32_t)out.expert_ids[id]);
        }
        ck_assert_uint_eq(real, plan.pairs);
    }
    ferrum_moe_alignment_free(&alignment);
    ferrum_bucket_plan_free(&plan);
    ferrum_router_output_free(&out);
}
END_TEST

/* A plan with the given rows per expert; only what the picker reads. */
static uint32_t picked(const uint32_t *rows, uint32_t experts)
{
    uint32_t offsets[65] = {0};
    for (uint32_t e = 0; e < experts; e++)
        offsets[e + 1] = offsets[e] + rows[e];
    ferrum_bucket_plan_t plan = {
        .num_experts = experts, .pairs = offsets[experts], .expert_offsets = offsets};
    return ferrum_moe_pick_block_size(&plan);
}

START_TEST(picked_block_sizes)
{
    ck_assert_uint_eq(picked((uint32_t[]){64, 64}, 2), 64);
    ck_assert_uint_eq(picked((uint32_t[]){50, 50}, 2), 64); /* 128 <= 1.3 * 100 */
    ck_assert_uint_eq(picked((uint32_t[]){49, 49}, 2), 16); /* 128 > 127.4, 128 with 32 too */
    ck_assert_uint_eq(picked((uint32_t[]){32, 32}, 2), 32);
    ck_assert_uint_eq(picked((uint32_t[]){25, 25}, 2), 32);  /* 64 <= 65 */
    ck_assert_uint_eq(picked((uint32_t[]){1, 1, 1}, 3), 16); /* nothing fits */
    ck_assert_uint_eq(picked((uint32_t[]){0, 0}, 2), 16);
}
END_TEST

START_TEST(chosen_block_sizes)
{
    ferrum_moe_env_t env;
    uint32_t offsets[] = {0, 64, 128};
    ferrum_bucket_plan_t plan = {.num_experts = 2, .pairs = 128, .expert_offsets = offsets};
    ferrum_moe_env_defaults(&env);
    ck_assert_uint_eq(ferrum_moe_choose_block_size(&env, 1024, NULL), 16);
    ck_assert_uint_eq(ferrum_moe_choose_block_size(&env, 128, &plan), 64);
    env.large_m_block_size = 64;
    ck_assert_uint_eq(ferrum_moe_choose_block_size(&env, 256, NULL), 16);
    ck_assert_uint_eq(ferrum_moe_choose_block_size(&env, 1023, NULL), 16);
    ck_assert_uint_eq(ferrum_moe_choose_block_size(&env, 1024, NULL), 64);
    env.block_size = 32; /* wins over both */
    ck_assert_uint_eq(ferrum_moe_choose_block_size(&env, 256, NULL), 32);
    ck_assert_uint_eq(ferrum_moe_choose_block_size(&env, 1024, NULL), 32);
    ck_assert_uint_eq(ferrum_moe_choose_block_size(&env, 128, &plan), 32);
}
END_TEST

START_TEST(pair_lists)
{
    static const uint32_t selected[] = {1, 3, 1, 0};
    static const int32_t tpe[] = {1, 2, 0, 1};
    static const int32_t ids[] = {3, 0, 0, 2, 0, 0, 1, 0};
    ferrum_ids_tpe_t lists = {0};
    EXPECT_OK(ferrum_compute_ids_tpe(selected, 4, 4, &lists, &err));
    ck_assert_uint_eq(lists.max_per_expert, 2);
    ck_assert_mem_eq(lists.tpe, tpe, sizeof tpe);
    ck_assert_mem_eq(lists.ids, ids, sizeof ids);
    /* Ids beyond the experts are skipped; the longest list counts as at least 1. */
    EXPECT_OK(ferrum_compute_ids_tpe((const uint32_t[]){7, UINT32_MAX}, 2, 4, &lists, &err));
    ck_assert_uint_eq(lists.max_per_expert, 1);
    for (int e = 0; e < 4; e++)
        ck_assert_int_eq(lists.tpe[e] + lists.ids[e], 0);
    ferrum_ids_tpe_free(&lists);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bucket_plan");
    TCase *tcase = tcase_create("plan");
    tcase_add_test(tcase, random_plans);
    tcase_add_test(tcase, empty_plan);
    tcase_add_test(tcase, id_out_of_range);
    tcase_add_test(tcase, too_many_pairs);
    tcase_add_test(tcase, no_growth_once_warm);
    tcase_add_test(tcase, worked_example);
    tcase_add_test(tcase, random_alignments);
    tcase_add_test(tcase, picked_block_sizes);
    tcase_add_test(tcase, chosen_block_sizes);
    tcase_add_test(tcase, pair_lists);
    suite_add_tcase(suite, tcase);
    return expect_run(suite);
}
