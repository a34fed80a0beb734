/* SPDX-License-Identifier: MIT */
/**
 * @file control.h
 * @brief What the emulated driver exports besides the driver API, for tests.
 */
#ifndef FERRUM_TESTS_CUDA_EMU_CONTROL_H
#define FERRUM_TESTS_CUDA_EMU_CONTROL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FERRUM_EMU_CONTROL __attribute__((visibility("default")))

/**
 * Start over: all contexts, streams, memory, counts and errors are gone, options are as in the
 * environment, and cuInit has to be called again. For between tests.
 */
FERRUM_EMU_CONTROL void ferrum_emu_reset(void);
/** Set an option by its variable's name without FERRUM_TEST_CUDA_EMU_; -1 if it is not understood.
 */
FERRUM_EMU_CONTROL int ferrum_emu_set(const char *name, const char *value);
/** What the emulator last complained about, or "". */
FERRUM_EMU_CONTROL const char *ferrum_emu_fault(void);
/**
 * Calls of a driver function so far (by exported name), runs of a kernel by its name, or one of
 * "kernels" (that ran, from graphs too), "memory" (bytes in use), "streams", "events", "graphs"
 * (live, with executable ones).
 */
FERRUM_EMU_CONTROL uint64_t ferrum_emu_count(const char *what);

#ifdef __cplusplus
}
#endif
#endif
