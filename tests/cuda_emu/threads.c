/* SPDX-License-Identifier: MIT */
/*
 * One launch. Blocks occupy slots; each thread of a slot is a fiber that lives on from block to
 * block and launch to launch. A fiber that waits switches to the next one in the queue of those
 * that are ready: the oldest or, with a seed, any. When the queue is empty but not everybody has
 * returned, those who wait will wait for ever, and that is reported.
 */
#include "tests/cuda_emu/emulator.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MAX_SLOTS 8u
#define MAX_THREADS (MAX_SLOTS * EMU_MAX_THREADS)

static emu_block_t *slots[MAX_SLOTS];
static emu_fiber_t launcher;
static emu_thread_t *current;
static emu_thread_t *ready[MAX_THREADS];
static uint32_t ready_first, ready_count;
static const emu_launch_t *launch;
static bool faulted;
static char launch_tag, end_tag, abandon_tag;
static char fault_text[1024];

EMU_HIDDEN emu_thread_t *emu_current(void)
{
    return current;
}

EMU_HIDDEN const ferrum_emu_thread_t *ferrum_emu_self(void)
{
    return &current->view;
}

EMU_HIDDEN void emu_wake(emu_thread_t *thread)
{
    thread->state = EMU_READY;
    thread->waits_for = NULL;
    ready[(ready_first + ready_count) % MAX_THREADS] = thread;
    ready_count++;
}

/* Leave the running fiber for the next thread that is ready, or for the launcher. */
EMU_HIDDEN static void run_next(bool to_launcher)
{
    emu_fiber_t *from = current == NULL ? &launcher : &current->fiber;
    emu_thread_t *next = NULL;

    if (!to_launcher && ready_count > 0) {
        if (emu_options.seed != 0) {
            emu_thread_t **pick = &ready[(ready_first + emu_random(ready_count)) % MAX_THREADS];

            next = *pick;
            *pick = ready[ready_first];
        } else {
            next = ready[ready_first];
        }
        ready_first = (ready_first + 1) % MAX_THREADS;
        ready_count--;
    }
    if (next == current) /* woken by itself: goes on */
        return;
    current = next;
    emu_fiber_switch(from, next == NULL ? &launcher : &next->fiber);
}

EMU_HIDDEN void emu_wait(const void *what, const char *file, int line)
{
    emu_thread_t *self = current;

    self->state = EMU_WAITING;
    self->waits_for = what;
    self->file = file;
    self->line = line;
    emu_release(&abandon_tag);
    run_next(false);
}

/* For the handler of bad accesses: who is running. */
bool emu_describe(char *text, size_t bytes)
{
    const emu_thread_t *self = current;

    if (self == NULL)
        return false;
    snprintf(text, bytes, "kernel %s, block (%u,%u,%u), thread %u", launch->kernel->name,
             self->view.block[0], self->view.block[1], self->view.block[2], self->index);
    return true;
}

EMU_HIDDEN void emu_fault(const char *format, ...)
{
    va_list arguments;
    char who[256], text[512];

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    emu_describe(who, sizeof who);
    snprintf(fault_text, sizeof fault_text, "%.200s: %.300s", who, text);
    faulted = true;
    emu_release(&abandon_tag);
    run_next(true);
    abort(); /* the launcher does not come back */
}

/* What every fiber runs: the kernel once for each block that its slot is given. */
EMU_HIDDEN static void thread_main(void)
{
    emu_fiber_entered();
    for (;;) {
        emu_thread_t *self = current;

        emu_acquire(&launch_tag);
        emu_acquire(&self->block->tag[~self->block->runs & 1u]); /* only of the block before */
        launch->kernel->invoke(launch->kernel->function, launch->params);
        emu_release(&self->block->tag[self->block->runs & 1u]);
        emu_release(&end_tag);
        self = current;
        emu_copies_drop(self);
        emu_sm90_leave(self);
        self->state = EMU_RETURNED;
        self->block->alive--;
        run_next(self->block->alive == 0);
    }
}

static emu_block_t *slot_create(void)
{
    emu_block_t *block = calloc(1, sizeof *block);

    if (block == NULL)
        return NULL;
    block->threads = calloc(EMU_MAX_THREADS, sizeof *block->threads);
    block->in_flight = calloc(EMU_MAX_SHARED_BYTES / 4, 1);
    block->unfenced = calloc(EMU_MAX_SHARED_BYTES / 4, sizeof *block->unfenced);
    block->shared_map = mmap(NULL, EMU_MAX_SHARED_BYTES + 8192, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block->threads == NULL || block->in_flight == NULL || block->unfenced == NULL ||
        block->shared_map == MAP_FAILED)
        abort();
    /* A closed page on either side. */
    if (mprotect(block->shared_map + 4096, EMU_MAX_SHARED_BYTES, PROT_READ | PROT_WRITE) != 0)
        abort();
    return block;
}

