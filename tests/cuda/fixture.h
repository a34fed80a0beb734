/* SPDX-License-Identifier: MIT */
/**
 * @file fixture.h
 * @brief cuda.so as it was built, on the emulated driver, without a loader between: a device, a
 * context and the emulator's controls.
 */
#ifndef FERRUM_TEST_CUDA_FIXTURE_H
#define FERRUM_TEST_CUDA_FIXTURE_H

#include "tests/support/expect.h"
#include "tests/support/test_host.h"

#include <ferrum/moe_fused.h>
#include <ferrum/plugin.h>
#include <ferrum/quant_llm.h>

#include <stdbool.h>

typedef struct cuda_fixture {
    test_host_t host;
    const char *driver; /**< value of FERRUM_CUDA_DRIVER */
    ferrum_plugin_t plugin;
    const ferrum_backend_ops_t *be;
    const ferrum_quant_llm_ops_t *ql;
    const ferrum_moe_fused_ops_t *mf;
    ferrum_device_t *device;
    ferrum_dtype_t act; /**< of the device */
    ferrum_context_t *ctx;
    /* The emulator: see tests/cuda_emu/control.h. */
    void (*reset)(void);
    int (*set)(const char *name, const char *value);
    uint64_t (*count)(const char *what);
    const char *(*fault)(void);
} cuda_fixture_t;

/** The one fixture; every test runs in a process of its own. */
extern cuda_fixture_t cuda;

/** Whether plugin and emulated driver were built; says so if not. */
bool cuda_built(void);
/** Where they are; valid once cuda_built has been called. */
const char *cuda_plugin_path(void);
const char *cuda_driver_path(void);
/** Load plugin and emulator. */
void cuda_load(void);
/** Load, and open a device and a context. */
void cuda_open(void);
/** The same with activations of @p act. */
void cuda_open_as(ferrum_dtype_t act);
/** Close what is open; fails when something is left on the host or the device. */
void cuda_close(void);

/** One step of work on the context, again and again the same. */
typedef void cuda_step_fn(void *arg);
/**
 * Run @p step once to warm up and once more: that one launches at most @p most_launches kernels and
 * calls nothing else of the driver. Returns the launches.
 */
uint64_t cuda_steady(cuda_step_fn *step, void *arg, uint64_t most_launches);
/** Record @p step as a graph under @p shape. */
void cuda_capture(cuda_step_fn *step, void *arg, uint64_t shape);
/** Replay it: one call of the driver, and no launch besides. */
void cuda_replay(uint64_t shape);

/** A buffer of the activation dtype with @p n values, value i being base + i*step. */
ferrum_buffer_t *cuda_ramp(uint64_t n, float base, float step);
ferrum_buffer_t *cuda_f32(uint64_t n, float base, float step);
ferrum_buffer_t *cuda_i32(const int32_t *values, uint64_t n);
/** Element @p index of a float buffer. */
float cuda_at(ferrum_buffer_t *buffer, uint64_t index);

#endif /* FERRUM_TEST_CUDA_FIXTURE_H */
