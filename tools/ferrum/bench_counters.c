/* SPDX-License-Identifier: MIT */
/* What a backend's context did while it was timed: means over calls. */
#include "tools/ferrum/bench.h"

void bench_counters_cells(const ferrum_context_stats_t *before, const ferrum_context_stats_t *after,
                          double calls, bench_cell_t cells[BENCH_COUNTERS])
{
    const struct {
        const char *column;
        uint64_t count;
    } counts[BENCH_COUNTERS] = {
        {"launches", after->launches - before->launches},
        {"replays", after->graph_replays - before->graph_replays},
        {"syncs", after->syncs - before->syncs},
        {"allocations", after->allocations - before->allocations},
        {"copies", after->copies + after->device_copies - before->copies - before->device_copies},
        {"memsets", after->memsets - before->memsets},
    };
    for (int i = 0; i < BENCH_COUNTERS; i++)
        cells[i] = (bench_cell_t){counts[i].column, after->head.size == 0 ? "-" : NULL,
                                  (double)counts[i].count / calls, 1};
}
