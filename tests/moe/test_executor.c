/* SPDX-License-Identifier: MIT */
/* The thread team: every member runs, barriers order memory, idle teams sleep. */
#include <config.h>

#include "host/runtime/executor.h"
#include "host/runtime/spread.h"
#include "host/runtime/topology.h"
#include "tests/support/expect.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_WIDTH = 64
};

/* Plain memory, ordered by the executor alone: ThreadSanitizer would report a missing edge. */
typedef struct shared {
    const ferrum_executor_t *executor;
    uint32_t visits[MAX_WIDTH];
    uint32_t slots[MAX_WIDTH];
    uint32_t total;
    uint32_t rounds;
} shared_t;

static ferrum_team_t *new_team(uint32_t width)
{
    ferrum_team_t *team;
    EXPECT_OK(ferrum_team_new(width, &team, &err));
    ck_assert_uint_eq(ferrum_team_executor(team)->width, width);
    return team;
}

static void visit(void *arg, uint32_t thread, uint32_t width)
{
    shared_t *shared = arg;
    ck_assert_uint_eq(width, shared->executor->width);
    shared->visits[thread]++;
}

static const uint32_t widths[] = {1, 2, 3, 8, 33};

START_TEST(every_member_runs)
{
    ferrum_team_t *team = new_team(widths[_i]);
    shared_t shared = {.executor = ferrum_team_executor(team)};
    const uint32_t regions = 2000;
    for (uint32_t r = 0; r < regions; r++)
        shared.executor->run(shared.executor->self, visit, &shared);
    for (uint32_t i = 0; i < MAX_WIDTH; i++)
        ck_assert_uint_eq(shared.visits[i], i < widths[_i] ? regions : 0);
    ferrum_team_free(team);
}
END_TEST

/* Each member writes its slot, all meet, member 0 sums, all meet, everybody checks the sum. */
static void sum_rounds(void *arg, uint32_t thread, uint32_t width)
{
    shared_t *shared = arg;
    const ferrum_executor_t *executor = shared->executor;
    for (uint32_t round = 1; round <= shared->rounds; round++) {
        shared->slots[thread] = round * (thread + 1);
        executor->barrier(executor->self, thread);
        if (thread == round % width) {
            shared->total = 0;
            for (uint32_t i = 0; i < width; i++)
                shared->total += shared->slots[i];
        }
        executor->barrier(executor->self, thread);
        ck_assert_uint_eq(shared->total, round * width * (width + 1) / 2);
    }
}

START_TEST(barriers_order_memory)
{
    ferrum_team_t *team = new_team(widths[_i]);
    shared_t shared = {.executor = ferrum_team_executor(team), .rounds = 300};
    for (int r = 0; r < 5; r++)
        shared.executor->run(shared.executor->self, sum_rounds, &shared);
    ferrum_team_free(team);
}
END_TEST

static int64_t process_cpu_us(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (int64_t)used.tv_sec * 1000000 + used.tv_nsec / 1000;
}

/* With more threads than processors, and with few enough that waits may spin. */
START_TEST(idle_team_sleeps)
{
    ferrum_topology_t topology;
    ferrum_topology_read(&topology);
    uint32_t processors = topology.processors;
    uint32_t width = _i ? processors + 2 : processors < MAX_WIDTH ? processors : MAX_WIDTH;
    ferrum_team_t *team = new_team(width < MAX_WIDTH ? width : MAX_WIDTH);
    shared_t shared = {.executor = ferrum_team_executor(team)};
    shared.executor->run(shared.executor->self, visit, &shared);
    int64_t before = process_cpu_us();
    usleep(300000);
    int64_t used = process_cpu_us() - before;
    ck_assert_msg(used < 20000, "an idle team used %lld us of processor time in 300 ms",
                  (long long)used);
    shared.executor->run(shared.executor->self, visit, &shared); /* and wakes up again */
    ck_assert_uint_eq(shared.visits[shared.executor->width - 1], 2);
    ferrum_team_free(team);
}
END_TEST

