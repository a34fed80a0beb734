/* SPDX-License-Identifier: MIT */
/* What happens when driver, device or memory are not as they should be. */
#include "backends/cuda/driver_api.h"
#include "tests/cuda/fixture.h"

#include <ferrum/util.h>

#include <stdlib.h>

START_TEST(no_driver)
{
    ferrum_probe_t probe = {.head = FERRUM_HEAD(ferrum_probe_t)};

    cuda_load();
    cuda.driver = "/nonexistent/libcuda.so";
    EXPECT_FAILS(cuda.plugin.probe(&cuda.host.host, &probe, &err), FERRUM_UNSUPPORTED,
                 "no NVIDIA driver");
    EXPECT_FAILS(cuda.be->device_open(&cuda.host.host, NULL, &cuda.device, &err),
                 FERRUM_UNSUPPORTED, "/nonexistent/libcuda.so");
    ck_assert_uint_eq(atomic_load(&cuda.host.live_blocks), 0);
}
END_TEST

START_TEST(old_driver)
{
    ferrum_probe_t probe = {.head = FERRUM_HEAD(ferrum_probe_t)};

    cuda_load();
    ck_assert_int_eq(cuda.set("VERSION", "11080"), 0);
    EXPECT_FAILS(cuda.plugin.probe(&cuda.host.host, &probe, &err), FERRUM_UNSUPPORTED,
                 "too old: it supports CUDA 11.8");
}
END_TEST

/** The driver is new enough for the functions, not for the kernels. */
START_TEST(driver_too_old_for_the_kernels)
{
    static const char *const results[] = {"200", "209", "218", "222"};

    cuda_load();
    for (size_t i = 0; i < sizeof results / sizeof results[0]; i++) {
        char failure[64];
        (void)snprintf(failure, sizeof failure, "cuModuleLoadData:0:%s", results[i]);
        ck_assert_int_eq(cuda.set("FAIL", failure), 0);
        EXPECT_FAILS(cuda.be->device_open(&cuda.host.host, NULL, &cuda.device, &err),
                     FERRUM_UNSUPPORTED,
                     "the NVIDIA driver (for CUDA 13.0) cannot load the kernels for compute "
                     "capability 8.0 (CUDA_ERROR_");
        ck_assert_uint_eq(atomic_load(&cuda.host.live_blocks), 0);
    }
    ck_assert_int_eq(cuda.set("FAIL", ""), 0);
    EXPECT_OK(cuda.be->device_open(&cuda.host.host, NULL, &cuda.device, &err));
    cuda.be->device_release(cuda.device);
}
END_TEST

START_TEST(old_device)
{
    cuda_load();
    ck_assert_int_eq(cuda.set("FAIL", "cuDeviceGetAttribute:0:1"), 0);
    EXPECT_FAILS(cuda.be->device_open(&cuda.host.host, NULL, &cuda.device, &err),
                 FERRUM_UNSUPPORTED, "has compute capability 0.0, the cuda backend needs 8.0");
}
END_TEST

START_TEST(no_device)
{
    cuda_load();
    ck_assert_int_eq(cuda.set("DEVICES", "0"), 0);
    EXPECT_FAILS(cuda.be->device_open(&cuda.host.host, NULL, &cuda.device, &err),
                 FERRUM_UNSUPPORTED, "no CUDA device");
}
END_TEST

START_TEST(activation_dtype)
{
    ferrum_device_options_t options = {.head = FERRUM_HEAD(ferrum_device_options_t),
                                       .set_activation_dtype = 1,
                                       .activation_dtype = FERRUM_DTYPE_F32};
    ferrum_device_info_t info = {.head = FERRUM_HEAD(ferrum_device_info_t)};

    cuda_load();
    EXPECT_FAILS(cuda.be->device_open(&cuda.host.host, &options, &cuda.device, &err),
                 FERRUM_UNSUPPORTED, "f16 or bf16 activations, not f32");
    options.activation_dtype = FERRUM_DTYPE_BF16;
    EXPECT_OK(cuda.be->device_open(&cuda.host.host, &options, &cuda.device, &err));
    EXPECT_OK(cuda.be->device_info(cuda.device, &info, &err));
    ck_assert_uint_eq(info.activation_dtype, FERRUM_DTYPE_BF16);
    cuda.be->device_release(cuda.device);
}
END_TEST

START_TEST(out_of_memory)
{
    ferrum_buffer_t *buffer = NULL;

    cuda_open();
    EXPECT_FAILS(cuda.be->buffer_alloc(cuda.device, FERRUM_DTYPE_U8, 1ull << 30, &buffer, &err),
                 FERRUM_OUT_OF_MEMORY,
                 "cannot allocate 1073741824 bytes for a buffer: CUDA device 0 has ");
    ck_assert_ptr_null(buffer);
    buffer = cuda_ramp(4, 1, 1);
    ck_assert(cuda_at(buffer, 3) == 4.0f);
    cuda.be->buffer_release(buffer);
    cuda_close();
}
END_TEST

