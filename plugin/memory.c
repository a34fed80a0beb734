/* SPDX-License-Identifier: MIT */
#include "memory.h"
#include "sys.h"

#include <stdlib.h>

static void *default_alloc(void *self, size_t bytes, size_t align)
{
    return ferrum_sys->host_alloc(bytes, align);
}

static void default_free(void *self, void *block, size_t bytes)
{
    free(block);
}

const ferrum_allocator_t ferrum_default_allocator = {
    .head = FERRUM_HEAD(ferrum_allocator_t),
    .alloc = default_alloc,
    .free = default_free,
};

static void drop_message(void *self, ferrum_log_level_t level, const char *message)
{
}

const ferrum_logger_t ferrum_silent_logger = {
    .head = FERRUM_HEAD(ferrum_logger_t),
    .level = FERRUM_LOG_ERROR,
    .log = drop_message,
};

static void *counted_alloc(void *self, size_t bytes, size_t align)
{
    ferrum_counted_memory_t *memory = self;
    void *block = memory->source->alloc(memory->source->self, bytes, align);
    if (block) {
        atomic_fetch_add_explicit(&memory->blocks, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&memory->bytes, bytes, memory_order_relaxed);
    }
    return block;
}

static void counted_free(void *self, void *block, size_t bytes)
{
    ferrum_counted_memory_t *memory = self;
    if (!block)
        return;
    atomic_fetch_sub_explicit(&memory->blocks, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&memory->bytes, bytes, memory_order_relaxed);
    memory->source->free(memory->source->self, block, bytes);
}

void ferrum_counted_memory_init(ferrum_counted_memory_t *out_memory,
                                const ferrum_allocator_t *source)
{
    out_memory->allocator = (ferrum_allocator_t){
        .head = FERRUM_HEAD(ferrum_allocator_t),
        .self = out_memory,
        .alloc = counted_alloc,
        .free = counted_free,
    };
    out_memory->source = source;
    atomic_init(&out_memory->blocks, 0);
    atomic_init(&out_memory->bytes, 0);
}
