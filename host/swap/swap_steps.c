/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L /* nanosleep */
#include "host/swap/swap_steps.h"

#include "host/swap/self_test.h"

#include <ferrum/util.h>

#include <inttypes.h>
#include <string.h>
#include <time.h>

/* First and longest time that stopped sessions wait for one that is still in a pass, before all are
 * let go and it is tried again. */
#define FIRST_PATIENCE_NS ((int64_t)10 * 1000 * 1000)
#define NAP_NS ((int64_t)2 * 1000 * 1000)

static void lock(ferrum_swap_t *swap)
{
    (void)pthread_mutex_lock(&swap->registry->lock);
}

static void unlock(ferrum_swap_t *swap)
{
    (void)pthread_mutex_unlock(&swap->registry->lock);
}

ferrum_status_t ferrum_swap_ask(ferrum_swap_t *swap, ferrum_swap_step_t step, uint32_t done,
                                uint32_t total, ferrum_error_t *err)
{
    const ferrum_swap_options_t *o = &swap->options;
    swap->report.step = step;
    lock(swap);
    bool closing = swap->registry->closing;
    unlock(swap);
    if (closing)
        return ferrum_fail(err, FERRUM_CANCELLED, FERRUM_REASON_NONE,
                           "the runtime is being closed");
    if (o->progress && o->progress(o->progress_arg, step, done, total))
        return ferrum_fail(err, FERRUM_CANCELLED, FERRUM_REASON_NONE, "the swap was cancelled");
    return FERRUM_OK;
}

/* ---- objects, one by one ---- */

/* The first object that a swap has not built yet, marked busy; NULL when there is none. */
static ferrum_object_t *take_unbuilt(ferrum_swap_t *swap, uint32_t *out_done, uint32_t *out_total)
{
    ferrum_object_t *found = NULL;
    *out_done = *out_total = 0;
    lock(swap);
    for (ferrum_object_t *o = swap->registry->first; o; o = o->next) {
        if (!o->rebuilt && !found)
            found = o;
        *out_done += o->rebuilt;
        ++*out_total;
    }
    if (found)
        found->busy = true;
    unlock(swap);
    return found;
}

static void put_back(ferrum_swap_t *swap, ferrum_object_t *object, bool rebuilt)
{
    lock(swap);
    object->busy = false;
    object->rebuilt = rebuilt;
    (void)pthread_cond_broadcast(&swap->registry->changed);
    unlock(swap);
}

static ferrum_status_t check_bytes(ferrum_swap_t *swap, ferrum_object_t *object,
                                   ferrum_error_t *err)
{
    uint64_t serving = 0, other = 0, limit = swap->options.max_new_bytes;
    if (object->ops->bytes)
        object->ops->bytes(object->self, &serving, &other);
    swap->report.old_bytes += serving;
    swap->report.new_bytes += other;
    if (limit && swap->report.new_bytes > limit)
        return ferrum_fail(err, FERRUM_RESOURCE_EXHAUSTED, FERRUM_REASON_LENGTH,
                           "the new generation needs more than the %" PRIu64 " bytes allowed "
                           "(max_new_bytes) beside the old one",
                           limit);
    return FERRUM_OK;
}

/* What an object made in the meantime is tried with, too. */
static ferrum_status_t self_test_object(ferrum_swap_t *swap, ferrum_object_t *object,
                                        ferrum_error_t *err)
{
    double error = 0;
    if (!object->ops->self_test)
        return FERRUM_OK;
    ferrum_status_t status = object->ops->self_test(object->self, &error, err);
    if (error > swap->report.self_test_error)
        swap->report.self_test_error = error;
    return status;
}

/* The serving side of an object may need about as much on the new generation; a model that cannot
 * fit is refused before anything is packed. */
static ferrum_status_t check_first(ferrum_swap_t *swap, ferrum_error_t *err)
{
    uint64_t needed = 0, limit = swap->options.max_new_bytes;
    if (!limit)
        return FERRUM_OK;
    lock(swap);
    for (ferrum_object_t *o = swap->registry->first; o; o = o->next) {
        uint64_t serving = 0, other = 0;
        if (o->ops->bytes)
            o->ops->bytes(o->self, &serving, &other);
        needed += serving;
    }
    unlock(swap);
    if (needed <= limit)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_RESOURCE_EXHAUSTED, FERRUM_REASON_LENGTH,
                       "%" PRIu64 " bytes would be needed again beside those of the serving "
                       "generation, %" PRIu64 " are allowed (max_new_bytes)",
                       needed, limit);
}

