/* SPDX-License-Identifier: MIT */
/* The emulated driver keeps the rules of the driver API: errors, capture, streams, limits. */
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda_emu/fixture.h"

#define OK(call) ck_assert_int_eq(call, CUDA_SUCCESS)

static CUstream new_stream(void)
{
    CUstream stream = NULL;

    OK(cu.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    return stream;
}

/* A small kernel in a stream: squares of lanes in reverse. */
static CUresult launch(CUdeviceptr out, CUstream stream)
{
    return cu.cuLaunchKernel(fixture_kernel("wrap_named_barrier"), 1, 1, 1, 96, 1, 1, 128, stream,
                             (void *[]){&out}, NULL);
}

static CUdeviceptr new_memory(void)
{
    const uint32_t zeros[64] = {0};

    return fixture_upload(zeros, sizeof zeros);
}

START_TEST(order_of_starting)
{
    CUcontext context;
    CUdeviceptr address;
    size_t bytes;
    int count;

    cu.reset();
    ck_assert_int_eq(cu.cuDeviceGetCount(&count), CUDA_ERROR_NOT_INITIALIZED);
    cu.set("DEVICES", "0");
    ck_assert_int_eq(cu.cuInit(0), CUDA_ERROR_NO_DEVICE);
    cu.set("DEVICES", "2");
    OK(cu.cuInit(0));
    OK(cu.cuDeviceGetCount(&count));
    ck_assert_int_eq(count, 2);
    ck_assert_int_eq(cu.cuMemAlloc(&address, 16), CUDA_ERROR_INVALID_CONTEXT);
    ck_assert_int_eq(cu.cuDevicePrimaryCtxRetain(&context, 2), CUDA_ERROR_INVALID_DEVICE);
    OK(cu.cuDevicePrimaryCtxRetain(&context, 1));
    OK(cu.cuCtxSetCurrent(context));
    OK(cu.cuMemAlloc(&address, 16));
    OK(cu.cuMemGetInfo(&bytes, &bytes));
    OK(cu.cuDevicePrimaryCtxRelease(1));
    ck_assert_int_eq(cu.cuMemAlloc(&address, 16), CUDA_ERROR_CONTEXT_IS_DESTROYED);
    fixture_begin();
}
END_TEST

START_TEST(proc_address)
{
    void *function = NULL;
    int status = -1;

    OK(cu.cuGetProcAddress("cuMemAlloc", &function, 13000, 0, &status));
    ck_assert_ptr_nonnull(function);
    ck_assert_int_eq(status, 0);
    ck_assert_int_eq(cu.cuGetProcAddress("cuFly", &function, 13000, 0, &status),
                     CUDA_ERROR_NOT_FOUND);
    ck_assert_ptr_null(function);
}
END_TEST

START_TEST(modules)
{
    CUmodule module;
    CUfunction function;

    ck_assert_int_eq(cu.cuModuleLoadData(&module, "what is this"), CUDA_ERROR_INVALID_IMAGE);
    ck_assert_int_eq(cu.cuModuleGetFunction(&function, fixture_module, "none"),
                     CUDA_ERROR_NOT_FOUND);
}
END_TEST

START_TEST(out_of_memory)
{
    size_t before, after, total;
    CUdeviceptr a = 0, b = 0;

    cu.set("MEMORY", "1048576");
    OK(cu.cuMemGetInfo(&before, &total));
    ck_assert_uint_eq(total, 1048576);
    OK(cu.cuMemAlloc(&a, 700000));
    ck_assert_int_eq(cu.cuMemAlloc(&b, 400000), CUDA_ERROR_OUT_OF_MEMORY);
    ck_assert_uint_eq(b, 0);
    ck_assert_int_eq(cu.cuMemAlloc(&b, SIZE_MAX), CUDA_ERROR_OUT_OF_MEMORY);
    ck_assert_int_eq(cu.cuMemAlloc(&b, 0), CUDA_ERROR_INVALID_VALUE);
    fixture_free(a);
    ck_assert_int_eq(cu.cuMemFree(a), CUDA_ERROR_INVALID_VALUE);
    OK(cu.cuMemGetInfo(&after, &total));
    ck_assert_uint_eq(before, after);
    /* The range of addresses is gone through more than once. */
    cu.set("MEMORY", "4294967296");
    for (int i = 0; i < 40; i++) {
        OK(cu.cuMemAlloc(&a, (size_t)(i % 4 == 3 ? 1000 : 1 + i) << 4));
        ck_assert_uint_eq(a % 256, 0);
        OK(cu.cuMemFree(a));
    }
}
END_TEST

START_TEST(injected_failures)
{
    CUdeviceptr a = 0;

    cu.set("FAIL", "cuMemFree_v2:0:4,cuMemAlloc_v2:2:2");
    OK(cu.cuMemAlloc(&a, 256));
    ck_assert_int_eq(cu.cuMemAlloc(&a, 256), CUDA_ERROR_OUT_OF_MEMORY);
    ck_assert_int_eq(cu.cuMemFree(a), CUDA_ERROR_DEINITIALIZED);
    cu.set("FAIL", "");
    ck_assert_uint_eq(cu.count("cuMemAlloc_v2"), 2);
    fixture_free(a);
}
END_TEST

START_TEST(device_lost)
{
    CUdeviceptr a = new_memory();
    uint32_t word;
    CUcontext context;

    cu.set("FAIL", "cuLaunchKernel:1:719");
    ck_assert_int_eq(launch(a, NULL), CUDA_ERROR_LAUNCH_FAILED);
    ck_assert_int_eq(cu.cuStreamSynchronize(NULL), CUDA_ERROR_LAUNCH_FAILED);
    ck_assert_int_eq(cu.cuMemcpyDtoH(&word, a, 4), CUDA_ERROR_LAUNCH_FAILED);
    ck_assert_int_eq(cu.cuMemFree(a), CUDA_ERROR_LAUNCH_FAILED);
    ck_assert_int_eq(cu.cuCtxSynchronize(), CUDA_ERROR_LAUNCH_FAILED);
    OK(cu.cuDevicePrimaryCtxRelease(0));
    OK(cu.cuDevicePrimaryCtxRetain(&context, 0));
    a = new_memory();
    fixture_free(a);
    cu.reset();
    fixture_begin();
}
END_TEST

START_TEST(launch_limits)
{
    static const struct {
        uint32_t grid[3], block[3], shared_bytes;
        CUresult result;
    } cases[] = {
        {{1, 1, 1}, {96, 1, 1}, 128, CUDA_SUCCESS},
        {{1, 1, 1}, {128, 1, 1}, 128, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES}, /* launch bound */
        {{1, 1, 1}, {1056, 1, 1}, 128, CUDA_ERROR_INVALID_VALUE},
        {{0, 1, 1}, {96, 1, 1}, 128, CUDA_ERROR_INVALID_VALUE},
        {{1, 1, 1}, {96, 0, 1}, 128, CUDA_ERROR_INVALID_VALUE},
        {{1, 65536, 1}, {96, 1, 1}, 128, CUDA_ERROR_INVALID_VALUE},
        {{1, 1, 65536}, {96, 1, 1}, 128, CUDA_ERROR_INVALID_VALUE},
        {{1, 1, 1}, {96, 1, 1}, 48 * 1024, CUDA_SUCCESS},
        {{1, 1, 1}, {96, 1, 1}, 48 * 1024 + 1, CUDA_ERROR_INVALID_VALUE},
    };
    CUfunction function = fixture_kernel("wrap_named_barrier");
    CUdeviceptr a = new_memory();
    void *params[] = {&a};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_int_eq(cu.cuLaunchKernel(function, cases[i].grid[0], cases[i].grid[1],
                                           cases[i].grid[2], cases[i].block[0], cases[i].block[1],
                                           cases[i].block[2], cases[i].shared_bytes, NULL, params,
                                           NULL),
                         cases[i].result);
    }
    OK(cu.cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                             163 * 1024));
    ck_assert_int_eq(cu.cuFuncSetAttribute(
                         function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 164 * 1024),
                     CUDA_ERROR_INVALID_VALUE);
    OK(cu.cuLaunchKernel(function, 1, 1, 1, 96, 1, 1, 163 * 1024, NULL, params, NULL));
    OK(fixture_wait());
    fixture_free(a);
}
END_TEST

