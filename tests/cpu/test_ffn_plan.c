/* SPDX-License-Identifier: MIT */
/* How the fused FFN is cut: every panel of every row once, largest first, and small at the end. */
#include "backends/cpu/ffn_plan.h"
#include "tests/cpu/fixture.h"

#include <stdlib.h>

enum {
    EXPERTS = 128,
    GATE_PANELS = 48,
    DOWN_PANELS = 128,
    MAX_ROWS = 4096
};

/** Who takes part: how many of the pairs go to how many experts. */
typedef struct spread {
    uint32_t pairs;
    uint32_t used; /**< experts, in equal parts but for the rest */
} spread_t;

static const spread_t spreads[] = {{0, 1},   {1, 1},    {8, 8},    {64, 52},    {1024, 128},
                                   {513, 1}, {4096, 8}, {4096, 1}, {4096, 128}, {770, 5}};

/** Buckets as ferrum_cpu_group_pairs makes them. */
static ferrum_cpu_grouping_t group(const spread_t *spread, ferrum_cpu_bucket_t *buckets)
{
    ferrum_cpu_grouping_t grouping = {.buckets = buckets};
    for (uint32_t i = 0; i < spread->used && grouping.rows < spread->pairs; i++) {
        const uint32_t rest = spread->pairs - grouping.rows;
        const uint32_t part = i + 1 == spread->used ? rest : 1 + (spread->pairs / spread->used) / 2;
        buckets[i] = (ferrum_cpu_bucket_t){
            .matrix = 2 * i % EXPERTS, .first = grouping.rows, .count = part < rest ? part : rest};
        grouping.rows += buckets[i].count;
        grouping.bucket_count++;
    }
    return grouping;
}

/** Each panel of each row is in exactly one unit. */
static void check_cover(const ferrum_cpu_ffn_plan_t *plan, const ferrum_cpu_ffn_units_t *units,
                        uint32_t rows, uint32_t panels, unsigned char *seen)
{
    memset(seen, 0, (size_t)rows * panels);
    for (uint64_t i = 0; i < units->queue.count; i++) {
        const ferrum_cpu_ffn_unit_t *unit = &units->list[i];
        ck_assert_uint_gt(unit->panels, 0);
        ck_assert_uint_le(unit->panel + unit->panels, panels);
        ck_assert_uint_le(unit->block + unit->blocks, plan->block_count);
        for (uint32_t b = unit->block; b < unit->block + unit->blocks; b++)
            for (uint32_t r = 0; r < plan->blocks[b].rows; r++)
                for (uint32_t p = 0; p < unit->panels; p++)
                    seen[(size_t)(plan->blocks[b].row + r) * panels + unit->panel + p]++;
    }
    for (size_t i = 0; i < (size_t)rows * panels; i++)
        if (seen[i] != 1)
            ck_abort_msg("row %zu, panel %zu is computed %d times", i / panels, i % panels,
                         seen[i]);
}

static void check_blocks(const ferrum_cpu_ffn_plan_t *plan, const ferrum_cpu_grouping_t *grouping)
{
    for (uint32_t b = 0; b < plan->block_count; b++) {
        const ferrum_cpu_ffn_block_t *block = &plan->blocks[b];
        ck_assert(block->rows > 0 && block->rows <= FERRUM_CPU_FFN_BLOCK_ROWS);
        ck_assert(b == 0 || block->rows <= block[-1].rows);
        ck_assert_uint_eq(atomic_load(&block->panels_left), GATE_PANELS);
        const ferrum_cpu_bucket_t *bucket = grouping->buckets;
        while (block->row >= bucket->first + bucket->count)
            bucket++;
        ck_assert_uint_eq(block->expert, bucket->matrix);
        ck_assert_uint_le(block->row + block->rows, bucket->first + bucket->count);
    }
}

