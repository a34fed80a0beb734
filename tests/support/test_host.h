/* SPDX-License-Identifier: MIT */
/**
 * @file test_host.h
 * @brief A host for tests of plugins: an allocator that counts and can fail, one option.
 */
#ifndef FERRUM_TEST_HOST_H
#define FERRUM_TEST_HOST_H

#include <ferrum/host.h>

#include <stdatomic.h>

/** Initialise with test_host_init; give &host to the plugin. */
typedef struct test_host {
    ferrum_host_t host;
    ferrum_allocator_t allocator;
    ferrum_logger_t logger;
    atomic_ullong allocations; /**< calls of alloc so far */
    atomic_ullong live_blocks; /**< not freed yet */
    atomic_ullong live_bytes;
    uint64_t fail_at;     /**< the call of alloc that returns NULL, counted from 1; 0: none */
    const char *cpu_mask; /**< value of FERRUM_CPU_MASK, or NULL */
} test_host_t;

void test_host_init(test_host_t *host);

#endif /* FERRUM_TEST_HOST_H */