/* Pinned memory gets its data when somebody waits, not before; pageable memory at once. */
START_TEST(copies_are_late)
{
    const uint32_t value = 7;
    CUstream stream = new_stream();
    CUdeviceptr a = new_memory();
    uint32_t *pinned, pageable = 0;

    OK(cu.cuMemHostAlloc((void **)&pinned, 4, 0));
    *pinned = 1;
    OK(cu.cuMemsetD32Async(a, 5, 1, stream));
    OK(cu.cuMemcpyDtoHAsync(pinned, a, 4, stream));
    ck_assert_uint_eq(*pinned, 1);
    ck_assert_int_eq(cu.cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
    OK(cu.cuStreamQuery(stream));
    ck_assert_uint_eq(*pinned, 5);
    /* The other way, pinned memory is read late. */
    OK(cu.cuMemcpyHtoDAsync(a, pinned, 4, stream));
    *pinned = 6;
    OK(cu.cuMemcpyHtoDAsync(a + 4, &value, 4, stream));
    OK(cu.cuMemcpyDtoHAsync(&pageable, a, 4, stream));
    ck_assert_uint_eq(pageable, 6);
    OK(cu.cuMemcpyDtoH(&pageable, a + 4, 4));
    ck_assert_uint_eq(pageable, 7);
    OK(cu.cuMemFreeHost(pinned));
    ck_assert_int_eq(cu.cuMemFreeHost(pinned), CUDA_ERROR_INVALID_VALUE);
    OK(cu.cuStreamDestroy(stream));
    fixture_free(a);
}
END_TEST

/* Two streams that take turns by events, with many seeds. */
START_TEST(events_order_streams)
{
    char seed[8];
    CUstream streams[2] = {new_stream(), new_stream()};
    CUdeviceptr a = new_memory();
    CUevent events[2];
    uint32_t out = 0;
    float ms = -1;

    snprintf(seed, sizeof seed, "%d", _i);
    cu.set("SEED", seed);
    OK(cu.cuEventCreate(&events[0], CU_EVENT_DEFAULT));
    OK(cu.cuEventCreate(&events[1], CU_EVENT_DEFAULT));
    for (uint32_t i = 0; i < 10; i++) {
        OK(cu.cuStreamWaitEvent(streams[i % 2], events[(i + 1) % 2], 0));
        OK(cu.cuMemsetD32Async(a, i, 1, streams[i % 2]));
        OK(cu.cuEventRecord(events[i % 2], streams[i % 2]));
    }
    OK(cu.cuEventSynchronize(events[1]));
    OK(cu.cuMemcpyDtoH(&out, a, 4));
    ck_assert_uint_eq(out, 9);
    OK(cu.cuEventElapsedTime(&ms, events[0], events[1]));
    ck_assert(ms >= 0);
    OK(cu.cuEventQuery(events[0]));
    for (int i = 0; i < 2; i++) {
        OK(cu.cuEventDestroy(events[i]));
        OK(cu.cuStreamDestroy(streams[i]));
    }
    fixture_free(a);
}
END_TEST

START_TEST(graph_replay)
{
    CUstream stream = new_stream();
    CUdeviceptr a = new_memory();
    CUgraph graph;
    CUgraphExec exec;
    CUgraphNode nodes[2];
    CUgraphNodeType type;
    size_t count = 2;
    uint32_t out[32];
    CUstreamCaptureStatus status;

    OK(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    OK(cu.cuStreamIsCapturing(stream, &status));
    ck_assert_int_eq(status, CU_STREAM_CAPTURE_STATUS_ACTIVE);
    OK(cu.cuMemsetD8Async(a, 0, 256, stream));
    OK(launch(a, stream));
    OK(cu.cuStreamEndCapture(stream, &graph));
    ck_assert_uint_eq(cu.count("kernels"), 0);
    OK(cu.cuGraphGetNodes(graph, nodes, &count));
    ck_assert_uint_eq(count, 2);
    OK(cu.cuGraphNodeGetType(nodes[0], &type));
    ck_assert_int_eq(type, CU_GRAPH_NODE_TYPE_MEMSET);
    OK(cu.cuGraphNodeGetType(nodes[1], &type));
    ck_assert_int_eq(type, CU_GRAPH_NODE_TYPE_KERNEL);
    OK(cu.cuGraphInstantiate(&exec, graph, 0));
    OK(cu.cuGraphDestroy(graph));
    OK(cu.cuGraphUpload(exec, stream));
    for (int i = 0; i < 3; i++)
        OK(cu.cuGraphLaunch(exec, stream));
    OK(cu.cuStreamSynchronize(stream));
    ck_assert_uint_eq(cu.count("kernels"), 3);
    fixture_download(out, a, sizeof out);
    ck_assert_uint_eq(out[0], 31 * 31);
    OK(cu.cuGraphExecDestroy(exec));
    OK(cu.cuStreamDestroy(stream));
    fixture_free(a);
}
END_TEST

enum {
    ALLOC,
    FREE,
    HOST_ALLOC,
    CONTEXT_SYNC,
    STREAM_SYNC,
    STREAM_QUERY,
    COPY,
    LOAD,
    ILLEGAL_CALLS
};

static CUresult illegal_call(int which, CUdeviceptr a, CUstream stream)
{
    CUdeviceptr address;
    CUmodule module;
    uint32_t word;
    void *pointer;

    switch (which) {
    case ALLOC:
        return cu.cuMemAlloc(&address, 256);
    case FREE:
        return cu.cuMemFree(a);
    case HOST_ALLOC:
        return cu.cuMemHostAlloc(&pointer, 256, 0);
    case CONTEXT_SYNC:
        return cu.cuCtxSynchronize();
    case STREAM_SYNC:
        return cu.cuStreamSynchronize(stream);
    case STREAM_QUERY:
        return cu.cuStreamQuery(stream);
    case COPY:
        return cu.cuMemcpyDtoH(&word, a, 4);
    default:
        return cu.cuModuleLoadData(&module, "EMU");
    }
}

/* The call fails, and so does the capture. */
START_TEST(illegal_during_capture)
{
    CUstream stream = new_stream();
    CUdeviceptr a = new_memory();
    CUgraph graph = (CUgraph)&graph;

    OK(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    OK(launch(a, stream));
    ck_assert_int_eq(illegal_call(_i, a, stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    ck_assert_int_eq(launch(a, stream), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    ck_assert_int_eq(cu.cuStreamEndCapture(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    ck_assert_ptr_null(graph);
    OK(cu.cuStreamDestroy(stream));
    fixture_free(a);
}
END_TEST

START_TEST(capture_rules)
{
    CUstream stream = new_stream(), other = new_stream(), blocking;
    CUdeviceptr a = new_memory(), b;
    CUevent event;
    CUgraph graph;

    OK(cu.cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    ck_assert_int_eq(cu.cuStreamBeginCapture(NULL, CU_STREAM_CAPTURE_MODE_GLOBAL),
                     CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    ck_assert_int_eq(cu.cuStreamEndCapture(stream, &graph), CUDA_ERROR_ILLEGAL_STATE);
    /* Relaxed: unsafe calls are the caller's business. */
    OK(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    OK(cu.cuMemAlloc(&b, 256));
    OK(cu.cuStreamEndCapture(stream, &graph));
    OK(cu.cuGraphDestroy(graph));
    fixture_free(b);
    /* A fork that comes back, and one that does not. */
    for (int joined = 0; joined < 2; joined++) {
        OK(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
        OK(cu.cuEventRecord(event, stream));
        OK(cu.cuStreamWaitEvent(other, event, 0));
        OK(launch(a, other));
        OK(cu.cuEventRecord(event, other));
        if (joined)
            OK(cu.cuStreamWaitEvent(stream, event, 0));
        ck_assert_int_eq(cu.cuStreamEndCapture(stream, &graph),
                         joined ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    }
    OK(cu.cuGraphDestroy(graph));
    /* An event from outside; then one of the capture, asked for. */
    OK(cu.cuEventRecord(event, other));
    OK(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    ck_assert_int_eq(cu.cuStreamWaitEvent(stream, event, 0), CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    ck_assert_int_eq(cu.cuStreamEndCapture(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    OK(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    OK(cu.cuEventRecord(event, stream));
    ck_assert_int_eq(cu.cuEventSynchronize(event), CUDA_ERROR_CAPTURED_EVENT);
    ck_assert_int_eq(cu.cuStreamEndCapture(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    /* The default stream waits for blocking streams, also when they capture. */
    OK(cu.cuStreamCreate(&blocking, CU_STREAM_DEFAULT));
    OK(cu.cuStreamBeginCapture(blocking, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    ck_assert_int_eq(launch(a, NULL), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    ck_assert_int_eq(cu.cuStreamEndCapture(blocking, &graph),
                     CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    OK(cu.cuStreamDestroy(blocking));
    OK(cu.cuStreamDestroy(other));
    OK(cu.cuStreamDestroy(stream));
    OK(cu.cuEventDestroy(event));
    fixture_free(a);
}
END_TEST

static void expect_lost(const char *words)
{
    ck_assert_int_eq(fixture_wait(), CUDA_ERROR_ILLEGAL_ADDRESS);
    ck_assert_msg(strstr(cu.fault(), words) != NULL, "%s", cu.fault());
    cu.reset();
    fixture_begin();
}

START_TEST(stale_pointers)
{
    CUdeviceptr a = new_memory();
    CUcontext other;
    char byte;

    ck_assert_int_eq(cu.cuMemcpyDtoH(&byte, a + 256, 1), CUDA_ERROR_INVALID_VALUE);
    ck_assert_int_eq(cu.cuMemsetD32(a, 0, 65), CUDA_ERROR_INVALID_VALUE);
    fixture_free(a);
    OK(launch(a, NULL));
    expect_lost("wrap_named_barrier: parameter 0 points to device memory that is not allocated");

    cu.set("DEVICES", "2");
    a = new_memory();
    OK(cu.cuDevicePrimaryCtxRetain(&other, 1));
    OK(cu.cuCtxPushCurrent(other));
    OK(cu.cuModuleLoadData(&fixture_module, "EMU"));
    OK(launch(a, NULL));
    expect_lost("is another device's");
}
END_TEST

static void *launch_often(void *context)
{
    CUstream stream;
    CUdeviceptr a;
    uint32_t out[32];

    cu.cuCtxSetCurrent(context);
    a = new_memory();
    cu.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
    for (int i = 0; i < 20; i++) {
        cu.cuMemsetD8Async(a, 0, sizeof out, stream);
        launch(a, stream);
        cu.cuStreamSynchronize(stream);
        fixture_download(out, a, sizeof out);
        if (out[31] != 0 || out[0] != 31 * 31)
            return context;
    }
    cu.cuStreamDestroy(stream);
    fixture_free(a);
    return NULL;
}

START_TEST(host_threads)
{
    pthread_t threads[3];

    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, launch_often, fixture_context), 0);
    for (int i = 0; i < 3; i++) {
        void *failed;

        pthread_join(threads[i], &failed);
        ck_assert_ptr_null(failed);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cuda_emu driver");
    TCase *tcase = tcase_create("driver");
    SRunner *runner;
    int failed;

    if (!fixture_open())
        return 77;
    if (cu.reset == NULL) {
        puts("these tests are of the emulated driver only");
        return 77;
    }
    tcase_add_checked_fixture(tcase, fixture_begin, fixture_end);
    tcase_add_test(tcase, order_of_starting);
    tcase_add_test(tcase, proc_address);
    tcase_add_test(tcase, modules);
    tcase_add_test(tcase, out_of_memory);
    tcase_add_test(tcase, injected_failures);
    tcase_add_test(tcase, device_lost);
    tcase_add_test(tcase, launch_limits);
    tcase_add_test(tcase, copies_are_late);
    tcase_add_loop_test(tcase, events_order_streams, 0, 6);
    tcase_add_test(tcase, graph_replay);
    tcase_add_loop_test(tcase, illegal_during_capture, 0, ILLEGAL_CALLS);
    tcase_add_test(tcase, capture_rules);
    tcase_add_test(tcase, stale_pointers);
    tcase_add_test(tcase, host_threads);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
