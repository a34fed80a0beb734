/* SPDX-License-Identifier: MIT */
#include <config.h>

#include "host/runtime/executor.h"
#include "host/runtime/topology.h"

#include <ferrum/util.h>

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    CACHE_LINE = 64,
    SPIN_NS = 50000,    /* longest spin before a wait sleeps: a few times what a wake-up costs */
    SPINS_PER_LOOK = 64 /* pauses between looks at the clock */
};

/* A number that one side raises and the other waits on. On a cache line of its own. */
typedef struct gate {
    _Alignas(CACHE_LINE) _Atomic uint32_t number;
    _Atomic uint32_t sleepers;
} gate_t;

typedef struct worker {
    ferrum_team_t *team;
    uint32_t thread;
    pthread_t handle;
} worker_t;

struct ferrum_team {
    gate_t region; /* raised when a region starts or the team ends */
    gate_t phase;  /* raised when a barrier is complete */
    _Alignas(CACHE_LINE) _Atomic uint32_t arrived;
    bool spin;
    bool stop; /* fn, arg and stop are published by raising `region` */
    ferrum_task_fn *fn;
    void *arg;
    ferrum_executor_t executor;
    uint32_t started;
    worker_t workers[]; /* [width]; number 0 is the caller and has no thread */
};

static void gate_init(gate_t *gate)
{
    atomic_init(&gate->number, 0);
    atomic_init(&gate->sleepers, 0);
}

/* Sequential consistency makes this safe: either the raiser sees the sleeper counted, or the
 * sleeper, which counts itself first, finds the new number and is not put to sleep. */
