/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L /* clock_gettime, pthread_condattr_setclock */
#include "host/runtime/registry.h"

#include <ferrum/util.h>

#include <time.h>

int64_t ferrum_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

ferrum_status_t ferrum_registry_init(ferrum_registry_t *registry, ferrum_error_t *err)
{
    pthread_condattr_t attributes;
    *registry = (ferrum_registry_t){.first = NULL};
    if (pthread_mutex_init(&registry->lock, NULL) != 0)
        goto fail;
    if (pthread_condattr_init(&attributes) != 0)
        goto destroy_lock;
    int error = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    if (!error)
        error = pthread_cond_init(&registry->changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    if (!error)
        return FERRUM_OK;
destroy_lock:
    (void)pthread_mutex_destroy(&registry->lock);
fail:
    return ferrum_fail(err, FERRUM_RESOURCE_EXHAUSTED, FERRUM_REASON_OTHER,
                       "no mutex for a runtime");
}

void ferrum_registry_destroy(ferrum_registry_t *registry)
{
    (void)pthread_cond_destroy(&registry->changed);
    (void)pthread_mutex_destroy(&registry->lock);
}

void ferrum_registry_begin(ferrum_registry_t *registry)
{
    (void)pthread_mutex_lock(&registry->lock);
    while (registry->exchanging)
        (void)pthread_cond_wait(&registry->changed, &registry->lock);
    registry->builders++;
    (void)pthread_mutex_unlock(&registry->lock);
}

void ferrum_registry_end(ferrum_registry_t *registry)
{
    (void)pthread_mutex_lock(&registry->lock);
    registry->builders--;
    (void)pthread_cond_broadcast(&registry->changed);
    (void)pthread_mutex_unlock(&registry->lock);
}

void ferrum_registry_add(ferrum_registry_t *registry, ferrum_object_t *object,
                         const ferrum_object_ops_t *ops, void *self, ferrum_gate_t *gate)
{
    *object = (ferrum_object_t){.ops = ops, .self = self, .gate = gate};
    (void)pthread_mutex_lock(&registry->lock);
    object->previous = registry->last;
    if (registry->last)
        registry->last->next = object;
    else
        registry->first = object;
    registry->last = object;
    (void)pthread_mutex_unlock(&registry->lock);
}

void ferrum_registry_remove(ferrum_registry_t *registry, ferrum_object_t *object)
{
    if (!object->ops)
        return;
    (void)pthread_mutex_lock(&registry->lock);
    while (object->busy)
        (void)pthread_cond_wait(&registry->changed, &registry->lock);
    if (object->previous)
        object->previous->next = object->next;
    else
        registry->first = object->next;
    if (object->next)
        object->next->previous = object->previous;
    else
        registry->last = object->previous;
    /* With the lock, so that a swap cannot close the generation that this side lies on. */
    object->ops->discard(object->self);
    object->ops = NULL;
    (void)pthread_mutex_unlock(&registry->lock);
}

/* ---- gates ---- */

ferrum_status_t ferrum_gate_enter_slowly(ferrum_registry_t *registry, ferrum_gate_t *gate,
                                         ferrum_error_t *err)
{
    (void)pthread_mutex_lock(&registry->lock);
    for (;;) {
        uint32_t word = 0;
        if (atomic_compare_exchange_strong_explicit(&gate->word, &word, FERRUM_GATE_HELD,
                                                    memory_order_acquire, memory_order_relaxed))
            break;
        if (word & FERRUM_GATE_HELD) {
            (void)pthread_mutex_unlock(&registry->lock);
            return ferrum_fail(err, FERRUM_BUSY, FERRUM_REASON_OTHER,
                               "another thread is using this session or model: give each thread "
                               "its own");
        }
        (void)pthread_cond_wait(&registry->changed, &registry->lock);
    }
    (void)pthread_mutex_unlock(&registry->lock);
    return FERRUM_OK;
}

void ferrum_gate_wake(ferrum_registry_t *registry)
{
    (void)pthread_mutex_lock(&registry->lock);
    (void)pthread_cond_broadcast(&registry->changed);
    (void)pthread_mutex_unlock(&registry->lock);
}

void ferrum_gate_close(ferrum_gate_t *gate)
{
    (void)atomic_fetch_or_explicit(&gate->word, FERRUM_GATE_CLOSED, memory_order_acquire);
}

bool ferrum_gate_wait(ferrum_registry_t *registry, ferrum_gate_t *gate, int64_t deadline_ns)
{
    const struct timespec deadline = {(time_t)(deadline_ns / 1000000000),
                                      (long)(deadline_ns % 1000000000)};
    int error = 0;
    while (atomic_load_explicit(&gate->word, memory_order_acquire) & FERRUM_GATE_HELD) {
        if (error)
            return false;
        error = pthread_cond_timedwait(&registry->changed, &registry->lock, &deadline);
    }
    return true;
}

void ferrum_gate_open(ferrum_registry_t *registry, ferrum_gate_t *gate)
{
    (void)atomic_fetch_and_explicit(&gate->word, ~FERRUM_GATE_CLOSED, memory_order_release);
    (void)pthread_cond_broadcast(&registry->changed);
}
