/* SPDX-License-Identifier: MIT */
/*
 * copy_async: a copy lands when it is issued, when it is waited for, or at either time by chance.
 * Until the wait, wherever it landed, its target is marked: reading it is an error by then.
 */
#include "tests/cuda_emu/emulator.h"

#include <stdlib.h>

EMU_HIDDEN bool emu_is_shared(const emu_block_t *block, uintptr_t address, size_t bytes)
{
    const uintptr_t begin = (uintptr_t)block->shared;

    return address >= begin && address - begin <= block->shared_bytes &&
           bytes <= block->shared_bytes - (address - begin);
}

EMU_HIDDEN static uint8_t *marks(const emu_block_t *block, const void *shared)
{
    return &block->in_flight[(size_t)((const unsigned char *)shared - block->shared) / 4];
}

/* Sanitizers keep 8 bytes apart; smaller targets stay readable to them. */
EMU_HIDDEN void emu_mark(const emu_block_t *block, const void *shared, uint32_t bytes, bool on)
{
    uint8_t *m = marks(block, shared);

    for (uint32_t i = 0; i < bytes / 4; i++)
        m[i] = on;
    if (!on)
        emu_unpoison(shared, bytes);
}

EMU_HIDDEN bool emu_marked(const emu_block_t *block, const void *shared, uint32_t bytes)
{
    const uint8_t *m = marks(block, shared);
    uint8_t any = 0;

    for (uint32_t i = 0; i < bytes / 4; i++)
        any |= m[i];
    return any != 0;
}

EMU_HIDDEN void ferrum_emu_check_row(const void *row, const char *file, int line)
{
    const emu_thread_t *self = emu_current();

    if ((uintptr_t)row % 16 != 0 || !emu_is_shared(self->block, (uintptr_t)row, 16))
        emu_fault("ldmatrix at %s:%d: the row's address is not 16 aligned bytes of shared memory",
                  file, line);
    if (emu_marked(self->block, row, 16))
        emu_fault("ldmatrix at %s:%d reads what a copy_async that was not waited for is writing",
                  file, line);
}

EMU_HIDDEN static void check_copy(const emu_thread_t *self, const ferrum_emu_copy_t *copy,
                                  const char *file, int line)
{
    const uintptr_t from = (uintptr_t)copy->global;

    if (!emu_is_shared(self->block, (uintptr_t)copy->shared, copy->bytes))
        emu_fault("copy_async at %s:%d writes outside of shared memory (%zu bytes)", file, line,
                  self->block->shared_bytes);
    if ((uintptr_t)copy->shared % copy->bytes != 0 || from % copy->bytes != 0)
        emu_fault("copy_async at %s:%d: an address is not aligned to %u bytes", file, line,
                  copy->bytes);
    if (copy->source_bytes > copy->bytes)
        emu_fault("copy_async at %s:%d: %u source bytes of %u", file, line, copy->source_bytes,
                  copy->bytes);
    if (copy->source_bytes > 0 && emu_memory_find(from, copy->source_bytes) == NULL)
        emu_fault("copy_async at %s:%d reads outside of every allocation", file, line);
    if (emu_marked(self->block, copy->shared, copy->bytes))
        emu_fault("copy_async at %s:%d writes where another one that was not waited for does", file,
                  line);
}

EMU_HIDDEN int ferrum_emu_copy_issue(const ferrum_emu_copy_t *copy, const char *file, int line)
{
    emu_thread_t *self = emu_current();
    emu_pending_copy_t *pending;

    check_copy(self, copy, file, line);
    if (self->copy_count == self->copy_capacity) {
        self->copy_capacity = self->copy_capacity * 2 + 16;
        self->copies = realloc(self->copies, self->copy_capacity * sizeof *self->copies);
        if (self->copies == NULL)
            abort();
    }
    pending = &self->copies[self->copy_count++];
    pending->copy = *copy;
    pending->copy.group = self->copy_groups;
    pending->landed = emu_options.copies == EMU_COPIES_EAGER ||
                      (emu_options.copies == EMU_COPIES_RANDOM && emu_random(2) == 0);
    emu_mark(self->block, copy->shared, copy->bytes, true);
    if (!pending->landed && copy->bytes >= 8)
        emu_poison(copy->shared, copy->bytes);
    return pending->landed;
}

EMU_HIDDEN void ferrum_emu_copy_landed(const ferrum_emu_copy_t *copy)
{
    if (copy->bytes >= 8)
        emu_poison(copy->shared, copy->bytes);
}

EMU_HIDDEN void ferrum_emu_copy_commit(void)
{
    emu_current()->copy_groups++;
}

/* Copies of different groups finish in order, those of one group in any. */
EMU_HIDDEN int ferrum_emu_copy_retire(uint32_t pending, ferrum_emu_copy_t *out_copy, int *out_land)
{
    emu_thread_t *self = emu_current();
    uint32_t due = 0;
    size_t pick;

    while (due < self->copy_count && self->copies[due].copy.group + pending < self->copy_groups &&
           self->copies[due].copy.group == self->copies[0].copy.group)
        due++;
    if (due == 0)
        return 0;
    pick = emu_options.seed != 0 ? emu_random(due) : 0;
    *out_copy = self->copies[pick].copy;
    *out_land = !self->copies[pick].landed;
    emu_mark(self->block, out_copy->shared, out_copy->bytes, false);
    emu_unfenced_write(self, out_copy->shared, out_copy->bytes);
    self->copy_count--;
    for (size_t i = pick; i < self->copy_count; i++)
        self->copies[i] = self->copies[i + 1];
    return 1;
}

EMU_HIDDEN void emu_copies_drop(emu_thread_t *thread)
{
    for (size_t i = 0; i < thread->copy_count; i++)
        emu_mark(thread->block, thread->copies[i].copy.shared, thread->copies[i].copy.bytes, false);
    thread->copy_count = 0;
}
