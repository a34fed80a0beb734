/* SPDX-License-Identifier: MIT */
#include "host/model/load_crew.h"
#include "host/runtime/executor.h"

#include <ferrum/util.h>

#include <pthread.h>
#include <stdatomic.h>

typedef struct crew {
    ferrum_weights_t *weights;
    ferrum_load_fn *load;
    void *arg;
    uint32_t count;
    atomic_uint next;
    pthread_mutex_t lock; /* guards what follows, the counters of `weights`, and its progress */
    uint32_t failed_item; /* `count` when none has failed */
    ferrum_status_t status;
    ferrum_error_t error;
} crew_t;

/* What a thread has put into the common account. */
typedef struct member {
    crew_t *crew;
    uint64_t loaded_bytes;
} member_t;

/* A thread's own account has grown. */
static int merge_progress(void *arg, uint64_t done, uint64_t total)
{
    member_t *member = arg;
    ferrum_weights_t *weights = member->crew->weights;
    (void)total;
    pthread_mutex_lock(&member->crew->lock);
    const ferrum_status_t status =
        ferrum_weights_advance(weights, done - member->loaded_bytes, NULL);
    member->loaded_bytes = done;
    pthread_mutex_unlock(&member->crew->lock);
    return status != FERRUM_OK;
}

static void note_failure(crew_t *crew, uint32_t item, ferrum_status_t status,
                         const ferrum_error_t *why)
{
    pthread_mutex_lock(&crew->lock);
    if (item < crew->failed_item) {
        crew->failed_item = item;
        crew->status = status;
        crew->error = *why;
    }
    pthread_mutex_unlock(&crew->lock);
    atomic_store(&crew->next, crew->count);
}

static void run_member(void *arg, uint32_t thread, uint32_t width)
{
    crew_t *crew = arg;
    member_t member = {.crew = crew};
    (void)thread;
    (void)width;
    pthread_mutex_lock(&crew->lock); /* others may have begun to count */
    ferrum_weights_t own = *crew->weights;
    pthread_mutex_unlock(&crew->lock);
    own.loaded_bytes = own.held_bytes = 0;
    own.progress = merge_progress;
    own.progress_arg = &member;
    for (;;) {
        uint32_t item = atomic_load(&crew->next);
        while (item < crew->count && !atomic_compare_exchange_weak(&crew->next, &item, item + 1)) {
        }
        if (item >= crew->count)
            break;
        ferrum_error_t why = FERRUM_ERROR_INIT;
        const ferrum_status_t status = crew->load(crew->arg, &own, item, &why);
        if (status != FERRUM_OK)
            note_failure(crew, item, status, &why);
    }
    pthread_mutex_lock(&crew->lock);
    crew->weights->held_bytes += own.held_bytes;
    pthread_mutex_unlock(&crew->lock);
}

ferrum_status_t ferrum_load_crew_run(ferrum_weights_t *weights, uint32_t threads, uint32_t count,
                                     ferrum_load_fn *load, void *arg, ferrum_error_t *err)
{
    crew_t crew = {.weights = weights,
                   .load = load,
                   .arg = arg,
                   .count = count,
                   .lock = PTHREAD_MUTEX_INITIALIZER,
                   .failed_item = count};
    ferrum_team_t *team = NULL;
    atomic_init(&crew.next, 0);
    const uint32_t width = threads < count ? threads : count;
    if (width > 1)
        FERRUM_TRY(ferrum_team_new(width, &team, err));
    if (team) {
        const ferrum_executor_t *executor = ferrum_team_executor(team);
        executor->run(executor->self, run_member, &crew);
    } else {
        run_member(&crew, 0, 1);
    }
    ferrum_team_free(team);
    pthread_mutex_destroy(&crew.lock);
    if (crew.failed_item == count)
        return FERRUM_OK;
    return ferrum_fail(err, crew.status, crew.error.reason, "%s", crew.error.message);
}