/* Workers sleep inside the region while one member is late. */
static void late_member(void *arg, uint32_t thread, uint32_t width)
{
    shared_t *shared = arg;
    (void)width;
    if (thread == 1)
        usleep(20000);
    shared->executor->barrier(shared->executor->self, thread);
    shared->visits[thread]++;
}

START_TEST(late_members)
{
    ferrum_team_t *team = new_team(4);
    shared_t shared = {.executor = ferrum_team_executor(team)};
    for (int r = 0; r < 10; r++)
        shared.executor->run(shared.executor->self, late_member, &shared);
    for (int i = 0; i < 4; i++)
        ck_assert_uint_eq(shared.visits[i], 10);
    ferrum_team_free(team);
}
END_TEST

START_TEST(many_teams)
{
    for (int i = 0; i < 50; i++) {
        ferrum_team_t *first = new_team(3), *second = new_team(2);
        shared_t a = {.executor = ferrum_team_executor(first)};
        shared_t b = {.executor = ferrum_team_executor(second)};
        if (i % 2) /* some end without ever having run */
            a.executor->run(a.executor->self, visit, &a);
        b.executor->run(b.executor->self, visit, &b);
        ferrum_team_free(first);
        ferrum_team_free(second);
    }
    ferrum_team_free(NULL);
}
END_TEST

static void read_mask(void *arg, uint32_t thread, uint32_t width)
{
    sigset_t mask;
    (void)width;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    ((int *)arg)[thread] = sigismember(&mask, SIGTERM);
}

START_TEST(signals_are_blocked)
{
    ferrum_team_t *team = new_team(2);
    int blocked[2] = {-1, -1};
    const ferrum_executor_t *executor = ferrum_team_executor(team);
    executor->run(executor->self, read_mask, blocked);
    ck_assert_int_eq(blocked[0], 0); /* the caller's mask is his own */
    ck_assert_int_eq(blocked[1], 1);
    ferrum_team_free(team);
}
END_TEST

START_TEST(refused_widths)
{
    ferrum_team_t *team;
    EXPECT_FAILS(ferrum_team_new(0, &team, &err), FERRUM_INVALID_ARGUMENT, "team of 0");
    EXPECT_FAILS(ferrum_team_new(FERRUM_TEAM_MAX_WIDTH + 1, &team, &err), FERRUM_INVALID_ARGUMENT,
                 "choose 1 to");
}
END_TEST

/* Each member notes where it may run. */
static void read_affinity(void *arg, uint32_t thread, uint32_t width)
{
    ferrum_topology_t topology;
    (void)width;
    ferrum_topology_read(&topology);
    ((uint32_t *)arg)[thread] = topology.processors == 1 ? topology.order[0] : UINT32_MAX;
}

static void read_places(uint32_t width, ferrum_pin_t pin, uint32_t *out_places)
{
    ferrum_team_t *team;
    EXPECT_OK(ferrum_team_new_pinned(width, pin, &team, &err));
    const ferrum_executor_t *executor = ferrum_team_executor(team);
    executor->run(executor->self, read_affinity, out_places);
    ferrum_team_free(team);
}

START_TEST(pinned_members)
{
    ferrum_topology_t topology;
    uint32_t places[MAX_WIDTH];
    ferrum_topology_read(&topology);
    if (topology.cores < 2 || topology.cores + 1 > MAX_WIDTH)
        return; /* nothing to tell apart */
    const uint32_t cores = topology.cores;
    read_places(cores, FERRUM_PIN_FULL, places);
    ck_assert_uint_eq(places[0], UINT32_MAX); /* the caller is left alone */
    for (uint32_t i = 1; i < cores; i++)
        ck_assert_uint_eq(places[i], topology.order[i]);
    read_places(cores, FERRUM_PIN_NEVER, places);
    ck_assert_uint_eq(places[1], UINT32_MAX);
    /* Not full, so not pinned unless asked; more members than cores go round. */
    read_places(cores + 1, FERRUM_PIN_FULL, places);
    ck_assert_uint_eq(places[cores], UINT32_MAX);
    read_places(cores + 1, FERRUM_PIN_ALWAYS, places);
    ck_assert_uint_eq(places[cores], topology.order[cores % topology.processors]);
}
END_TEST