/* NaNs, byte by byte: the race detector would see a memset, and it is not the kernel's. */
EMU_HIDDEN static void fill_shared(emu_block_t *block)
{
    volatile unsigned char *p = block->shared;

    for (size_t i = 0; i < block->shared_bytes; i++)
        p[i] = 0xff;
}

/* Shared memory ends at the closed page, as far as its alignment to 128 bytes allows. */
static void place_shared(emu_block_t *block, uint32_t bytes)
{
    unsigned char *begin = block->shared_map + 4096, *end = begin + EMU_MAX_SHARED_BYTES;

    emu_unpoison(begin, EMU_MAX_SHARED_BYTES);
    block->shared = end - (bytes + 127) / 128 * 128;
    block->shared_bytes = bytes;
    emu_poison(begin, (size_t)(block->shared - begin));
    emu_poison(block->shared + bytes, (size_t)(end - (block->shared + bytes)));
}

EMU_HIDDEN static void start_block(emu_block_t *block, uint64_t number)
{
    block->coordinates[0] = (uint32_t)(number % launch->grid[0]);
    block->coordinates[1] = (uint32_t)(number / launch->grid[0] % launch->grid[1]);
    block->coordinates[2] = (uint32_t)(number / launch->grid[0] / launch->grid[1]);
    block->alive = block->thread_count;
    block->runs++;
    fill_shared(block);
    emu_sm90_begin(block);
    for (uint32_t i = 0; i < block->thread_count; i++) {
        emu_thread_t *t = &block->threads[i];

        t->index = i;
        t->view.thread[0] = i % launch->block[0];
        t->view.thread[1] = i / launch->block[0] % launch->block[1];
        t->view.thread[2] = i / launch->block[0] / launch->block[1];
        for (int d = 0; d < 3; d++) {
            t->view.block[d] = block->coordinates[d];
            t->view.block_dim[d] = launch->block[d];
            t->view.grid_dim[d] = launch->grid[d];
        }
        t->view.lane = i % 32;
        t->view.shared = block->shared;
        t->copy_groups = 0;
        emu_wake(t);
    }
}

static void prepare_slot(uint32_t slot)
{
    const uint32_t threads = launch->block[0] * launch->block[1] * launch->block[2];
    emu_block_t *block;

    if (slots[slot] == NULL)
        slots[slot] = slot_create();
    block = slots[slot];
    if (block == NULL)
        abort();
    for (uint32_t i = 0; i < threads; i++) {
        if (block->threads[i].fiber.map == NULL)
            emu_fiber_create(&block->threads[i].fiber, thread_main);
        block->threads[i].block = block;
    }
    block->thread_count = threads;
    memset(block->barriers, 0, sizeof block->barriers);
    memset(block->meetings, 0, sizeof block->meetings);
    memset(block->warpgroups, 0, sizeof block->warpgroups);
    memset(block->in_flight, 0, EMU_MAX_SHARED_BYTES / 4);
    place_shared(block, launch->shared_bytes);
}

/* After a fault the fibers are in the middle of things. */
static void abandon_slots(void)
{
    emu_acquire(&abandon_tag);
    for (uint32_t s = 0; s < MAX_SLOTS; s++) {
        for (uint32_t i = 0; slots[s] != NULL && i < EMU_MAX_THREADS; i++) {
            emu_thread_t *t = &slots[s]->threads[i];

            free(t->copies);
            if (t->fiber.map != NULL)
                emu_fiber_destroy(&t->fiber);
            memset(t, 0, sizeof *t);
        }
    }
    ready_count = 0;
    emu_report("%s", fault_text);
}

/* Whether a thread takes part in what another one waits for. */
static bool invited(const emu_block_t *block, const emu_thread_t *waiting, const emu_thread_t *t)
{
    const emu_meeting_t *m = waiting->waits_for;

    if (m >= &block->meetings[0][0] && m <= &block->meetings[EMU_MAX_WARPS - 1][31])
        return t->index / 32 == waiting->index / 32 && (m->mask >> (t->index % 32) & 1u) != 0;
    if (m >= &block->warpgroups[0] && m <= &block->warpgroups[EMU_MAX_THREADS / 128 - 1])
        return t->index / 128 == waiting->index / 128;
    return true;
}

/* What an mbarrier lacks; nothing if @p waiting does not wait for one. */
static bool describe_mbarrier(const emu_block_t *block, const emu_thread_t *waiting, char *text,
                              size_t bytes)
{
    const emu_mbarrier_t *b = waiting->waits_for;

    if (b < &block->mbarriers[0] || b >= &block->mbarriers[EMU_MBARRIERS])
        return false;
    snprintf(
        text, bytes,
        " for the mbarrier at byte %u of shared memory, which lacks %u arrivals and %lld bytes "
        "in phase %u",
        b->offset, b->missing, (long long)b->bytes, b->phase);
    return true;
}

