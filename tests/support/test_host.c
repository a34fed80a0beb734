/* SPDX-License-Identifier: MIT */
#include "test_host.h"

#include <stdlib.h>
#include <string.h>

enum {
    DIRT = 0xc3
};

static void *host_alloc(void *self, size_t bytes, size_t align)
{
    test_host_t *host = self;
    if (atomic_fetch_add(&host->allocations, 1) + 1 == host->fail_at)
        return NULL;
    void *ptr = aligned_alloc(align, (bytes + align - 1) / align * align);
    if (ptr) {
        memset(ptr, DIRT, bytes);
        atomic_fetch_add(&host->live_blocks, 1);
        atomic_fetch_add(&host->live_bytes, bytes);
    }
    return ptr;
}

static void host_free(void *self, void *ptr, size_t bytes)
{
    test_host_t *host = self;
    if (!ptr)
        return;
    memset(ptr, DIRT, bytes);
    atomic_fetch_sub(&host->live_blocks, 1);
    atomic_fetch_sub(&host->live_bytes, bytes);
    free(ptr);
}

static void host_log(void *self, ferrum_log_level_t level, const char *message)
{
    (void)self;
    (void)level;
    (void)message;
}

static const char *host_option(void *self, const char *name)
{
    test_host_t *host = self;
    return strcmp(name, "FERRUM_CPU_MASK") == 0 ? host->cpu_mask : NULL;
}

void test_host_init(test_host_t *host)
{
    memset(host, 0, sizeof *host);
    host->allocator = (ferrum_allocator_t){.head = FERRUM_HEAD(ferrum_allocator_t),
                                           .self = host,
                                           .alloc = host_alloc,
                                           .free = host_free};
    host->logger =
        (ferrum_logger_t){.head = FERRUM_HEAD(ferrum_logger_t), .self = host, .log = host_log};
    host->host = (ferrum_host_t){.head = FERRUM_HEAD(ferrum_host_t),
                                 .abi_minor = FERRUM_ABI_MINOR,
                                 .allocator = &host->allocator,
                                 .logger = &host->logger,
                                 .self = host,
                                 .option = host_option};
}
