/* SPDX-License-Identifier: MIT */
/* Identity, devices, contexts, buffers, events, timers, graphs. */
#include "tools/kit/kit.h"

#include <string.h>

static void device_cases(cf_suite_t *suite)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    const ferrum_host_t *host = ferrum_module_host(suite->module);
    ferrum_device_t *device = NULL;

    cf_begin(suite, "device info is filled");
    if (suite->info.name[0] == '\0' || suite->info.activation_dtype > FERRUM_DTYPE_BF16 ||
        memchr(suite->info.name, '\0', sizeof suite->info.name) == NULL)
        cf_fail(suite, "name \"%.90s\", activation dtype %u", suite->info.name,
                suite->info.activation_dtype);
    cf_end(suite);

    cf_begin(suite, "device of an ordinal that does not exist");
    ferrum_device_options_t options = {.head = FERRUM_HEAD(ferrum_device_options_t),
                                       .ordinal = 4096};
    cf_expect_error(suite, suite->be->device_open(host, &options, &device, &err), FERRUM_NOT_FOUND,
                    &err);
    if (device != NULL)
        cf_fail(suite, "a failing device_open wrote its output");
    cf_end(suite);

    cf_begin(suite, "a second device handle, retained and released");
    if (cf_ok(suite, suite->be->device_open(host, NULL, &device, &err), &err)) {
        suite->be->device_retain(device);
        suite->be->device_release(device);
        suite->be->device_release(device);
    }
    cf_end(suite);

    cf_begin(suite, "releasing NULL");
    suite->be->device_release(NULL);
    suite->be->context_free(NULL);
    suite->be->buffer_release(NULL);
    cf_end(suite);

    cf_begin(suite, "an error struct of NULL is allowed");
    if (suite->be->device_open(host, &options, &device, NULL) == FERRUM_OK)
        cf_fail(suite, "ordinal 4096 was opened");
    cf_end(suite);
}

static void context_cases(cf_suite_t *suite)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_context_t *ctx = NULL;
    cf_begin(suite, "context outlives the caller's device reference");
    ferrum_device_t *device = NULL;
    if (cf_ok(suite, suite->be->device_open(ferrum_module_host(suite->module), NULL, &device, &err),
              &err)) {
        ferrum_status_t status = suite->be->context_new(device, NULL, &ctx, &err);
        suite->be->device_release(device);
        if (cf_ok(suite, status, &err)) {
            cf_ok(suite, suite->be->context_sync(ctx, &err), &err);
            suite->be->context_free(ctx);
        }
    }
    cf_end(suite);

    cf_begin(suite, "context counters");
    ferrum_context_stats_t stats = {.head = FERRUM_HEAD(ferrum_context_stats_t)};
    cf_ok(suite, suite->be->context_stats(suite->ctx, &stats, &err), &err);
    cf_end(suite);

    cf_begin(suite, "events order work of two contexts");
    ferrum_event_t *event = NULL;
    ctx = NULL;
    if (cf_ok(suite, suite->be->context_new(suite->device, NULL, &ctx, &err), &err) &&
        cf_ok(suite, suite->be->event_new(suite->device, &event, &err), &err)) {
        cf_ok(suite, suite->be->event_wait(ctx, event, &err), &err); /* unrecorded: complete */
        cf_ok(suite, suite->be->event_record(suite->ctx, event, &err), &err);
        cf_ok(suite, suite->be->event_wait(ctx, event, &err), &err);
        cf_ok(suite, suite->be->event_sync(event, &err), &err);
        suite->be->event_free(event);
    }
    suite->be->context_free(ctx);
    cf_end(suite);

    cf_begin(suite, "timer");
    ferrum_timer_t *timer = NULL;
    double ms = -1;
    if (cf_ok(suite, suite->be->timer_new(suite->device, &timer, &err), &err)) {
        if (cf_ok(suite, suite->be->timer_elapsed_ms(timer, &ms, &err), &err) && ms != 0.0)
            cf_fail(suite, "an unrecorded timer says %g ms", ms);
        if (cf_ok(suite, suite->be->timer_record_start(suite->ctx, timer, &err), &err) &&
            cf_ok(suite, suite->be->timer_record_end(suite->ctx, timer, &err), &err) &&
            cf_ok(suite, suite->be->timer_elapsed_ms(timer, &ms, &err), &err) &&
            !(ms >= 0 && ms < 1e5))
            cf_fail(suite, "an empty interval took %g ms", ms);
        suite->be->timer_free(timer);
    }
    cf_end(suite);
}

