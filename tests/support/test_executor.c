/* SPDX-License-Identifier: MIT */
#include "test_executor.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

/** One thread besides the caller. */
typedef struct worker {
    test_executor_t *team;
    uint32_t number;
    pthread_t thread;
} worker_t;

struct test_executor {
    ferrum_executor_t executor;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    ferrum_task_fn *task;
    void *arg;
    unsigned region;   /* counts up when a task is there */
    uint32_t running;  /* workers that have not returned from it */
    uint32_t waiting;  /* members at the barrier */
    unsigned barriers; /* barriers passed */
    bool stop;
    worker_t *workers;
};

static void run(void *self, ferrum_task_fn *fn, void *arg)
{
    test_executor_t *team = self;
    pthread_mutex_lock(&team->mutex);
    team->task = fn;
    team->arg = arg;
    team->region++;
    team->running = team->executor.width - 1;
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->mutex);

    fn(arg, 0, team->executor.width);

    pthread_mutex_lock(&team->mutex);
    while (team->running > 0)
        pthread_cond_wait(&team->changed, &team->mutex);
    pthread_mutex_unlock(&team->mutex);
}

static void barrier(void *self, uint32_t thread)
{
    test_executor_t *team = self;
    (void)thread;
    pthread_mutex_lock(&team->mutex);
    const unsigned passed = team->barriers;
    if (++team->waiting == team->executor.width) {
        team->waiting = 0;
        team->barriers++;
        pthread_cond_broadcast(&team->changed);
    }
    while (team->barriers == passed)
        pthread_cond_wait(&team->changed, &team->mutex);
    pthread_mutex_unlock(&team->mutex);
}

static void *work(void *arg)
{
    worker_t *worker = arg;
    test_executor_t *team = worker->team;
    unsigned done = 0;

    pthread_mutex_lock(&team->mutex);
    for (;;) {
        while (team->region == done && !team->stop)
            pthread_cond_wait(&team->changed, &team->mutex);
        if (team->stop)
            break;
        done = team->region;
        pthread_mutex_unlock(&team->mutex);
        team->task(team->arg, worker->number, team->executor.width);
        pthread_mutex_lock(&team->mutex);
        team->running--;
        pthread_cond_broadcast(&team->changed);
    }
    pthread_mutex_unlock(&team->mutex);
    return NULL;
}

test_executor_t *test_executor_new(uint32_t width)
{
    test_executor_t *team = calloc(1, sizeof *team);
    team->executor = (ferrum_executor_t){.head = FERRUM_HEAD(ferrum_executor_t),
                                         .self = team,
                                         .width = width,
                                         .run = run,
                                         .barrier = barrier};
    pthread_mutex_init(&team->mutex, NULL);
    pthread_cond_init(&team->changed, NULL);
    team->workers = calloc(width, sizeof *team->workers);
    for (uint32_t i = 1; i < width; i++) {
        team->workers[i] = (worker_t){.team = team, .number = i};
        if (pthread_create(&team->workers[i].thread, NULL, work, &team->workers[i]) != 0)
            abort();
    }
    return team;
}

const ferrum_executor_t *test_executor_get(const test_executor_t *team)
{
    return &team->executor;
}

unsigned test_executor_regions(const test_executor_t *team)
{
    return team->region;
}

void test_executor_free(test_executor_t *team)
{
    if (!team)
        return;
    pthread_mutex_lock(&team->mutex);
    team->stop = true;
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->mutex);
    for (uint32_t i = 1; i < team->executor.width; i++)
        pthread_join(team->workers[i].thread, NULL);
    pthread_cond_destroy(&team->changed);
    pthread_mutex_destroy(&team->mutex);
    free(team->workers);
    free(team);
}
