/* SPDX-License-Identifier: MIT */
/* Block numbers, reference counts and the prefix cache, alone. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "host/model/block_allocator.h"

#define T FERRUM_KV_BLOCK_TOKENS

static ferrum_block_allocator_t *make(uint32_t blocks)
{
    ferrum_block_allocator_t *a = NULL;
    ck_assert_int_eq(ferrum_block_allocator_new(blocks, &a, NULL), FERRUM_OK);
    return a;
}

static int32_t take_one(ferrum_block_allocator_t *a)
{
    int32_t block = -1;
    ck_assert_int_eq(ferrum_block_allocator_take(a, 1, &block, NULL), FERRUM_OK);
    return block;
}

static void fill(uint32_t *tokens, uint32_t first)
{
    for (uint32_t i = 0; i < T; i++)
        tokens[i] = first + i;
}

START_TEST(first_block_is_zero)
{
    ferrum_block_allocator_t *a = make(4);
    int32_t blocks[4];
    ck_assert_int_eq(ferrum_block_allocator_take(a, 4, blocks, NULL), FERRUM_OK);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(blocks[i], i);
    ferrum_block_allocator_drop(a, 2);
    ferrum_block_allocator_drop(a, 1);
    ck_assert_int_eq(take_one(a), 1);
    ck_assert_int_eq(take_one(a), 2);
    ferrum_block_allocator_free(a);
}
END_TEST

START_TEST(all_or_none)
{
    ferrum_block_allocator_t *a = make(3);
    int32_t blocks[4] = {-7, -7, -7, -7};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    (void)take_one(a);
    ck_assert_int_eq(ferrum_block_allocator_take(a, 3, blocks, &err), FERRUM_RESOURCE_EXHAUSTED);
    ck_assert_ptr_nonnull(strstr(err.message, "3 KV blocks needed, 2 of 3 free"));
    ck_assert_int_eq(blocks[0], -7);
    ck_assert_uint_eq(ferrum_block_allocator_free_count(a), 2);
    ck_assert_int_eq(ferrum_block_allocator_take(a, 0, NULL, NULL), FERRUM_OK);
    ck_assert_int_eq(ferrum_block_allocator_take(a, 2, blocks, NULL), FERRUM_OK);
    ck_assert_uint_eq(ferrum_block_allocator_free_count(a), 0);
    ferrum_block_allocator_reset(a);
    ck_assert_uint_eq(ferrum_block_allocator_free_count(a), 3);
    ck_assert_int_eq(take_one(a), 0);
    ferrum_block_allocator_free(a);
    ck_assert_int_eq(ferrum_block_allocator_new(0, &a, NULL), FERRUM_INVALID_ARGUMENT);
}
END_TEST

START_TEST(references_keep_blocks)
{
    ferrum_block_allocator_t *a = make(2);
    uint32_t tokens[T];
    ferrum_block_chain_t chain = {0}, again = {0};
    fill(tokens, 5);
    int32_t block = take_one(a);
    ferrum_block_allocator_register(a, &chain, tokens, block);
    ck_assert_int_eq(ferrum_block_allocator_find(a, &again, tokens), block);
    ck_assert_uint_eq(ferrum_block_allocator_references(a, (uint32_t)block), 2);
    ck_assert_uint_eq(again.serial, chain.serial);
    ferrum_block_allocator_drop(a, block);
    ck_assert_uint_eq(ferrum_block_allocator_free_count(a), 1);
    ferrum_block_allocator_drop(a, block);
    ck_assert_uint_eq(ferrum_block_allocator_free_count(a), 2);
    ck_assert_uint_eq(ferrum_block_allocator_references(a, 99), 0);
    ferrum_block_allocator_free(a);
}
END_TEST

/* A freed block with content is taken last and can be revived until then. */
START_TEST(revive_and_evict)
{
    ferrum_block_allocator_t *a = make(3);
    uint32_t first[T], second[T];
    ferrum_block_chain_t chain = {0}, probe = {0};
    fill(first, 0);
    fill(second, 100);
    int32_t b0 = take_one(a), b1 = take_one(a);
    ferrum_block_allocator_register(a, &chain, first, b0);
    ferrum_block_allocator_register(a, &chain, second, b1);
    ferrum_block_allocator_drop(a, b1);
    ferrum_block_allocator_drop(a, b0);
    ck_assert_uint_eq(ferrum_block_allocator_free_count(a), 3);

    int32_t plain = take_one(a);
    ck_assert_int_eq(plain, 2);
    ck_assert_int_eq(ferrum_block_allocator_find(a, &probe, first), b0);
    ck_assert_int_eq(ferrum_block_allocator_find(a, &probe, second), b1);
    ck_assert_uint_eq(ferrum_block_allocator_free_count(a), 0);
    ferrum_block_allocator_drop(a, b1);
    ferrum_block_allocator_drop(a, b0);

    ck_assert_int_eq(take_one(a), b1); /* freed longest ago */
    probe = (ferrum_block_chain_t){0};
    ck_assert_int_eq(ferrum_block_allocator_find(a, &probe, first), b0);
    ck_assert_int_eq(ferrum_block_allocator_find(a, &probe, second), -1);
    uint64_t hits, misses;
    ferrum_block_allocator_stats(a, &hits, &misses);
    ck_assert_uint_eq(hits, 3);
    ck_assert_uint_eq(misses, 1);
    ferrum_block_allocator_free(a);
}
END_TEST

