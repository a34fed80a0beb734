/* SPDX-License-Identifier: MIT */
/*
 * One planted bug per run, for planted.sh: prints what was noticed. The exit status is 0 if nothing
 * was, 3 if the driver or the numbers told, and another one if the process was ended.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda_emu/fixture.h"
#include "tests/cuda_emu/product.h"
#include "tests/cuda_emu/product_sm90.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZER "address"
#elif defined(__SANITIZE_THREAD__)
#define SANITIZER "thread"
#else
#define SANITIZER "none"
#endif

static int noticed(CUresult result)
{
    if (result == CUDA_SUCCESS)
        return 0;
    printf("driver result %d\n", (int)result);
    return 3;
}

static int run_product(uint32_t bug)
{
    for (int i = 0; i < 2; i++) {
        if (!(product_error(i == 1, bug) <= 1e-6)) {
            printf("wrong numbers\n");
            return 3;
        }
    }
    return 0;
}

static int run_product_sm90(uint32_t bug)
{
    if (product_sm90_error(bug) <= 1e-6)
        return 0;
    printf("wrong numbers\n");
    return 3;
}

/* Kernels that fill 64 words with what is `expected`, in reverse order of threads. */
static int run_kernel(const char *name, uint32_t threads, uint32_t shared_bytes)
{
    uint32_t out[64] = {0};
    CUdeviceptr address = fixture_upload(out, sizeof out);
    uint32_t count = 64;
    CUresult result;

    fixture_launch(name, 1, threads, shared_bytes, (void *[]){&address, &count});
    result = fixture_wait();
    if (result != CUDA_SUCCESS)
        return noticed(result);
    fixture_download(out, address, sizeof out);
    for (uint32_t i = 0; i < threads; i++) {
        if (out[i] != threads - 1 - i) {
            printf("wrong numbers\n");
            return 3;
        }
    }
    return 0;
}

static int no_fence(void)
{
    const uint32_t zeros[64] = {0};
    CUdeviceptr partial = fixture_upload(zeros, sizeof zeros);
    CUdeviceptr ticket = fixture_upload(zeros, sizeof zeros);
    CUdeviceptr out = fixture_upload(zeros, sizeof zeros);

    fixture_launch("planted_no_fence", 2, 32, 0, (void *[]){&partial, &ticket, &out});
    return noticed(fixture_wait());
}

static int host_read(void)
{
    const uint32_t zeros[64] = {0};
    CUdeviceptr address = fixture_upload(zeros, sizeof zeros);

    printf("%u\n", ((const volatile uint32_t *)(uintptr_t)address)[3]);
    return 0;
}

/* A graph with one kernel; what it writes to is freed between capture and replay. */
static int replay_after_free(void)
{
    const uint32_t zeros[64] = {0};
    CUdeviceptr address = fixture_upload(zeros, sizeof zeros);
    CUstream stream;
    CUgraph graph;
    CUgraphExec exec;

    cu.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
    cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    cu.cuLaunchKernel(fixture_kernel("wrap_named_barrier"), 1, 1, 1, 96, 1, 1, 128, stream,
                      (void *[]){&address}, NULL);
    cu.cuStreamEndCapture(stream, &graph);
    cu.cuGraphInstantiate(&exec, graph, 0);
    cu.cuGraphLaunch(exec, stream);
    if (cu.cuStreamSynchronize(stream) != CUDA_SUCCESS)
        return 1;
    fixture_free(address);
    address = fixture_upload(zeros, sizeof zeros);
    cu.cuGraphLaunch(exec, stream);
    return noticed(cu.cuStreamSynchronize(stream));
}

static int illegal_in_capture(void)
{
    CUdeviceptr address;
    CUstream stream;
    CUresult result;

    cu.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
    cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    result = cu.cuMemAlloc(&address, 4096);
    if (result == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
        printf("illegal during capture\n");
    return noticed(result);
}

int main(int argc, char **argv)
{
    const char *bug = argc > 1 ? argv[1] : "";
    static const struct {
        const char *name;
        const char *kernel;
        uint32_t threads, shared_bytes;
    } kernels[] = {
        {"write-beyond", "planted_write_beyond", 64, 0},
        {"early-return", "planted_early_return", 64, 0},
        {"divergent-barrier", "planted_divergent_barrier", 64, 0},
        {"absent-lane", "planted_absent_lane", 64, 0},
        {"mixed-meeting", "planted_mixed_meeting", 64, 0},
        {"no-barrier", "planted_no_barrier", 64, 256},
        {"no-warp-barrier", "planted_no_warp_barrier", 32, 128},
        {"shared-overrun", "planted_shared_overrun", 32, 128},
    };
    static const char *const products[PRODUCT_BUGS] = {"none", "no-barrier-after-wait",
                                                       "no-barrier-at-end", "no-wait", "overrun"};

    if (strcmp(bug, "--sanitizer") == 0) {
        printf("%s\n", SANITIZER);
        return 0;
    }
    if (strncmp(bug, "sm90-", 5) == 0)
        setenv("FERRUM_TEST_CUDA_EMU_SM", "90", 1);
    if (!fixture_open())
        return 77;
    fixture_begin();
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++) {
        if (strcmp(bug, kernels[i].name) == 0)
            return run_kernel(kernels[i].kernel, kernels[i].threads, kernels[i].shared_bytes);
    }
    for (uint32_t i = 0; i < PRODUCT_BUGS; i++) {
        if (strcmp(bug, products[i]) == 0)
            return run_product(i);
    }
    for (uint32_t i = 0; i < PRODUCT_SM90_BUGS; i++) {
        if (strncmp(bug, "sm90-", 5) == 0 && strcmp(bug + 5, product_sm90_bugs[i]) == 0)
            return run_product_sm90(i);
    }
    if (strcmp(bug, "no-fence") == 0)
        return no_fence();
    if (strcmp(bug, "host-read") == 0)
        return host_read();
    if (strcmp(bug, "replay-after-free") == 0)
        return replay_after_free();
    if (strcmp(bug, "illegal-in-capture") == 0)
        return illegal_in_capture();
    fprintf(stderr, "no such bug: %s\n", bug);
    return 1;
}
