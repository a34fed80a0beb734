/* SPDX-License-Identifier: MIT */
/* Events and timers. Calls have finished when they return, so every recorded point has been
 * reached, and a timer is two readings of the monotonic clock. */
#define _POSIX_C_SOURCE 200809L

#include "backends/cpu/check.h"
#include "backends/cpu/entries.h"

#include <time.h>

struct ferrum_event {
    ferrum_device_t *device;
};

struct ferrum_timer {
    ferrum_device_t *device;
    struct timespec start, end;
    bool has_start, has_end;
};

ferrum_status_t ferrum_cpu_event_new(ferrum_device_t *device, ferrum_event_t **out_event,
                                     ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(out_event, err);
    ferrum_event_t *event = ferrum_cpu_object_new(device, sizeof *event, "an event", err);
    if (!event)
        return FERRUM_OUT_OF_MEMORY;
    event->device = device;
    *out_event = event;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_event_record(ferrum_context_t *ctx, ferrum_event_t *event,
                                        ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_CHECK_POINTER(event, err);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_event_wait(ferrum_context_t *ctx, ferrum_event_t *event,
                                      ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_CHECK_POINTER(event, err);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_event_sync(ferrum_event_t *event, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(event, err);
    return FERRUM_OK;
}

void ferrum_cpu_event_free(ferrum_event_t *event)
{
    if (event)
        ferrum_cpu_object_free(event->device, event, sizeof *event);
}

ferrum_status_t ferrum_cpu_timer_new(ferrum_device_t *device, ferrum_timer_t **out_timer,
                                     ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(out_timer, err);
    ferrum_timer_t *timer = ferrum_cpu_object_new(device, sizeof *timer, "a timer", err);
    if (!timer)
        return FERRUM_OUT_OF_MEMORY;
    timer->device = device;
    *out_timer = timer;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_timer_record_start(ferrum_context_t *ctx, ferrum_timer_t *timer,
                                              ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_CHECK_POINTER(timer, err);
    timer->has_start = clock_gettime(CLOCK_MONOTONIC, &timer->start) == 0;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_timer_record_end(ferrum_context_t *ctx, ferrum_timer_t *timer,
                                            ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_CHECK_POINTER(timer, err);
    timer->has_end = clock_gettime(CLOCK_MONOTONIC, &timer->end) == 0;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_timer_elapsed_ms(ferrum_timer_t *timer, double *out_ms,
                                            ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(timer, err);
    FERRUM_CHECK_POINTER(out_ms, err);
    *out_ms = timer->has_start && timer->has_end
                  ? 1e3 * (double)(timer->end.tv_sec - timer->start.tv_sec) +
                        1e-6 * (double)(timer->end.tv_nsec - timer->start.tv_nsec)
                  : 0.0;
    return FERRUM_OK;
}

void ferrum_cpu_timer_free(ferrum_timer_t *timer)
{
    if (timer)
        ferrum_cpu_object_free(timer->device, timer, sizeof *timer);
}