/** Whatever the spread, a thread that takes the largest unit last would not be late for long. */
static void check_balance(const ferrum_cpu_ffn_plan_t *plan, uint32_t width)
{
    uint64_t total = 0, last = 0;
    for (uint64_t i = 0; i < plan->gate_up.queue.count; i++) {
        const ferrum_cpu_ffn_unit_t *unit = &plan->gate_up.list[i];
        last = (plan->blocks[unit->block].rows + 8) * (uint64_t)unit->panels;
        total += last;
    }
    const uint64_t panel = plan->block_count ? plan->blocks[0].rows + 8 : 0;
    ck_assert_msg(last * width <= total / 8 + panel * width, "last unit %llu of %llu, %u threads",
                  (unsigned long long)last, (unsigned long long)total, width);
}

START_TEST(units_cover_everything_once)
{
    cpu_fixture_t f;
    ferrum_cpu_bucket_t buckets[EXPERTS];
    unsigned char *seen = malloc((size_t)MAX_ROWS * DOWN_PANELS);
    cpu_open(&f, NULL, 1);
    for (size_t s = 0; s < sizeof spreads / sizeof spreads[0]; s++)
        for (uint32_t width = 1; width <= 65; width = width * 3 + 1)
            for (int large = 0; large < 2; large++) {
                const ferrum_cpu_grouping_t grouping = group(&spreads[s], buckets);
                const ferrum_cpu_ffn_shape_t shape = {.pairs = spreads[s].pairs,
                                                      .experts = EXPERTS,
                                                      .gate_panels = GATE_PANELS,
                                                      .down_panels = DOWN_PANELS,
                                                      .hidden_row_bytes = large ? 1 << 20 : 64};
                ferrum_cpu_ffn_plan_t plan;
                f.ctx->width = width; /* plans only: nothing runs */
                EXPECT_OK(ferrum_cpu_ffn_plan(f.ctx, &shape, &grouping, &plan, &err));
                ck_assert_int_eq(plan.combines, !large || spreads[s].pairs == 0);
                const uint64_t units = plan.gate_up.queue.count + plan.down.queue.count;
                ck_assert_uint_le((uintptr_t)(plan.gate_up.list + plan.gate_up.queue.count),
                                  (uintptr_t)plan.down.list);
                ck_assert_uint_le((uintptr_t)(plan.down.list + plan.down.queue.count),
                                  (uintptr_t)f.ctx->scratch[FERRUM_CPU_SCRATCH_UNITS].ptr +
                                      f.ctx->scratch[FERRUM_CPU_SCRATCH_UNITS].bytes);
                ck_assert_uint_ge(units, spreads[s].pairs ? 2 : 1);
                check_blocks(&plan, &grouping);
                check_cover(&plan, &plan.gate_up, grouping.rows, GATE_PANELS, seen);
                check_cover(&plan, &plan.down, grouping.rows, DOWN_PANELS, seen);
                check_balance(&plan, width);
            }
    f.ctx->width = 1;
    free(seen);
    cpu_close(&f);
}
END_TEST

/** Units of phase 2 that combine have every panel even when no row is there: outputs are zeroed. */
START_TEST(no_rows)
{
    cpu_fixture_t f;
    const ferrum_cpu_grouping_t grouping = {0};
    const ferrum_cpu_ffn_shape_t shape = {
        .pairs = 8, .experts = 4, .gate_panels = 3, .down_panels = 5, .hidden_row_bytes = 100};
    ferrum_cpu_ffn_plan_t plan;
    uint32_t panels = 0;
    cpu_open(&f, NULL, 1);
    EXPECT_OK(ferrum_cpu_ffn_plan(f.ctx, &shape, &grouping, &plan, &err));
    ck_assert_uint_eq(plan.gate_up.queue.count, 0);
    const ferrum_cpu_ffn_unit_t *unit;
    while ((unit = ferrum_cpu_ffn_take(&plan.down)))
        panels += unit->panels;
    ck_assert_uint_eq(panels, 5);
    ck_assert_ptr_null(ferrum_cpu_ffn_take(&plan.gate_up));
    cpu_close(&f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu ffn plan");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 180);
    tcase_add_test(tc, units_cover_everything_once);
    tcase_add_test(tc, no_rows);
    suite_add_tcase(suite, tc);
    return expect_run(suite);
}
