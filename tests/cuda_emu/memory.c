/* SPDX-License-Identifier: MIT */
/*
 * Device memory: one reserved range of addresses that is closed (PROT_NONE) except while a kernel
 * or a copy of the driver runs. Allocations lie apart, with NaNs between them; addresses are reused
 * late.
 */
#include "tests/cuda_emu/emulator.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ARENA_BYTES ((size_t)8 << 30)
#define ALIGNMENT ((size_t)256)
#define REDZONE ((size_t)256)
#define POISON 0xff

static char *arena;
static size_t arena_top; /* bytes ever used */
static uint32_t open_count;
static emu_allocation_t *table; /* by address */
static size_t table_count, table_capacity, cursor;
static uint64_t next_serial = 1;
static struct sigaction before;

static struct pinned {
    void *pointer;
    size_t bytes;
    struct pinned *next;
} * pinned_list;

static size_t padded(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT + REDZONE;
}

/* Say what the access was, then let whoever was there before deal with it. */
static void on_segv(int signal_number, siginfo_t *info, void *context)
{
    const uintptr_t address = (uintptr_t)info->si_addr;
    char who[256], text[512];
    int length = 0;

    (void)signal_number;
    (void)context;
    if (emu_describe(who, sizeof who)) {
        length =
            snprintf(text, sizeof text, "cuda-emu: %s: bad access, at %p\n", who, info->si_addr);
    } else if (open_count == 0 && emu_memory_owns(address)) {
        const emu_allocation_t *a = emu_memory_find(address, 1);

        length = snprintf(text, sizeof text,
                          "cuda-emu: the host accesses device memory: byte %zu of allocation %llu "
                          "(%zu bytes)\n",
                          a == NULL ? 0 : (size_t)(address - a->address),
                          a == NULL ? 0 : (unsigned long long)a->serial, a == NULL ? 0 : a->bytes);
    }
    if (length > 0 && write(STDERR_FILENO, text, (size_t)length) < 0)
        _exit(1);
    sigaction(SIGSEGV, &before, NULL);
}

static bool arena_ready(void)
{
    struct sigaction action = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO | SA_NODEFER};
    void *map;

    if (arena != NULL)
        return true;
    map = mmap(NULL, ARENA_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return false;
    arena = map;
    sigaction(SIGSEGV, &action, &before);
    return true;
}

void emu_memory_open(void)
{
    if (open_count++ == 0 && arena_top > 0)
        mprotect(arena, arena_top, PROT_READ | PROT_WRITE);
}

void emu_memory_close(void)
{
    if (--open_count == 0 && arena_top > 0)
        mprotect(arena, arena_top, PROT_NONE);
}

bool emu_memory_owns(uintptr_t address)
{
    return arena != NULL && address >= (uintptr_t)arena && address - (uintptr_t)arena < ARENA_BYTES;
}