void cf_group_objects(cf_suite_t *suite)
{
    device_cases(suite);
    context_cases(suite);
}

static void release_one(cf_suite_t *suite, void *object)
{
    suite->be->buffer_release(object);
}

static ferrum_buffer_t *alloc(cf_suite_t *suite, ferrum_dtype_t dtype, uint64_t count)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_buffer_t *buffer = NULL;
    if (cf_ok(suite, suite->be->buffer_alloc(suite->device, dtype, count, &buffer, &err), &err))
        cf_own(suite, buffer, release_one);
    return buffer;
}

static void round_trip(cf_suite_t *suite, ferrum_dtype_t dtype)
{
    enum {
        COUNT = 37,
        OFFSET = 5,
        PART = 20
    };
    unsigned char sent[COUNT * 4], got[COUNT * 4], zero[COUNT * 4] = {0};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    size_t bytes = ferrum_dtype_bytes(dtype);
    cf_begin(suite, "buffer of %s: zeroed, written, read back", ferrum_dtype_name(dtype));
    for (size_t i = 0; i < COUNT * bytes; i++)
        sent[i] = (unsigned char)(cf_random(suite) & 0x3f); /* no NaN in any float format */
    ferrum_buffer_t *buffer = alloc(suite, dtype, COUNT);
    ferrum_buffer_info_t info = {.head = FERRUM_HEAD(ferrum_buffer_info_t)};
    if (buffer != NULL) {
        if (cf_ok(suite, suite->be->buffer_info(buffer, &info, &err), &err) &&
            (info.dtype != dtype || info.count != COUNT))
            cf_fail(suite, "info says %llu of dtype %u", (unsigned long long)info.count,
                    info.dtype);
        if (cf_ok(suite, suite->be->buffer_read(suite->ctx, buffer, 0, dtype, got, COUNT, &err),
                  &err) &&
            memcmp(got, zero, COUNT * bytes) != 0)
            cf_fail(suite, "a new buffer is not zero");
        cf_ok(suite, suite->be->buffer_write(suite->ctx, buffer, OFFSET, dtype, sent, PART, &err),
              &err);
        if (cf_ok(suite, suite->be->buffer_read(suite->ctx, buffer, 0, dtype, got, COUNT, &err),
                  &err) &&
            (memcmp(got + OFFSET * bytes, sent, PART * bytes) != 0 ||
             memcmp(got, zero, OFFSET * bytes) != 0 ||
             memcmp(got + (OFFSET + PART) * bytes, zero, (COUNT - OFFSET - PART) * bytes) != 0))
            cf_fail(suite, "read other bytes than were written");
        cf_ok(suite, suite->be->buffer_zero(suite->ctx, buffer, OFFSET, PART, &err), &err);
        if (cf_ok(suite, suite->be->buffer_read(suite->ctx, buffer, 0, dtype, got, COUNT, &err),
                  &err) &&
            memcmp(got, zero, COUNT * bytes) != 0)
            cf_fail(suite, "buffer_zero left something");
    }
    cf_end(suite);
}

static void copy_case(cf_suite_t *suite)
{
    cf_begin(suite, "buffer_copy with offsets");
    ferrum_error_t err = FERRUM_ERROR_INIT;
    cf_tensor_t src = cf_input(suite, 50, 1), dst = cf_output(suite, 40);
    double expected[40];
    memcpy(expected, dst.v, sizeof expected);
    memcpy(expected + 10, src.v + 7, 20 * sizeof(double));
    if (cf_ok(suite, suite->be->buffer_copy(suite->ctx, src.buffer, 7, dst.buffer, 10, 20, &err),
              &err)) {
        cf_read(suite, &dst);
        if (memcmp(expected, dst.v, sizeof expected) != 0)
            cf_fail(suite, "copied other elements");
    }
    cf_end(suite);
}

