/* SPDX-License-Identifier: MIT */
/* The borders of the table of tiles, both sides of each, at the shapes of well-known models. */
#include <check.h>

#include "backends/cuda/tile_choice.h"

#define ROWS FERRUM_CUDA_TILES_ROWS
#define W4 FERRUM_CUDA_TILES_W4

typedef struct border {
    ferrum_cuda_tile_problem_t problem; /* family, capability, outputs, experts, pairs */
    uint32_t rows;
    bool wgmma;
} border_t;

static const border_t borders[] = {
    /* 128 experts of 768 outputs, top-8: a plan from 9 tokens on, larger tiles as experts fill. */
    {{W4, 80, 768, 128, 1, false}, 1, false},
    {{W4, 80, 768, 128, 64, false}, 1, false},
    {{W4, 80, 768, 128, 65, false}, 8, false},
    {{W4, 80, 768, 128, 5 * 128 - 1, false}, 8, false},
    {{W4, 80, 768, 128, 5 * 128, false}, 16, false},
    {{W4, 80, 768, 128, 12 * 128 - 1, false}, 16, false},
    {{W4, 80, 768, 128, 12 * 128, false}, 32, false},
    {{W4, 80, 768, 128, 24 * 128 - 1, false}, 32, false},
    {{W4, 80, 768, 128, 24 * 128, false}, 64, false},
    {{W4, 120, 768, 128, UINT32_MAX, false}, 64, false},
    /* 8 experts, top-2: two tokens share an expert in most cases from three tokens on. */
    {{W4, 90, 14336, 8, 2, false}, 1, false},
    {{W4, 90, 14336, 8, 4, false}, 1, false},
    {{W4, 90, 14336, 8, 5, false}, 8, false},
    {{W4, 90, 14336, 8, 24 * 8, false}, 64, false},
    /* One expert: a pair or two alone, then tiles. */
    {{W4, 80, 64, 1, 2, false}, 1, false},
    {{W4, 80, 64, 1, 3, false}, 8, false},
    /* Too few blocks for tiles of 64 rows: 263 of 64 outputs, 264. */
    {{W4, 80, 263 * 64, 1, 1000, false}, 32, false},
    {{W4, 80, 263 * 64 + 1, 1, 1000, false}, 64, false},
    {{W4, 80, 64, 263, 24 * 263, false}, 32, false},
    {{W4, 80, 64, 264, 24 * 264, false}, 64, false},
    /* The warpgroup kernels, where they may be chosen: on the average a tile is filled once. */
    {{W4, 90, 768, 128, 64 * 128 - 1, true}, 64, false},
    {{W4, 90, 768, 128, 64 * 128, true}, 64, true},
    {{W4, 90, 768, 128, 128 * 128 - 1, true}, 64, true},
    {{W4, 90, 768, 128, 128 * 128, true}, 128, true},
    {{W4, 90, 768, 128, 128 * 128, false}, 64, false},
    {{W4, 90, 64, 1, 63, true}, 32, false},
    {{W4, 90, 64, 1, 64, true}, 64, true},
    {{ROWS, 90, 768, 128, 128 * 128, true}, 32, false},
    /* The kernels of other layouts. */
    {{ROWS, 80, 768, 128, 16, false}, 1, false},
    {{ROWS, 80, 768, 128, 17, false}, 8, false},
    {{ROWS, 80, 768, 128, 17 * 128 - 1, false}, 8, false},
    {{ROWS, 80, 768, 128, 17 * 128, false}, 32, false},
    {{ROWS, 80, 1, 1, 1, false}, 1, false},
    {{ROWS, 80, 1, 1, UINT32_MAX, false}, 32, false},
};

START_TEST(border)
{
    const ferrum_cuda_tile_problem_t *p = &borders[_i].problem;
    const ferrum_cuda_tile_t *tile = ferrum_cuda_choose_tile(p);

    ck_assert_uint_eq(tile->family, p->family);
    ck_assert_int_eq(tile->wgmma, borders[_i].wgmma);
    ck_assert_msg(tile->rows == borders[_i].rows,
                  "%llu pairs of %u experts with %u outputs: tiles of %u rows, not %u",
                  (unsigned long long)p->pairs, p->experts, p->outputs, tile->rows,
                  borders[_i].rows);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tile choice");
    TCase *cases = tcase_create("borders");
    tcase_add_loop_test(cases, border, 0, sizeof borders / sizeof borders[0]);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
