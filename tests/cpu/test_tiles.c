/* SPDX-License-Identifier: MIT */
/* How products are cut: every cell once, and enough pieces for every thread. */
#include "backends/cpu/grouped.h"
#include "tests/cpu/fixture.h"

#include <stdlib.h>

START_TEST(tiles_cover_every_cell_once)
{
    const ferrum_cpu_matrix_t matrices[] = {
        {.n = 300, .k = 4}, {.n = 1, .k = 4}, {.n = 129, .k = 4}};
    ferrum_cpu_bucket_t buckets[] = {{.matrix = 2, .first = 0, .count = 33},
                                     {.matrix = 0, .first = 33, .count = 1},
                                     {.matrix = 1, .first = 34, .count = 64},
                                     {.matrix = 0, .first = 98, .count = 70}};
    enum {
        ROWS = 168,
        COLUMNS = 300
    };
    for (uint32_t width = 1; width <= 64; width *= 4) {
        const ferrum_cpu_tiling_t tiling = ferrum_cpu_tile_buckets(matrices, buckets, 4, width);
        unsigned char *seen = calloc(ROWS * COLUMNS, 1);
        for (uint64_t i = 0; i < tiling.tiles; i++) {
            const ferrum_cpu_tile_t tile = ferrum_cpu_tile(&tiling, matrices, i);
            ck_assert_uint_le(tile.tokens, FERRUM_CPU_TILE_TOKENS);
            ck_assert_uint_le(tile.rows, FERRUM_CPU_TILE_ROWS);
            ck_assert_uint_eq(tile.row % FERRUM_CPU_LEAST_TILE_ROWS, 0);
            for (uint32_t t = 0; t < tile.tokens; t++)
                for (uint32_t r = 0; r < tile.rows; r++)
                    seen[(tile.bucket->first + tile.token + t) * COLUMNS + tile.row + r]++;
        }
        for (int b = 0; b < 4; b++)
            for (uint32_t i = 0; i < buckets[b].count * COLUMNS; i++) {
                const bool inside = i % COLUMNS < matrices[buckets[b].matrix].n;
                if (seen[buckets[b].first * COLUMNS + i] != inside)
                    ck_abort_msg("width %u, bucket %d: cell %u is computed %d times", width, b, i,
                                 seen[buckets[b].first * COLUMNS + i]);
            }
        free(seen);
    }
}
END_TEST

/** A Qwen3-30B layer half: one token on its 8 experts, and a prefill that all goes to one. */
START_TEST(few_tokens_and_skew_feed_every_thread)
{
    ferrum_cpu_matrix_t matrices[8];
    ferrum_cpu_bucket_t token[8], skewed = {.matrix = 3, .count = 512};
    for (uint32_t e = 0; e < 8; e++) {
        matrices[e] = (ferrum_cpu_matrix_t){.n = 768, .k = 2048};
        token[e] = (ferrum_cpu_bucket_t){.matrix = e, .first = e, .count = 1};
    }
    for (uint32_t width = 1; width <= 48; width++) {
        ck_assert_uint_ge(ferrum_cpu_tile_buckets(matrices, token, 8, width).tiles, 4 * width);
        ck_assert_uint_ge(ferrum_cpu_tile_buckets(matrices, &skewed, 1, width).tiles, 4 * width);
    }
    ck_assert_uint_eq(ferrum_cpu_tile_buckets(matrices, token, 0, 4).tiles, 0);
}
END_TEST

START_TEST(rows_are_prepared_in_small_pieces)
{
    const ferrum_cpu_matrix_t matrices[] = {{.n = 64, .k = 4}, {.n = 32, .k = 4}};
    ferrum_cpu_bucket_t experts[] = {{.matrix = 0, .first = 0, .count = 9},
                                     {.matrix = 1, .first = 9, .count = 0},
                                     {.matrix = 1, .first = 9, .count = 3}};
    ferrum_cpu_bucket_t parts[] = {{.matrix = 0, .count = 512}, {.matrix = 1, .count = 512}};
    ck_assert_uint_eq(ferrum_cpu_tile_buckets(matrices, experts, 3, 4).gathers, 3 + 0 + 1);
    ck_assert_uint_eq(experts[2].first_gather, 3);
    /* Both parts of a Linear read the same rows. */
    ck_assert_uint_eq(ferrum_cpu_tile_buckets(matrices, parts, 2, 4).gathers, 128);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu tiles");
    TCase *tc = tcase_create("all");
    tcase_add_test(tc, tiles_cover_every_cell_once);
    tcase_add_test(tc, few_tokens_and_skew_feed_every_thread);
    tcase_add_test(tc, rows_are_prepared_in_small_pieces);
    suite_add_tcase(suite, tc);
    return expect_run(suite);
}
