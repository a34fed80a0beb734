/* SPDX-License-Identifier: MIT */
#include <config.h>

#include "host/runtime/memory.h"

#include <ferrum/util.h>

#include <hwloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    HUGE_PAGE = 2 << 20,
    PAGE = 4096
};

struct ferrum_memory {
    ferrum_allocator_t allocator;
    hwloc_topology_t topology; /* NULL: pages lie where they are first touched */
};

/* Mapped bytes of a block. The last huge page is not filled up: that memory would be lost. */
static size_t mapped_bytes(size_t bytes)
{
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

/* A mapping that begins on a huge page: mapped too long, then trimmed at both ends. */
static void *map_aligned(size_t bytes)
{
    if (bytes > SIZE_MAX - HUGE_PAGE)
        return NULL;
    char *start =
        mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED)
        return NULL;
    const size_t before = (HUGE_PAGE - (uintptr_t)start % HUGE_PAGE) % HUGE_PAGE;
    if (before > 0)
        (void)munmap(start, before);
    (void)munmap(start + before + bytes, HUGE_PAGE - before);
    return start + before;
}

static void *large_alloc(const ferrum_memory_t *memory, size_t bytes)
{
    void *block = map_aligned(bytes);
    if (!block)
        return NULL;
    /* Refused where the kernel has no huge pages; small ones serve as well, only slower. */
    (void)madvise(block, bytes, MADV_HUGEPAGE);
    if (memory->topology &&
        hwloc_set_area_membind(memory->topology, block, bytes,
                               hwloc_topology_get_topology_nodeset(memory->topology),
                               HWLOC_MEMBIND_INTERLEAVE, HWLOC_MEMBIND_BYNODESET) != 0) {
        (void)munmap(block, bytes);
        return NULL;
    }
    return block;
}

static void *memory_alloc(void *self, size_t bytes, size_t align)
{
    void *block = NULL;
    if (bytes >= FERRUM_MEMORY_LARGE_BYTES)
        return large_alloc(self, mapped_bytes(bytes));
    if (align < sizeof(void *))
        align = sizeof(void *);
    return posix_memalign(&block, align, bytes) == 0 ? block : NULL;
}

static void memory_free(void *self, void *block, size_t bytes)
{
    (void)self;
    if (block && bytes >= FERRUM_MEMORY_LARGE_BYTES)
        (void)munmap(block, mapped_bytes(bytes));
    else
        free(block);
}

/* Only nodes are looked at. Leaves NULL on a machine of one node, where there is nothing to do. */
static ferrum_status_t load_nodes(hwloc_topology_t *out_topology, uint32_t *out_nodes,
                                  ferrum_error_t *err)
{
    hwloc_topology_t topology;
    if (hwloc_topology_init(&topology) != 0)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory for the machine's topology");
    if (hwloc_topology_set_all_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_NONE) != 0 ||
        hwloc_topology_load(topology) != 0) {
        hwloc_topology_destroy(topology);
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_OTHER,
                           "FERRUM_NUMA=interleave: the memory nodes cannot be listed");
    }
    const int nodes = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE);
    *out_nodes = nodes > 1 ? (uint32_t)nodes : 1;
    if (nodes > 1)
        *out_topology = topology;
    else
        hwloc_topology_destroy(topology);
    return FERRUM_OK;
}

ferrum_status_t ferrum_memory_new(ferrum_memory_t **out_memory, ferrum_error_t *err)
{
    ferrum_memory_t *memory = calloc(1, sizeof *memory);
    if (!memory)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory for an allocator");
    memory->allocator = (ferrum_allocator_t){.head = FERRUM_HEAD(ferrum_allocator_t),
                                             .self = memory,
                                             .alloc = memory_alloc,
                                             .free = memory_free};
    *out_memory = memory;
    return FERRUM_OK;
}

ferrum_status_t ferrum_memory_place(ferrum_memory_t *memory, const ferrum_options_t *options,
                                    uint32_t *out_nodes, ferrum_error_t *err)
{
    const char *numa = ferrum_options_get(options, "FERRUM_NUMA");
    *out_nodes = 0;
    if (!numa || strcmp(numa, "none") == 0)
        return FERRUM_OK;
    if (strcmp(numa, "interleave") == 0)
        return load_nodes(&memory->topology, out_nodes, err);
    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OTHER,
                       "FERRUM_NUMA=%.40s: choose none or interleave", numa);
}

void ferrum_memory_free(ferrum_memory_t *memory)
{
    if (memory && memory->topology)
        hwloc_topology_destroy(memory->topology);
    free(memory);
}

const ferrum_allocator_t *ferrum_memory_allocator(const ferrum_memory_t *memory)
{
    return &memory->allocator;
}