/** Memory for scratch runs out in the middle of an op: the message has the numbers, nothing stays
 * allocated, and the context goes on. */
START_TEST(out_of_memory_for_scratch)
{
    enum {
        COUNT = 4096
    };
    const uint32_t ids[COUNT] = {0};
    char enough[24];

    cuda_open();
    ferrum_buffer_t *table = cuda_ramp(8, 1, 1), *out = cuda_ramp(COUNT * 8, 0, 0);
    EXPECT_OK(cuda.be->context_sync(cuda.ctx, &err));
    const uint64_t used = cuda.count("memory");
    (void)snprintf(enough, sizeof enough, "%llu", (unsigned long long)used + 256);
    ck_assert_int_eq(cuda.set("MEMORY", enough), 0);
    EXPECT_FAILS(cuda.be->embedding_lookup(cuda.ctx, table, ids, COUNT, out, 8, &err),
                 FERRUM_OUT_OF_MEMORY,
                 "cannot allocate 16384 bytes for scratch: CUDA device 0 has 256 of ");
    ck_assert_uint_eq(cuda.count("memory"), used);
    EXPECT_OK(cuda.be->scale_inplace(cuda.ctx, table, 2, 8, &err));
    ck_assert_int_eq(cuda.set("MEMORY", "1000000"), 0);
    EXPECT_OK(cuda.be->embedding_lookup(cuda.ctx, table, ids, COUNT, out, 8, &err));
    ck_assert(cuda_at(out, COUNT * 8 - 1) == 16.0f);
    cuda.be->buffer_release(table);
    cuda.be->buffer_release(out);
    cuda_close();
}
END_TEST

START_TEST(lost_device)
{
    cuda_open();
    ferrum_buffer_t *x = cuda_ramp(8, 1, 1);
    ck_assert_int_eq(cuda.set("FAIL", "cuLaunchKernel:0:700"), 0);
    EXPECT_FAILS(cuda.be->scale_inplace(cuda.ctx, x, 2, 8, &err), FERRUM_DEVICE_LOST,
                 "CUDA_ERROR_ILLEGAL_ADDRESS");
    ck_assert_int_eq(cuda.set("FAIL", ""), 0);
    EXPECT_FAILS(cuda.be->scale_inplace(cuda.ctx, x, 2, 8, &err), FERRUM_DEVICE_LOST,
                 "since an earlier call: CUDA_ERROR_ILLEGAL_ADDRESS");
    EXPECT_FAILS(cuda.be->context_sync(cuda.ctx, &err), FERRUM_DEVICE_LOST, "restart the process");
    cuda.be->buffer_release(x);
    cuda.be->context_free(cuda.ctx);
    cuda.be->device_release(cuda.device);
    ck_assert_uint_eq(atomic_load(&cuda.host.live_blocks), 0);
}
END_TEST

/** Everything that a scenario may hold; what is NULL was not made. */
typedef struct objects {
    ferrum_device_t *device;
    ferrum_context_t *ctx;
    ferrum_event_t *event;
    ferrum_timer_t *timer;
    ferrum_buffer_t *x, *y;
} objects_t;

/** One of each kind of driver call. */
static ferrum_status_t scenario(objects_t *o, ferrum_error_t *err)
{
    const float values[64] = {1};
    const ferrum_graph_key_t key = {1, 1};
    const uint32_t ids[2] = {0, 1};
    float back[64];
    uint32_t launched;
    double ms;

    FERRUM_TRY(cuda.be->device_open(&cuda.host.host, NULL, &o->device, err));
    FERRUM_TRY(cuda.be->context_new(o->device, NULL, &o->ctx, err));
    FERRUM_TRY(cuda.be->event_new(o->device, &o->event, err));
    FERRUM_TRY(cuda.be->timer_new(o->device, &o->timer, err));
    FERRUM_TRY(cuda.be->buffer_alloc(o->device, FERRUM_DTYPE_F16, 64, &o->x, err));
    FERRUM_TRY(cuda.be->buffer_alloc(o->device, FERRUM_DTYPE_F16, 64, &o->y, err));
    FERRUM_TRY(cuda.be->buffer_write_f32(o->ctx, o->x, 0, values, 64, err));
    FERRUM_TRY(cuda.be->timer_record_start(o->ctx, o->timer, err));
    FERRUM_TRY(cuda.be->buffer_zero(o->ctx, o->y, 0, 64, err));
    FERRUM_TRY(cuda.be->buffer_copy(o->ctx, o->x, 0, o->y, 0, 32, err));
    FERRUM_TRY(cuda.be->embedding_lookup(o->ctx, o->x, ids, 2, o->y, 32, err));
    FERRUM_TRY(cuda.be->timer_record_end(o->ctx, o->timer, err));
    FERRUM_TRY(cuda.be->event_record(o->ctx, o->event, err));
    FERRUM_TRY(cuda.be->event_wait(o->ctx, o->event, err));
    FERRUM_TRY(cuda.be->event_sync(o->event, err));
    FERRUM_TRY(cuda.be->timer_elapsed_ms(o->timer, &ms, err));
    FERRUM_TRY(cuda.ql->graph_begin(o->ctx, err));
    FERRUM_TRY(cuda.be->add_inplace(o->ctx, o->y, o->x, 64, err));
    FERRUM_TRY(cuda.ql->graph_end(o->ctx, &key, err));
    FERRUM_TRY(cuda.ql->graph_replay(o->ctx, &key, &launched, err));
    FERRUM_TRY(cuda.be->context_sync(o->ctx, err));
    return cuda.be->buffer_read_f32(o->ctx, o->y, 0, back, 64, err);
}