/* Index of the first allocation above @p address. */
EMU_HIDDEN static size_t upper_bound(uintptr_t address)
{
    size_t low = 0, high = table_count;

    while (low < high) {
        const size_t middle = (low + high) / 2;

        if (table[middle].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

EMU_HIDDEN const emu_allocation_t *emu_memory_find(uintptr_t address, size_t bytes)
{
    const size_t above = upper_bound(address);
    const emu_allocation_t *a;

    if (above == 0)
        return NULL;
    a = &table[above - 1];
    return address - a->address <= a->bytes && bytes <= a->bytes - (address - a->address) ? a
                                                                                          : NULL;
}

uint64_t emu_memory_used(CUdevice device)
{
    uint64_t used = 0;

    for (size_t i = 0; i < table_count; i++) {
        if (table[i].device == device)
            used += padded(table[i].bytes) - REDZONE;
    }
    return used;
}

/* End of allocation i - 1 with its redzone: where a gap before allocation i begins. */
static uintptr_t gap_begin(size_t i)
{
    return i == 0 ? (uintptr_t)arena + REDZONE : table[i - 1].address + padded(table[i - 1].bytes);
}

/* The first gap of @p need bytes at or after the last one that was taken, going round once. */
static bool find_gap(size_t need, size_t *out_index)
{
    for (size_t n = 0; n <= table_count; n++) {
        const size_t i = (cursor + n) % (table_count + 1);
        const uintptr_t end = i == table_count ? (uintptr_t)arena + ARENA_BYTES : table[i].address;

        if (end > gap_begin(i) && end - gap_begin(i) >= need) {
            *out_index = i;
            return true;
        }
    }
    return false;
}

CUresult emu_memory_alloc(CUdevice device, size_t bytes, CUdeviceptr *out_address)
{
    size_t at;
    uintptr_t address;

    if (bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (bytes > emu_options.memory ||
        emu_memory_used(device) + padded(bytes) - REDZONE > emu_options.memory)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (!arena_ready() || !find_gap(padded(bytes), &at))
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (table_count == table_capacity) {
        const size_t capacity = table_capacity * 2 + 64;
        emu_allocation_t *grown = realloc(table, capacity * sizeof *table);

        if (grown == NULL)
            return CUDA_ERROR_OUT_OF_MEMORY;
        table = grown;
        table_capacity = capacity;
    }
    address = gap_begin(at);
    memmove(&table[at + 1], &table[at], (table_count - at) * sizeof *table);
    table[at] = (emu_allocation_t){address, bytes, next_serial++, device};
    table_count++;
    cursor = at + 1;
    if (address - (uintptr_t)arena + padded(bytes) > arena_top) {
        const size_t page = (size_t)sysconf(_SC_PAGESIZE);

        arena_top = (address - (uintptr_t)arena + padded(bytes) + page - 1) / page * page;
    }
    emu_memory_open();
    emu_unpoison((char *)address - REDZONE, padded(bytes) + REDZONE);
    memset((char *)address - REDZONE, POISON, padded(bytes) + REDZONE);
    emu_poison((char *)address - REDZONE, REDZONE);
    emu_poison((char *)address + bytes, padded(bytes) - bytes);
    emu_memory_close();
    *out_address = address;
    return CUDA_SUCCESS;
}

static void release_at(size_t i)
{
    emu_memory_open();
    memset((void *)table[i].address, POISON, table[i].bytes);
    emu_poison((void *)table[i].address, table[i].bytes);
    emu_memory_close();
    memmove(&table[i], &table[i + 1], (table_count - i - 1) * sizeof *table);
    table_count--;
}

CUresult emu_memory_free(CUdeviceptr address)
{
    const size_t above = upper_bound((uintptr_t)address);

    if (address == 0)
        return CUDA_SUCCESS;
    if (above == 0 || table[above - 1].address != (uintptr_t)address)
        return CUDA_ERROR_INVALID_VALUE;
    release_at(above - 1);
    return CUDA_SUCCESS;
}

void emu_memory_free_device(CUdevice device)
{
    for (size_t i = table_count; i > 0; i--) {
        if (table[i - 1].device == device)
            release_at(i - 1);
    }
}

bool emu_memory_intact(const char *who)
{
    bool intact = true;
#ifndef EMU_ASAN
    for (size_t i = 0; i < table_count && intact; i++) {
        const unsigned char *from = (const unsigned char *)table[i].address;
        const unsigned char *past = from + table[i].bytes;

        for (size_t k = 0; k < REDZONE && intact; k++)
            intact = from[-1 - (ptrdiff_t)k] == POISON && past[k] == POISON;
        if (!intact)
            emu_report("%s writes beside allocation %llu (%zu bytes)", who,
                       (unsigned long long)table[i].serial, table[i].bytes);
    }
#else
    (void)who;
#endif
    return intact;
}

CUresult emu_host_alloc(size_t bytes, void **out_pointer)
{
    struct pinned *p = malloc(sizeof *p);
    void *pointer = bytes == 0 ? NULL : aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);

    if (p == NULL || pointer == NULL) {
        free(p);
        free(pointer);
        return bytes == 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_OUT_OF_MEMORY;
    }
    *p = (struct pinned){pointer, bytes, pinned_list};
    pinned_list = p;
    *out_pointer = pointer;
    return CUDA_SUCCESS;
}

CUresult emu_host_free(void *pointer)
{
    for (struct pinned **p = &pinned_list; *p != NULL; p = &(*p)->next) {
        if ((*p)->pointer == pointer) {
            struct pinned *found = *p;

            *p = found->next;
            free(found->pointer);
            free(found);
            return CUDA_SUCCESS;
        }
    }
    return CUDA_ERROR_INVALID_VALUE;
}

bool emu_host_pinned(const void *pointer, size_t bytes)
{
    for (const struct pinned *p = pinned_list; p != NULL; p = p->next) {
        const uintptr_t offset = (uintptr_t)pointer - (uintptr_t)p->pointer;

        if ((uintptr_t)pointer >= (uintptr_t)p->pointer && offset + bytes <= p->bytes)
            return true;
    }
    return false;
}