/* How much the place where a thread waits tells: bytes that nobody sends, then a meeting with
 * threads, then a barrier at which others will arrive once they go on. */
static int clue(const emu_block_t *block, const emu_thread_t *t)
{
    const emu_mbarrier_t *b = t->waits_for;

    if (t->state != EMU_WAITING)
        return 0;
    if (b < &block->mbarriers[0] || b >= &block->mbarriers[EMU_MBARRIERS])
        return 2;
    return b->bytes != 0 && b->missing == 0 ? 3 : 1;
}

/* Everybody waits: tell for whom, by the first that waits where it tells most. */
static void diagnose_deadlock(const emu_block_t *block)
{
    const emu_thread_t *waiting = NULL;
    const emu_thread_t *absent = NULL;

    for (uint32_t i = 0; i < block->thread_count; i++) {
        const emu_thread_t *t = &block->threads[i];

        if (clue(block, t) > (waiting == NULL ? 0 : clue(block, waiting)))
            waiting = t;
    }
    if (waiting == NULL)
        return;
    for (uint32_t i = 0; i < block->thread_count && absent == NULL; i++) {
        const emu_thread_t *t = &block->threads[i];

        if (invited(block, waiting, t) && t->waits_for != waiting->waits_for)
            absent = t;
    }
    snprintf(fault_text, sizeof fault_text,
             "kernel %s, block (%u,%u,%u): deadlock: thread %u waits at %s:%d",
             launch->kernel->name, block->coordinates[0], block->coordinates[1],
             block->coordinates[2], waiting->index, waiting->file, waiting->line);
    const size_t used = strlen(fault_text);
    if (describe_mbarrier(block, waiting, fault_text + used, sizeof fault_text - used))
        return;
    if (absent != NULL) {
        const size_t length = strlen(fault_text);

        if (absent->state == EMU_RETURNED)
            snprintf(fault_text + length, sizeof fault_text - length,
                     " for thread %u, which has returned", absent->index);
        else
            snprintf(fault_text + length, sizeof fault_text - length,
                     " for thread %u, which waits at %s:%d", absent->index, absent->file,
                     absent->line);
    }
}

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b)
{
    while (b != 0) {
        const uint64_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

/* Blocks go to slots in order or, with a seed, in steps that have no divisor in common with their
 * count. */
static void run_blocks(uint64_t count, uint32_t slot_count)
{
    uint64_t step = 1, number = 0, started = 0, finished = 0;

    if (emu_options.seed != 0 && count > 1) {
        do {
            step = 1 + emu_random(0x7fffffff) % count;
        } while (greatest_common_divisor(step, count) != 1);
        number = emu_random(0x7fffffff) % count;
    }
    for (uint32_t s = 0; s < slot_count && started < count; s++, started++) {
        start_block(slots[s], number);
        number = (number + step) % count;
    }
    while (finished < count && !faulted) {
        run_next(false);
        if (faulted)
            return;
        for (uint32_t s = 0; s < slot_count; s++) {
            emu_block_t *block = slots[s];

            if (block->alive == 0 && block->threads[0].state == EMU_RETURNED) {
                finished++;
                for (uint32_t i = 0; i < block->thread_count; i++)
                    block->threads[i].state = EMU_IDLE;
                if (started < count) {
                    start_block(block, number);
                    number = (number + step) % count;
                    started++;
                }
            } else if (ready_count == 0 && block->alive > 0) {
                diagnose_deadlock(block);
                faulted = true;
            }
        }
    }
}

CUresult emu_launch_run(const emu_launch_t *what)
{
    const uint64_t count = (uint64_t)what->grid[0] * what->grid[1] * what->grid[2];
    const uint32_t slot_count =
        count < emu_options.blocks ? (uint32_t)count : (uint32_t)emu_options.blocks;

    launch = what;
    faulted = false;
    current = NULL;
    ready_first = ready_count = 0;
    for (uint32_t s = 0; s < slot_count; s++)
        prepare_slot(s);
    emu_memory_open();
    emu_fiber_adopt(&launcher);
    emu_release(&launch_tag);
    run_blocks(count, slot_count);
    emu_acquire(&end_tag);
    current = NULL;
    if (faulted)
        abandon_slots();
    else
        faulted = !emu_memory_intact(what->kernel->name);
    emu_memory_close();
    return faulted ? CUDA_ERROR_LAUNCH_FAILED : CUDA_SUCCESS;
}