START_TEST(chain_tells_ancestors_apart)
{
    ferrum_block_allocator_t *a = make(8);
    uint32_t x[T], y[T], common[T];
    ferrum_block_chain_t chain_x = {0}, chain_y = {0}, probe = {0};
    fill(x, 1);
    fill(y, 2);
    fill(common, 50);
    int32_t bx = take_one(a), bxc = take_one(a), by = take_one(a), byc = take_one(a);
    ferrum_block_allocator_register(a, &chain_x, x, bx);
    ferrum_block_allocator_register(a, &chain_x, common, bxc);
    ferrum_block_allocator_register(a, &chain_y, y, by);
    ferrum_block_allocator_register(a, &chain_y, common, byc);
    ck_assert_int_eq(ferrum_block_allocator_find(a, &probe, common), -1);
    ck_assert_int_eq(ferrum_block_allocator_find(a, &probe, y), by);
    ck_assert_int_eq(ferrum_block_allocator_find(a, &probe, common), byc);
    ferrum_block_allocator_free(a);
}
END_TEST

static uint64_t constant_hash(uint64_t parent, const uint32_t *tokens)
{
    (void)parent;
    (void)tokens;
    return 42;
}

/* Every hash collides; content decides. */
START_TEST(collisions_do_not_share)
{
    ferrum_block_allocator_t *a = make(8);
    ferrum_block_allocator_set_hash(a, constant_hash);
    uint32_t x[T], y[T], z[T], common[T];
    ferrum_block_chain_t chain_x = {0}, chain_y = {0}, probe = {0};
    fill(x, 1);
    fill(y, 2);
    fill(z, 3);
    fill(common, 50);
    int32_t bx = take_one(a), bxc = take_one(a), by = take_one(a);
    ferrum_block_allocator_register(a, &chain_x, x, bx);
    ferrum_block_allocator_register(a, &chain_x, common, bxc);
    ferrum_block_allocator_register(a, &chain_y, y, by);
    ck_assert_int_eq(ferrum_block_allocator_find(a, &probe, z), -1);
    ck_assert_int_eq(ferrum_block_allocator_find(a, &probe, y), by);
    /* Same tokens, same (colliding) chained hash, but behind y instead of x. */
    ck_assert_int_eq(ferrum_block_allocator_find(a, &probe, common), -1);
    probe = (ferrum_block_chain_t){0};
    ck_assert_int_eq(ferrum_block_allocator_find(a, &probe, x), bx);
    ck_assert_int_eq(ferrum_block_allocator_find(a, &probe, common), bxc);
    ferrum_block_allocator_free(a);
}
END_TEST

/* Two requests compute the same block: the first stays the registered one. */
START_TEST(second_registration_joins_the_first)
{
    ferrum_block_allocator_t *a = make(2);
    uint32_t tokens[T];
    ferrum_block_chain_t one = {0}, two = {0}, probe = {0};
    fill(tokens, 9);
    int32_t b0 = take_one(a), b1 = take_one(a);
    ferrum_block_allocator_register(a, &one, tokens, b0);
    ferrum_block_allocator_register(a, &two, tokens, b1);
    ck_assert_uint_eq(one.serial, two.serial);
    ferrum_block_allocator_drop(a, b0);
    ferrum_block_allocator_drop(a, b1);
    ck_assert_int_eq(take_one(a), b1);
    ck_assert_int_eq(ferrum_block_allocator_find(a, &probe, tokens), b0);
    ferrum_block_allocator_free(a);
}
END_TEST

/* A random walk against a model that keeps contents in plain arrays. */
START_TEST(random_walk)
{
    enum {
        BLOCKS = 24,
        STEPS = 20000,
        KINDS = 40
    };
    ferrum_block_allocator_t *a = make(BLOCKS);
    int32_t held[BLOCKS];
    uint32_t content[BLOCKS] = {0}; /* kind + 1 of the block's content; 0: unknown */
    uint32_t count = 0;
    uint64_t state = 7;
    for (int step = 0; step < STEPS; step++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint32_t kind = (uint32_t)(state >> 40) % KINDS, action = (uint32_t)(state >> 33) % 3;
        uint32_t tokens[T];
        ferrum_block_chain_t chain = {0};
        fill(tokens, kind * 1000);
        if (action == 0 && count < BLOCKS) {
            int32_t block = ferrum_block_allocator_find(a, &chain, tokens);
            if (block >= 0) {
                ck_assert_uint_eq(content[block], kind + 1);
            } else {
                if (ferrum_block_allocator_free_count(a) == 0)
                    continue;
                block = take_one(a);
                content[block] = kind + 1;
                ferrum_block_allocator_register(a, &chain, tokens, block);
            }
            held[count++] = block;
        } else if (action == 1 && count < BLOCKS && ferrum_block_allocator_free_count(a)) {
            int32_t block = take_one(a);
            for (uint32_t i = 0; i < count; i++)
                ck_assert_int_ne(held[i], block);
            content[block] = 0;
            held[count++] = block;
        } else if (count != 0) {
            uint32_t which = (uint32_t)(state >> 50) % count;
            ferrum_block_allocator_drop(a, held[which]);
            held[which] = held[--count];
        }
    }
    while (count != 0)
        ferrum_block_allocator_drop(a, held[--count]);
    ck_assert_uint_eq(ferrum_block_allocator_free_count(a), BLOCKS);
    ferrum_block_allocator_free(a);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("block_allocator");
    TCase *tests = tcase_create("all");
    tcase_add_test(tests, first_block_is_zero);
    tcase_add_test(tests, all_or_none);
    tcase_add_test(tests, references_keep_blocks);
    tcase_add_test(tests, revive_and_evict);
    tcase_add_test(tests, chain_tells_ancestors_apart);
    tcase_add_test(tests, collisions_do_not_share);
    tcase_add_test(tests, second_registration_joins_the_first);
    tcase_add_test(tests, random_walk);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
