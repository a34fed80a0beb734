/* SPDX-License-Identifier: MIT */
/**
 * @file process.h
 * @brief What this process has open and mapped, and poison for addresses that must be dead.
 */
#ifndef FERRUM_TEST_SWAP_PROCESS_H
#define FERRUM_TEST_SWAP_PROCESS_H

#include <stddef.h>
#include <stdint.h>

/** Open descriptors, threads, mappings of plugins, and bytes taken from malloc. */
typedef struct process {
    long fds, threads, plugin_mappings;
    size_t heap_bytes; /**< 0 where the allocator does not tell, as under sanitizers */
} process_t;

process_t process_look(void);

/** Address ranges of all plugins that are mapped now, joined. */
typedef struct plugin_range {
    uintptr_t begin, end;
} plugin_range_t;
enum {
    PLUGIN_RANGES = 32
};
int process_plugin_ranges(plugin_range_t out[PLUGIN_RANGES]);
/** Map @p range without any access, so that whoever still goes there dies. 1 when that was
 * possible: the range was free. The oldest poison is lifted when there is much of it. */
int process_poison(const plugin_range_t *range);
/** Lift all poison. */
void process_lift_poison(void);

#endif /* FERRUM_TEST_SWAP_PROCESS_H */
