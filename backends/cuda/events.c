/* SPDX-License-Identifier: MIT */
/* Events and timers: driver events, without and with timing. */
#include "backends/cuda/check.h"
#include "backends/cuda/entries.h"

struct ferrum_event {
    ferrum_device_t *device;
    CUevent event;
};

struct ferrum_timer {
    ferrum_device_t *device;
    CUevent start, end;
    bool has_start, has_end;
};

static ferrum_status_t create(ferrum_device_t *device, unsigned flags, CUevent *out_event,
                              ferrum_error_t *err)
{
    ferrum_cuda_enter(device);
    const CUresult result = device->driver.cuEventCreate(out_event, flags);
    ferrum_cuda_leave(device);
    return ferrum_cuda_result_check(result, "cuEventCreate", err);
}

static void destroy(ferrum_device_t *device, CUevent event)
{
    if (!event)
        return;
    ferrum_cuda_enter(device);
    (void)device->driver.cuEventDestroy(event);
    ferrum_cuda_leave(device);
}

static ferrum_status_t record(const char *function, ferrum_context_t *ctx, CUevent event,
                              ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_cuda_check_alive(ctx, err));
    FERRUM_TRY(ferrum_cuda_check_not_capturing(ctx, function, err));
    ferrum_cuda_enter(ctx->device);
    const CUresult result = ctx->device->driver.cuEventRecord(event, ctx->stream);
    ferrum_cuda_leave(ctx->device);
    return ferrum_cuda_context_check(ctx, result, "cuEventRecord", err);
}

ferrum_status_t ferrum_cuda_event_new(ferrum_device_t *device, ferrum_event_t **out_event,
                                      ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(out_event, err);
    ferrum_event_t *event = ferrum_cuda_object_new(device, sizeof *event, "an event", err);
    if (!event)
        return FERRUM_OUT_OF_MEMORY;
    event->device = device;
    const ferrum_status_t status = create(device, CU_EVENT_DISABLE_TIMING, &event->event, err);
    if (status == FERRUM_OK)
        *out_event = event;
    else
        ferrum_cuda_event_free(event);
    return status;
}

ferrum_status_t ferrum_cuda_event_record(ferrum_context_t *ctx, ferrum_event_t *event,
                                         ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_CHECK_POINTER(event, err);
    return record(__func__, ctx, event->event, err);
}

ferrum_status_t ferrum_cuda_event_wait(ferrum_context_t *ctx, ferrum_event_t *event,
                                       ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_CHECK_POINTER(event, err);
    FERRUM_TRY(ferrum_cuda_check_alive(ctx, err));
    FERRUM_TRY(ferrum_cuda_check_not_capturing(ctx, __func__, err));
    ferrum_cuda_enter(ctx->device);
    const CUresult result = ctx->device->driver.cuStreamWaitEvent(ctx->stream, event->event, 0);
    ferrum_cuda_leave(ctx->device);
    return ferrum_cuda_context_check(ctx, result, "cuStreamWaitEvent", err);
}

ferrum_status_t ferrum_cuda_event_sync(ferrum_event_t *event, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(event, err);
    ferrum_cuda_enter(event->device);
    const CUresult result = event->device->driver.cuEventSynchronize(event->event);
    ferrum_cuda_leave(event->device);
    return ferrum_cuda_result_check(result, "cuEventSynchronize", err);
}

void ferrum_cuda_event_free(ferrum_event_t *event)
{
    if (!event)
        return;
    destroy(event->device, event->event);
    ferrum_cuda_object_free(event->device, event, sizeof *event);
}

ferrum_status_t ferrum_cuda_timer_new(ferrum_device_t *device, ferrum_timer_t **out_timer,
                                      ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(out_timer, err);
    ferrum_timer_t *timer = ferrum_cuda_object_new(device, sizeof *timer, "a timer", err);
    if (!timer)
        return FERRUM_OUT_OF_MEMORY;
    timer->device = device;
    ferrum_status_t status = create(device, CU_EVENT_DEFAULT, &timer->start, err);
    if (status == FERRUM_OK)
        status = create(device, CU_EVENT_DEFAULT, &timer->end, err);
    if (status == FERRUM_OK)
        *out_timer = timer;
    else
        ferrum_cuda_timer_free(timer);
    return status;
}

ferrum_status_t ferrum_cuda_timer_record_start(ferrum_context_t *ctx, ferrum_timer_t *timer,
                                               ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_CHECK_POINTER(timer, err);
    FERRUM_TRY(record(__func__, ctx, timer->start, err));
    timer->has_start = true;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_timer_record_end(ferrum_context_t *ctx, ferrum_timer_t *timer,
                                             ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_CHECK_POINTER(timer, err);
    FERRUM_TRY(record(__func__, ctx, timer->end, err));
    timer->has_end = true;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_timer_elapsed_ms(ferrum_timer_t *timer, double *out_ms,
                                             ferrum_error_t *err)
{
    float ms = 0.0f;

    FERRUM_CHECK_POINTER(timer, err);
    FERRUM_CHECK_POINTER(out_ms, err);
    if (timer->has_start && timer->has_end) {
        const ferrum_cuda_driver_t *driver = &timer->device->driver;
        ferrum_cuda_enter(timer->device);
        CUresult result = driver->cuEventSynchronize(timer->end);
        if (result == CUDA_SUCCESS)
            result = driver->cuEventElapsedTime(&ms, timer->start, timer->end);
        ferrum_cuda_leave(timer->device);
        FERRUM_TRY(ferrum_cuda_result_check(result, "cuEventElapsedTime", err));
    }
    *out_ms = (double)ms;
    return FERRUM_OK;
}

void ferrum_cuda_timer_free(ferrum_timer_t *timer)
{
    if (!timer)
        return;
    destroy(timer->device, timer->start);
    destroy(timer->device, timer->end);
    ferrum_cuda_object_free(timer->device, timer, sizeof *timer);
}
