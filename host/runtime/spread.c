/* SPDX-License-Identifier: MIT */
#include "host/runtime/spread.h"
#include "host/runtime/executor.h"

/* Threads that cannot be had are not missed: the work is done without them. */
void ferrum_spread_run(void *self, ferrum_task_fn *fn, void *arg)
{
    ferrum_spread_t *spread = self;
    ferrum_team_t *team = NULL;
    const bool held = spread->width > 1 && ferrum_spread_hold(spread);

    if (held && ferrum_team_new(spread->width, &team, NULL) == FERRUM_OK) {
        const ferrum_executor_t *executor = ferrum_team_executor(team);
        executor->run(executor->self, fn, arg);
        ferrum_team_free(team);
    } else {
        fn(arg, 0, 1);
    }
    ferrum_spread_give_back(spread, held);
}