static ferrum_status_t rebuild_all(ferrum_swap_t *swap, bool self_test, ferrum_error_t *err)
{
    uint32_t done, total;
    ferrum_object_t *object;
    while ((object = take_unbuilt(swap, &done, &total)) != NULL) {
        ferrum_status_t status = ferrum_swap_ask(swap, FERRUM_SWAP_REBUILD, done, total, err);
        if (status == FERRUM_OK)
            status = object->ops->rebuild(object->self, swap->next, err);
        if (status == FERRUM_OK)
            status = check_bytes(swap, object, err);
        if (status == FERRUM_OK && self_test) {
            swap->report.step = FERRUM_SWAP_SELF_TEST;
            status = self_test_object(swap, object, err);
        }
        swap->report.objects += status == FERRUM_OK;
        put_back(swap, object, status == FERRUM_OK);
        if (status != FERRUM_OK)
            return status;
    }
    return FERRUM_OK;
}

ferrum_status_t ferrum_swap_rebuild(ferrum_swap_t *swap, ferrum_error_t *err)
{
    swap->report.step = FERRUM_SWAP_REBUILD;
    FERRUM_TRY(check_first(swap, err));
    return rebuild_all(swap, false, err);
}

static ferrum_formats_used_t formats_of(ferrum_swap_t *swap)
{
    ferrum_formats_used_t formats = {0};
    lock(swap);
    for (ferrum_object_t *o = swap->registry->first; o; o = o->next)
        if (o->ops->formats)
            o->ops->formats(o->self, &formats);
    unlock(swap);
    return formats;
}

/* The object after @p number others, marked busy; NULL beyond the last. Objects that come or go
 * meanwhile may be missed here; those that come are tried when they are built. */
static ferrum_object_t *take_number(ferrum_swap_t *swap, uint32_t number)
{
    lock(swap);
    ferrum_object_t *object = swap->registry->first;
    while (object && number-- > 0)
        object = object->next;
    if (object)
        object->busy = true;
    unlock(swap);
    return object;
}

ferrum_status_t ferrum_swap_self_test(ferrum_swap_t *swap, ferrum_error_t *err)
{
    ferrum_formats_used_t formats = formats_of(swap);
    FERRUM_TRY(ferrum_swap_ask(swap, FERRUM_SWAP_SELF_TEST, 0, 0, err));
    FERRUM_TRY(ferrum_self_test(&swap->next->ops, &formats, &swap->report.self_test_error, err));
    ferrum_object_t *object;
    for (uint32_t i = 0; (object = take_number(swap, i)) != NULL; i++) {
        bool rebuilt = object->rebuilt;
        ferrum_status_t status = rebuilt ? self_test_object(swap, object, err) : FERRUM_OK;
        put_back(swap, object, rebuilt);
        FERRUM_TRY(status);
    }
    return FERRUM_OK;
}

/* ---- the exchange; lock held ---- */

static void open_gates(ferrum_swap_t *swap)
{
    for (ferrum_object_t *o = swap->registry->first; o; o = o->next)
        if (o->gate)
            ferrum_gate_open(swap->registry, o->gate);
}

/* Waiting gives the lock away, but while `exchanging` is set nobody changes the list. */
static bool close_gates(ferrum_swap_t *swap, int64_t deadline_ns)
{
    uint32_t sessions = 0;
    for (ferrum_object_t *o = swap->registry->first; o; o = o->next)
        if (o->gate)
            ferrum_gate_close(o->gate);
    for (ferrum_object_t *o = swap->registry->first; o; o = o->next) {
        if (!o->gate)
            continue;
        sessions++;
        if (!ferrum_gate_wait(swap->registry, o->gate, deadline_ns)) {
            open_gates(swap);
            return false;
        }
    }
    swap->report.sessions = sessions;
    return true;
}

/* No thread is making or freeing objects, and none will begin to. */
static bool stop_builders(ferrum_registry_t *registry, int64_t deadline_ns)
{
    const struct timespec deadline = {(time_t)(deadline_ns / 1000000000),
                                      (long)(deadline_ns % 1000000000)};
    int error = 0;
    registry->exchanging = true;
    while (registry->builders > 0 && error == 0)
        error = pthread_cond_timedwait(&registry->changed, &registry->lock, &deadline);
    return registry->builders == 0;
}