static void release(const objects_t *o)
{
    cuda.be->event_free(o->event);
    cuda.be->timer_free(o->timer);
    cuda.be->buffer_release(o->x);
    cuda.be->buffer_release(o->y);
    cuda.be->context_free(o->ctx);
    cuda.be->device_release(o->device);
}

/** Whether a failure of @p symbol means that something could not be given back. */
static bool gives_back(const char *symbol)
{
    static const char *const words[] = {"Free", "Destroy", "Unload", "Release", "PushCurrent"};

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strstr(symbol, words[i]))
            return true;
    return false;
}

/** Fail call @p call of @p symbol; false when there was no such call. */
static bool fail_once(const char *symbol, unsigned call)
{
    char failure[96];
    objects_t objects = {0};
    ferrum_error_t err = FERRUM_ERROR_INIT;

    cuda.reset();
    (void)snprintf(failure, sizeof failure, "%s:%u:2", symbol, call);
    ck_assert_int_eq(cuda.set("FAIL", failure), 0);
    const ferrum_status_t status = scenario(&objects, &err);
    const bool reached = cuda.count(symbol) >= call;
    ck_assert_int_eq(cuda.set("FAIL", ""), 0);
    release(&objects);
    ck_assert_msg(status == FERRUM_OK || err.message[0] != '\0', "%s: no message", failure);
    ck_assert_msg(atomic_load(&cuda.host.live_blocks) == 0, "%s leaks", failure);
    ck_assert_msg(gives_back(symbol) || (cuda.count("streams") == 0 && cuda.count("events") == 0 &&
                                         cuda.count("graphs") == 0 && cuda.count("memory") == 0),
                  "%s leaks on the device", failure);
    return reached;
}

START_TEST(every_driver_call_fails_once)
{
#define SYMBOL(name, symbol, parameters) #symbol,
    static const char *const symbols[] = {FERRUM_CUDA_DRIVER_API(SYMBOL)};
#undef SYMBOL

    cuda_load();
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++)
        for (unsigned call = 1; call < 200 && fail_once(symbols[i], call); call++)
            ;
}
END_TEST

START_TEST(every_host_allocation_fails_once)
{
    ferrum_status_t status = FERRUM_OUT_OF_MEMORY;

    cuda_load();
    for (uint64_t n = 1; status != FERRUM_OK; n++) {
        objects_t objects = {0};
        ferrum_error_t err = FERRUM_ERROR_INIT;
        cuda.reset();
        atomic_store(&cuda.host.allocations, 0);
        cuda.host.fail_at = n;
        status = scenario(&objects, &err);
        release(&objects);
        ck_assert_msg(status == FERRUM_OK || status == FERRUM_OUT_OF_MEMORY, "%s", err.message);
        ck_assert_uint_eq(atomic_load(&cuda.host.live_blocks), 0);
    }
}
END_TEST

int main(void)
{
    if (!cuda_built())
        return 77;
    Suite *suite = suite_create("cuda device");
    TCase *cases = tcase_create("device");
    tcase_add_test(cases, no_driver);
    tcase_add_test(cases, old_driver);
    tcase_add_test(cases, driver_too_old_for_the_kernels);
    tcase_add_test(cases, old_device);
    tcase_add_test(cases, no_device);
    tcase_add_test(cases, activation_dtype);
    tcase_add_test(cases, out_of_memory);
    tcase_add_test(cases, out_of_memory_for_scratch);
    tcase_add_test(cases, lost_device);
    tcase_add_test(cases, every_driver_call_fails_once);
    tcase_add_test(cases, every_host_allocation_fails_once);
    suite_add_tcase(suite, cases);
    return expect_run(suite);
}