static void bounds_cases(cf_suite_t *suite)
{
    static const struct {
        uint64_t offset, count;
    } bad[] = {{0, 33},         {33, 0},         {32, 1},
               {UINT64_MAX, 1}, {1, UINT64_MAX}, {1ull << 62, 1ull << 62}};
    float values[64] = {0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ferrum_error_t err = FERRUM_ERROR_INIT;
        cf_begin(suite, "buffer access [%llu, +%llu) of 32", (unsigned long long)bad[i].offset,
                 (unsigned long long)bad[i].count);
        ferrum_buffer_t *a = alloc(suite, FERRUM_DTYPE_F32, 32);
        ferrum_buffer_t *b = alloc(suite, FERRUM_DTYPE_F32, 32);
        cf_expect_error(
            suite,
            suite->be->buffer_write_f32(suite->ctx, a, bad[i].offset, values, bad[i].count, &err),
            FERRUM_INVALID_ARGUMENT, &err);
        cf_expect_error(suite,
                        suite->be->buffer_read(suite->ctx, a, bad[i].offset, FERRUM_DTYPE_F32,
                                               values, bad[i].count, &err),
                        FERRUM_INVALID_ARGUMENT, &err);
        cf_expect_error(suite,
                        suite->be->buffer_zero(suite->ctx, a, bad[i].offset, bad[i].count, &err),
                        FERRUM_INVALID_ARGUMENT, &err);
        cf_expect_error(
            suite, suite->be->buffer_copy(suite->ctx, a, bad[i].offset, b, 0, bad[i].count, &err),
            FERRUM_INVALID_ARGUMENT, &err);
        cf_expect_error(
            suite, suite->be->buffer_copy(suite->ctx, a, 0, b, bad[i].offset, bad[i].count, &err),
            FERRUM_INVALID_ARGUMENT, &err);
        cf_end(suite);
    }
}

static void misuse_cases(cf_suite_t *suite)
{
    float values[8] = {0};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_buffer_t *none = NULL;

    cf_begin(suite, "buffer written as another dtype");
    ferrum_buffer_t *ints = alloc(suite, FERRUM_DTYPE_I32, 8);
    cf_expect_error(suite,
                    suite->be->buffer_write(suite->ctx, ints, 0, FERRUM_DTYPE_F32, values, 8, &err),
                    FERRUM_INVALID_ARGUMENT, &err);
    cf_expect_error(suite,
                    suite->be->buffer_read(suite->ctx, ints, 0, FERRUM_DTYPE_U32, values, 8, &err),
                    FERRUM_INVALID_ARGUMENT, &err);
    cf_expect_error(suite, suite->be->buffer_write_f32(suite->ctx, ints, 0, values, 8, &err),
                    FERRUM_INVALID_ARGUMENT, &err);
    cf_end(suite);

    cf_begin(suite, "buffer of an unknown dtype");
    cf_expect_error(suite, suite->be->buffer_alloc(suite->device, 99, 8, &none, &err),
                    FERRUM_INVALID_ARGUMENT, &err);
    cf_end(suite);

    cf_begin(suite, "buffer whose bytes overflow");
    cf_expect_error(
        suite,
        suite->be->buffer_alloc(suite->device, FERRUM_DTYPE_F32, UINT64_MAX / 2, &none, &err),
        FERRUM_INVALID_ARGUMENT, &err);
    if (none != NULL)
        cf_fail(suite, "a failing buffer_alloc wrote its output");
    cf_end(suite);

    cf_begin(suite, "buffer larger than memory");
    cf_expect_error(
        suite, suite->be->buffer_alloc(suite->device, FERRUM_DTYPE_F32, 1ull << 50, &none, &err),
        FERRUM_OUT_OF_MEMORY, &err);
    cf_end(suite);

    cf_begin(suite, "buffer of nothing");
    ferrum_buffer_t *empty = alloc(suite, FERRUM_DTYPE_F32, 0);
    if (empty != NULL)
        cf_ok(suite, suite->be->buffer_zero(suite->ctx, empty, 0, 0, &err), &err);
    cf_end(suite);
}