static void resume_builders(ferrum_registry_t *registry)
{
    registry->exchanging = false;
    (void)pthread_cond_broadcast(&registry->changed);
}

static bool all_rebuilt(const ferrum_registry_t *registry)
{
    for (const ferrum_object_t *o = registry->first; o; o = o->next)
        if (!o->rebuilt)
            return false;
    return true;
}

/* All sessions are held. */
static ferrum_status_t migrate_and_publish(ferrum_swap_t *swap, ferrum_error_t *err)
{
    ferrum_registry_t *registry = swap->registry;
    swap->report.step = FERRUM_SWAP_MIGRATE;
    swap->report.requests = 0;
    for (ferrum_object_t *o = registry->first; o; o = o->next)
        if (o->ops->migrate)
            FERRUM_TRY(o->ops->migrate(o->self, &swap->report.requests, err));
    swap->report.step = FERRUM_SWAP_PUBLISH;
    for (ferrum_object_t *o = registry->first; o; o = o->next)
        o->ops->publish(o->self);
    ferrum_runtime_serve(swap->runtime, swap->next);
    return FERRUM_OK;
}

typedef enum attempt {
    ATTEMPT_DONE,
    ATTEMPT_LATE,   /* a session or builder did not stop in time */
    ATTEMPT_UNBUILT /* objects have come that have no other side yet */
} attempt_t;

static attempt_t try_exchange(ferrum_swap_t *swap, int64_t deadline_ns, int64_t patience_ns,
                              ferrum_status_t *out_status, ferrum_error_t *err)
{
    ferrum_registry_t *registry = swap->registry;
    attempt_t result = ATTEMPT_LATE;
    swap->report.step = FERRUM_SWAP_DRAIN;
    swap->report.attempts++;
    lock(swap);
    if (stop_builders(registry, deadline_ns)) {
        int64_t begin = ferrum_now_ns();
        int64_t limit = begin + patience_ns < deadline_ns ? begin + patience_ns : deadline_ns;
        result = all_rebuilt(registry) ? ATTEMPT_LATE : ATTEMPT_UNBUILT;
        if (result == ATTEMPT_LATE && close_gates(swap, limit)) {
            *out_status = migrate_and_publish(swap, err);
            open_gates(swap);
            result = ATTEMPT_DONE;
        }
        double held_ms = (double)(ferrum_now_ns() - begin) * 1e-6;
        if (held_ms > swap->report.pause_ms)
            swap->report.pause_ms = held_ms;
    }
    resume_builders(registry);
    unlock(swap);
    return result;
}

ferrum_status_t ferrum_swap_exchange(ferrum_swap_t *swap, ferrum_error_t *err)
{
    const struct timespec nap = {0, (long)NAP_NS};
    FERRUM_TRY(ferrum_swap_ask(swap, FERRUM_SWAP_DRAIN, 0, 0, err));
    int64_t deadline = ferrum_now_ns() + (int64_t)swap->options.drain_timeout_ms * 1000000;
    for (int64_t patience = FIRST_PATIENCE_NS;; patience *= 2) {
        ferrum_status_t status = FERRUM_OK;
        attempt_t attempt = try_exchange(swap, deadline, patience, &status, err);
        if (attempt == ATTEMPT_DONE)
            return status;
        if (attempt == ATTEMPT_UNBUILT) {
            FERRUM_TRY(rebuild_all(swap, true, err));
            patience /= 2;
        } else if (ferrum_now_ns() >= deadline) {
            return ferrum_fail(err, FERRUM_TIMEOUT, FERRUM_REASON_NONE,
                               "a forward pass or the making of an object did not end within %u "
                               "ms (drain_timeout_ms)",
                               swap->options.drain_timeout_ms);
        } else {
            (void)nanosleep(&nap, NULL);
        }
    }
}

/* ---- afterwards ---- */

void ferrum_swap_discard(ferrum_swap_t *swap)
{
    lock(swap);
    for (ferrum_object_t *o = swap->registry->last; o; o = o->previous) {
        o->ops->discard(o->self);
        o->rebuilt = false;
    }
    unlock(swap);
}