static void gate_raise(gate_t *gate)
{
    atomic_fetch_add(&gate->number, 1);
    if (atomic_load(&gate->sleepers) > 0)
        (void)syscall(SYS_futex, &gate->number, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void gate_sleep(gate_t *gate, uint32_t old)
{
    atomic_fetch_add(&gate->sleepers, 1);
    while (atomic_load(&gate->number) == old)
        (void)syscall(SYS_futex, &gate->number, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&gate->sleepers, 1);
}

static inline void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void gate_wait(gate_t *gate, uint32_t old, bool spin)
{
    if (spin) {
        int64_t end_ns = 0;
        do {
            for (int i = 0; i < SPINS_PER_LOOK; i++) {
                if (atomic_load_explicit(&gate->number, memory_order_acquire) != old)
                    return;
                pause_briefly();
            }
            if (end_ns == 0)
                end_ns = now_ns() + SPIN_NS;
        } while (now_ns() < end_ns);
    }
    gate_sleep(gate, old);
}

static void team_barrier(void *self, uint32_t thread)
{
    ferrum_team_t *team = self;
    uint32_t phase = atomic_load(&team->phase.number);
    (void)thread;
    if (atomic_fetch_add(&team->arrived, 1) + 1 == team->executor.width) {
        atomic_store(&team->arrived, 0);
        gate_raise(&team->phase);
    } else {
        gate_wait(&team->phase, phase, team->spin);
    }
}

static void team_run(void *self, ferrum_task_fn *fn, void *arg)
{
    ferrum_team_t *team = self;
    if (team->executor.width > 1) {
        team->fn = fn;
        team->arg = arg;
        gate_raise(&team->region);
    }
    fn(arg, 0, team->executor.width);
    team_barrier(team, 0);
}

static void *worker_main(void *arg)
{
    const worker_t *worker = arg;
    ferrum_team_t *team = worker->team;
    for (uint32_t region = 0;; region++) {
        gate_wait(&team->region, region, team->spin);
        if (team->stop)
            return NULL;
        team->fn(team->arg, worker->thread, team->executor.width);
        team_barrier(team, worker->thread);
    }
}

/* Signals belong to the host's own threads. @p processor negative: wherever the system likes. */
static int start_worker(worker_t *worker, int processor)
{
    sigset_t all, before;
    pthread_attr_t attributes;
    unsigned long words[FERRUM_TOPOLOGY_MAX / (8 * sizeof(unsigned long))] = {0};
    cpu_set_t *const mask = (cpu_set_t *)(void *)words;

    int error = pthread_attr_init(&attributes);
    if (error)
        return error;
    if (processor >= 0) {
        CPU_SET_S((unsigned)processor, sizeof words, mask);
        error = pthread_attr_setaffinity_np(&attributes, sizeof words, mask);
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (!error)
        error = pthread_create(&worker->handle, &attributes, worker_main, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&attributes);
    return error;
}

static bool pins(ferrum_pin_t pin, uint32_t width, const ferrum_topology_t *topology)
{
    return pin == FERRUM_PIN_ALWAYS || (pin == FERRUM_PIN_FULL && width == topology->cores);
}

static ferrum_team_t *new_team(uint32_t width, uint32_t processors)
{
    size_t bytes = sizeof(ferrum_team_t) + width * sizeof(worker_t);
    bytes = (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    ferrum_team_t *team = aligned_alloc(CACHE_LINE, bytes);
    if (!team)
        return NULL;
    gate_init(&team->region);
    gate_init(&team->phase);
    atomic_init(&team->arrived, 0);
    team->spin = width <= processors;
    team->stop = false;
    team->executor = (ferrum_executor_t){.head = FERRUM_HEAD(ferrum_executor_t),
                                         .self = team,
                                         .width = width,
                                         .run = team_run,
                                         .barrier = team_barrier};
    return team;
}

ferrum_status_t ferrum_team_new_pinned(uint32_t width, ferrum_pin_t pin, ferrum_team_t **out_team,
                                       ferrum_error_t *err)
{
    ferrum_topology_t topology;
    if (width == 0 || width > FERRUM_TEAM_MAX_WIDTH)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_RANGE,
                           "a team of %u threads: choose 1 to %u", width, FERRUM_TEAM_MAX_WIDTH);
    ferrum_topology_read(&topology);
    ferrum_team_t *team = new_team(width, topology.processors);
    if (!team)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory for a team of %u threads", width);
    const bool pinned = pins(pin, width, &topology);
    for (team->started = 1; team->started < width; team->started++) {
        worker_t *worker = &team->workers[team->started];
        worker->team = team;
        worker->thread = team->started;
        const int processor =
            pinned ? (int)topology.order[team->started % topology.processors] : -1;
        if (start_worker(worker, processor) != 0) {
            uint32_t started = team->started;
            ferrum_team_free(team);
            return ferrum_fail(err, FERRUM_RESOURCE_EXHAUSTED, FERRUM_REASON_OTHER,
                               "only %u of %u threads could be started%s; lower FERRUM_THREADS%s",
                               started, width, pinned ? " and pinned" : "",
                               pinned ? " or set FERRUM_PIN=0" : "");
        }
    }
    *out_team = team;
    return FERRUM_OK;
}

ferrum_status_t ferrum_team_new(uint32_t width, ferrum_team_t **out_team, ferrum_error_t *err)
{
    return ferrum_team_new_pinned(width, FERRUM_PIN_NEVER, out_team, err);
}

void ferrum_team_free(ferrum_team_t *team)
{
    if (!team)
        return;
    team->stop = true;
    gate_raise(&team->region);
    for (uint32_t i = 1; i < team->started; i++)
        pthread_join(team->workers[i].handle, NULL);
    free(team);
}

const ferrum_executor_t *ferrum_team_executor(const ferrum_team_t *team)
{
    return &team->executor;
}

uint32_t ferrum_team_choose_width(uint32_t asked, const ferrum_options_t *options)
{
    uint64_t width = asked;
    if (width == 0 && options)
        width = ferrum_options_uint(options, "FERRUM_THREADS");
    if (width == 0) {
        ferrum_topology_t topology;
        ferrum_topology_read(&topology);
        const uint32_t quota = ferrum_topology_quota("");
        width = topology.cores < quota ? topology.cores : quota;
    }
    return width < FERRUM_TEAM_MAX_WIDTH ? (uint32_t)width : FERRUM_TEAM_MAX_WIDTH;
}

ferrum_pin_t ferrum_team_choose_pin(const ferrum_options_t *options)
{
    switch (ferrum_options_switch(options, "FERRUM_PIN")) {
    case 0:
        return FERRUM_PIN_NEVER;
    case 1:
        return FERRUM_PIN_ALWAYS;
    default:
        return FERRUM_PIN_FULL;
    }
}
