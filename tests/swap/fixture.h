/* SPDX-License-Identifier: MIT */
/**
 * @file fixture.h
 * @brief What the swap tests share: a runtime on a plugin file, whose memory is counted, and copies
 *        of built plugins. Failures end the test.
 */
#ifndef FERRUM_TEST_SWAP_FIXTURE_H
#define FERRUM_TEST_SWAP_FIXTURE_H

#include <ferrum/swap.h>

#include <stdatomic.h>

/** A runtime with one thread per session. */
typedef struct swap_fixture {
    ferrum_runtime_t *runtime;
    ferrum_allocator_t allocator;
    _Atomic int64_t live_blocks; /**< of all plugins */
    _Atomic int64_t
        allowed_more; /**< allocations until the allocator says no; negative: no limit */
} swap_fixture_t;

/** Path of the built plugin @p name. */
const char *fixture_plugin_path(const char *name);
/** Exit with 77, saying why, when @p name was not built. */
void fixture_need_plugin(const char *name);
/** Copy the built plugin @p name to @p path. */
void fixture_copy_plugin(const char *name, const char *path);

/** Open @p backend with @p options, pairs of names and values ending with NULL, or NULL. */
void fixture_open(swap_fixture_t *fixture, const char *backend, const char *const *options);
/** Close; every block of every plugin must have been freed. */
void fixture_close(swap_fixture_t *fixture);
/** Swap; @p out_report may be NULL. */
ferrum_status_t fixture_swap(swap_fixture_t *fixture, const char *backend,
                             ferrum_swap_report_t *out_report, ferrum_error_t *err);

/** Swap; it succeeds. */
void fixture_swap_well(swap_fixture_t *fixture, const char *to, ferrum_swap_report_t *out_report);
/** Swap; it fails at @p step with @p status, says so, and leaves the old generation serving. */
void fixture_swap_badly(swap_fixture_t *fixture, const char *to, ferrum_swap_step_t step,
                        ferrum_status_t status, ferrum_swap_report_t *out_report);
/** What the shim is to do wrong when it is opened next; NULL: nothing. */
void fixture_set_fault(const char *fault);

void fixture_sleep_ms(long ms);

#endif /* FERRUM_TEST_SWAP_FIXTURE_H */