static void wrap_case(cf_suite_t *suite)
{
    static float memory[16] = {1, 2, 3};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_buffer_t *buffer = NULL;
    float got[3];
    cf_begin(suite, "host memory wrapped without a copy");
    if (cf_ok(
            suite,
            suite->be->buffer_wrap_host(suite->device, memory, FERRUM_DTYPE_F32, 16, &buffer, &err),
            &err)) {
        cf_own(suite, buffer, release_one);
        if (cf_ok(suite, suite->be->buffer_read_f32(suite->ctx, buffer, 0, got, 3, &err), &err) &&
            memcmp(got, memory, sizeof got) != 0)
            cf_fail(suite, "does not show the host's values");
        if ((suite->info.caps & FERRUM_CAP_HOST_WRAP) == 0)
            cf_fail(suite, "works, but FERRUM_CAP_HOST_WRAP is not set");
    } else if ((suite->info.caps & FERRUM_CAP_HOST_WRAP) != 0) {
        cf_fail(suite, "FERRUM_CAP_HOST_WRAP is set, but it does not work");
    }
    cf_end(suite);
}

void cf_group_buffers(cf_suite_t *suite)
{
    for (ferrum_dtype_t dtype = FERRUM_DTYPE_F32; dtype <= FERRUM_DTYPE_U8; dtype++)
        round_trip(suite, dtype);
    copy_case(suite);
    bounds_cases(suite);
    misuse_cases(suite);
    wrap_case(suite);
}

void cf_group_graph(cf_suite_t *suite)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_graph_key_t key = {1, 2};
    uint32_t launched = 7;
    cf_begin(suite, "replay of a graph that was never captured");
    if (cf_ok(suite, suite->ql->graph_replay(suite->ctx, &key, &launched, &err), &err) &&
        launched != 0)
        cf_fail(suite, "says that it launched one");
    cf_end(suite);

    cf_begin(suite, "reset of a graph that was never captured");
    cf_ok(suite, suite->ql->graph_reset(suite->ctx, &key, &err), &err);
    cf_ok(suite, suite->ql->graph_reset_all(suite->ctx, &err), &err);
    cf_end(suite);

    cf_begin(suite, "capture, replay, same bits as eager");
    cf_tensor_t x = cf_input(suite, 64, 1), eager = cf_output(suite, 64);
    cf_tensor_t replayed = cf_output(suite, 64);
    ferrum_context_t *ctx = suite->ctx;
    if (cf_ok(suite, suite->be->buffer_copy(ctx, x.buffer, 0, eager.buffer, 0, 64, &err), &err) &&
        cf_ok(suite, suite->be->add_inplace(ctx, eager.buffer, x.buffer, 64, &err), &err) &&
        cf_ok(suite, suite->be->buffer_copy(ctx, x.buffer, 0, replayed.buffer, 0, 64, &err),
              &err) &&
        cf_ok(suite, suite->ql->graph_begin(ctx, &err), &err)) {
        uint32_t flying = 0;
        if (cf_ok(suite, suite->ql->graph_in_flight(ctx, &flying, &err), &err) && flying == 0)
            cf_fail(suite, "no capture in flight after graph_begin");
        cf_ok(suite, suite->be->add_inplace(ctx, replayed.buffer, x.buffer, 64, &err), &err);
        if (cf_ok(suite, suite->ql->graph_end(ctx, &key, &err), &err) &&
            cf_ok(suite, suite->ql->graph_replay(ctx, &key, &launched, &err), &err)) {
            if (launched != 1)
                cf_fail(suite, "the captured graph was not launched");
            cf_expect_same(suite, &eager, &replayed);
        }
        cf_ok(suite, suite->ql->graph_reset_all(ctx, &err), &err);
    } else if ((suite->info.caps & FERRUM_CAP_GRAPH) != 0) {
        cf_fail(suite, "FERRUM_CAP_GRAPH is set, but capture does not work");
    }
    cf_end(suite);
}
