/* SPDX-License-Identifier: MIT */
/* The allocator that a plugin gets: the caller's, with what is outstanding counted per plugin. */
#ifndef FERRUM_PLUGIN_MEMORY_H
#define FERRUM_PLUGIN_MEMORY_H

#include <ferrum/host.h>

#include <stdatomic.h>

typedef struct ferrum_counted_memory {
    ferrum_allocator_t allocator; /**< what the plugin sees; its self is this struct */
    const ferrum_allocator_t *source;
    atomic_uint_least64_t blocks; /**< outstanding */
    atomic_uint_least64_t bytes;
} ferrum_counted_memory_t;

/** malloc and free as an allocator. */
extern const ferrum_allocator_t ferrum_default_allocator;
/** A logger that wants errors only and drops them. */
extern const ferrum_logger_t ferrum_silent_logger;

/** Start counting over @p source, which must outlive @p out_memory. */
void ferrum_counted_memory_init(ferrum_counted_memory_t *out_memory,
                                const ferrum_allocator_t *source);

#endif /* FERRUM_PLUGIN_MEMORY_H */