/* With one processor in the mask there is one core, and teams of any width still work there. */
START_TEST(restricted_mask)
{
    ferrum_topology_t topology;
    cpu_set_t before, one;
    shared_t shared = {.rounds = 20};
    ck_assert_int_eq(sched_getaffinity(0, sizeof before, &before), 0);
    ferrum_topology_read(&topology);
    const uint32_t last = topology.order[topology.processors - 1];
    CPU_ZERO(&one);
    CPU_SET(last, &one);
    ck_assert_int_eq(sched_setaffinity(0, sizeof one, &one), 0);
    ferrum_topology_read(&topology);
    ck_assert_uint_eq(topology.processors, 1);
    ck_assert_uint_eq(topology.cores, 1);
    ck_assert_uint_eq(topology.order[0], last);
    ck_assert_uint_eq(ferrum_team_choose_width(0, NULL), 1);
    for (uint32_t width = 1; width <= 4; width += 3) {
        ferrum_team_t *team = new_team(width);
        shared.executor = ferrum_team_executor(team);
        shared.executor->run(shared.executor->self, sum_rounds, &shared);
        ferrum_team_free(team);
    }
    ck_assert_int_eq(sched_setaffinity(0, sizeof before, &before), 0);
}
END_TEST

/* What a region of borrowed threads saw. */
typedef struct borrowed {
    ferrum_spread_t *spread;
    atomic_uint calls;
    atomic_uint width;
    atomic_uint inner_calls;
    bool nested;
} borrowed_t;

static void count_inner(void *arg, uint32_t thread, uint32_t width)
{
    borrowed_t *borrowed = arg;
    ck_assert_uint_eq(thread, 0);
    ck_assert_uint_eq(width, 1);
    atomic_fetch_add(&borrowed->inner_calls, 1);
}

static void count_call(void *arg, uint32_t thread, uint32_t width)
{
    borrowed_t *borrowed = arg;
    ck_assert_uint_lt(thread, width);
    atomic_fetch_add(&borrowed->calls, 1);
    atomic_store(&borrowed->width, width);
    if (borrowed->nested) /* as another object that loads meanwhile */
        ferrum_spread_run(borrowed->spread, count_inner, borrowed);
}

START_TEST(threads_are_lent_once)
{
    ferrum_spread_t spread = {.width = 3};
    borrowed_t borrowed = {.spread = &spread, .nested = true};
    ferrum_spread_run(&spread, count_call, &borrowed);
    ck_assert_uint_eq(borrowed.width, 3);
    ck_assert_uint_eq(borrowed.calls, 3);
    ck_assert_uint_eq(borrowed.inner_calls, 3);
    ck_assert(ferrum_spread_hold(&spread));
    ck_assert(!ferrum_spread_hold(&spread));
    ferrum_spread_give_back(&spread, false);
    borrowed.nested = false;
    ferrum_spread_run(&spread, count_call, &borrowed);
    ck_assert_uint_eq(borrowed.width, 1);
    ferrum_spread_give_back(&spread, true);
    ferrum_spread_run(&spread, count_call, &borrowed);
    ck_assert_uint_eq(borrowed.width, 3);
    ck_assert_uint_eq(borrowed.calls, 7);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("executor");
    TCase *tcase = tcase_create("team");
    const int cases = sizeof widths / sizeof widths[0];
    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, every_member_runs, 0, cases);
    tcase_add_loop_test(tcase, barriers_order_memory, 0, cases);
    tcase_add_loop_test(tcase, idle_team_sleeps, 0, 2);
    tcase_add_test(tcase, late_members);
    tcase_add_test(tcase, many_teams);
    tcase_add_test(tcase, signals_are_blocked);
    tcase_add_test(tcase, refused_widths);
    tcase_add_test(tcase, threads_are_lent_once);
    tcase_add_test(tcase, pinned_members);
    tcase_add_test(tcase, restricted_mask);
    suite_add_tcase(suite, tcase);
    return expect_run(suite);
}
