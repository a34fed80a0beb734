/* SPDX-License-Identifier: MIT */
/**
 * @file memory.h
 * @brief The allocator that a runtime gives its plugin when the caller brings none.
 *
 * Large blocks, which hold weights, are mappings of their own: aligned to 2 MiB and offered to the
 * system as huge pages, so that reading them misses the TLB rarely; and spread over the memory
 * nodes when asked. The rest is malloc's.
 */
#ifndef FERRUM_HOST_MEMORY_H
#define FERRUM_HOST_MEMORY_H

#include <ferrum/loader.h>

/** Least size of a block that is mapped. */
#define FERRUM_MEMORY_LARGE_BYTES ((size_t)4 << 20)

typedef struct ferrum_memory ferrum_memory_t;

/** An allocator whose pages lie where they are first touched. Errors: OUT_OF_MEMORY. */
ferrum_status_t ferrum_memory_new(ferrum_memory_t **out_memory, ferrum_error_t *err);
/**
 * Follow FERRUM_NUMA of @p options, none or interleave; before the first block is taken. With
 * interleave, a large block whose pages cannot be spread over the nodes is not given at all.
 * @p out_nodes: over how many nodes blocks are spread, 1 when there is nothing to spread them over;
 * 0 when that was not asked for.
 * Errors: INVALID_ARGUMENT (the value), UNSUPPORTED (no topology), OUT_OF_MEMORY. [init]
 */
ferrum_status_t ferrum_memory_place(ferrum_memory_t *memory, const ferrum_options_t *options,
                                    uint32_t *out_nodes, ferrum_error_t *err);
/** All blocks must have been freed. NULL is ignored. */
void ferrum_memory_free(ferrum_memory_t *memory);
/** Lives as long as @p memory. [any-thread] */
const ferrum_allocator_t *ferrum_memory_allocator(const ferrum_memory_t *memory);

#endif /* FERRUM_HOST_MEMORY_H */
