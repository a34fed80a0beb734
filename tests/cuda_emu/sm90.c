/* SPDX-License-Identifier: MIT */
/*
 * What sm_90a adds: barriers that count arrivals and bytes, bulk copies that report to them, and
 * the products of a warpgroup, which run when they are issued or when they are waited for.
 */
#include "tests/cuda_emu/emulator.h"

/* ---- barriers in shared memory ---- */

EMU_HIDDEN static uint32_t offset_of(const emu_block_t *block, const void *shared)
{
    return (uint32_t)((const unsigned char *)shared - block->shared);
}

EMU_HIDDEN static void check_place(const emu_block_t *block, const void *barrier, const char *file,
                                   int line)
{
    if ((uintptr_t)barrier % 8 != 0 || !emu_is_shared(block, (uintptr_t)barrier, 8))
        emu_fault("mbarrier at %s:%d is not 8 aligned bytes of shared memory", file, line);
}

EMU_HIDDEN static emu_mbarrier_t *find(emu_block_t *block, const void *barrier, const char *file,
                                       int line)
{
    check_place(block, barrier, file, line);
    for (uint32_t i = 0; i < block->mbarrier_count; i++) {
        if (block->mbarriers[i].offset == offset_of(block, barrier))
            return &block->mbarriers[i];
    }
    emu_fault("mbarrier at %s:%d: byte %u of shared memory was not initialised as one", file, line,
              offset_of(block, barrier));
}

EMU_HIDDEN void ferrum_emu_mbarrier_init(const void *barrier, uint32_t arrivals, const char *file,
                                         int line)
{
    emu_thread_t *self = emu_current();
    emu_block_t *block = self->block;

    check_place(block, barrier, file, line);
    if (arrivals == 0 || arrivals > EMU_MAX_THREADS)
        emu_fault("mbarrier_init at %s:%d: %u arrivals", file, line, arrivals);
    if (block->mbarrier_count == EMU_MBARRIERS)
        emu_fault("mbarrier_init at %s:%d: more than %u of them", file, line, EMU_MBARRIERS);
    block->mbarriers[block->mbarrier_count++] =
        (emu_mbarrier_t){.offset = offset_of(block, barrier),
                         .arrivals = arrivals,
                         .missing = arrivals,
                         .initialiser = self,
                         .fences = self->async_fences};
}

/* The bulk copies of a barrier whose phase ends are done for everybody. */
EMU_HIDDEN static void forget_bulks(emu_block_t *block, const emu_mbarrier_t *barrier)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < block->bulk_count; i++) {
        const emu_bulk_t *bulk = &block->bulks[i];

        if (bulk->barrier == barrier && bulk->landed)
            emu_mark(block, bulk->copy.shared, bulk->copy.bytes, false);
        else
            block->bulks[kept++] = *bulk;
    }
    block->bulk_count = kept;
}

EMU_HIDDEN static void end_phase(emu_block_t *block, emu_mbarrier_t *barrier)
{
    if (barrier->missing != 0 || barrier->bytes != 0)
        return;
    forget_bulks(block, barrier);
    barrier->missing = barrier->arrivals;
    barrier->phase++;
    for (uint32_t i = 0; i < block->thread_count; i++) {
        if (block->threads[i].waits_for == barrier) {
            barrier->waiting--;
            emu_wake(&block->threads[i]);
        }
    }
}

/* When nothing else is missing and somebody waits, what was put off lands: in any order. */
EMU_HIDDEN static void land_late(emu_block_t *block, emu_mbarrier_t *barrier)
{
    const uint32_t phase = barrier->phase, count = block->bulk_count;
    const uint32_t first = emu_options.seed != 0 && count > 0 ? emu_random(count) : 0;

    if (barrier->missing != 0 || barrier->waiting == 0)
        return;
    for (uint32_t i = 0; i < count; i++) {
        emu_bulk_t *bulk = &block->bulks[(first + i) % count];
        volatile unsigned char *to = bulk->copy.shared;

        if (bulk->barrier != barrier || bulk->landed)
            continue;
        emu_unpoison(bulk->copy.shared, bulk->copy.bytes);
        for (uint32_t b = 0; b < bulk->copy.bytes; b++)
            to[b] = bulk->copy.global[b];
        bulk->landed = true;
        barrier->bytes -= bulk->copy.bytes;
    }
    if (barrier->phase == phase)
        end_phase(block, barrier);
}

EMU_HIDDEN void ferrum_emu_mbarrier_arrive(const void *barrier, uint32_t bytes, const char *file,
                                           int line)
{
    emu_block_t *block = emu_current()->block;
    emu_mbarrier_t *b = find(block, barrier, file, line);

    if (b->missing == 0)
        emu_fault("mbarrier_arrive at %s:%d: more than the %u arrivals of the barrier", file, line,
                  b->arrivals);
    emu_release(&b->tag[b->phase & 1u]);
    b->bytes += bytes;
    b->missing--;
    end_phase(block, b);
    land_late(block, b);
}

EMU_HIDDEN void ferrum_emu_mbarrier_wait(const void *barrier, uint32_t parity, const char *file,
                                         int line)
{
    emu_thread_t *self = emu_current();
    emu_mbarrier_t *b = find(self->block, barrier, file, line);

    if (parity > 1)
        emu_fault("mbarrier_wait at %s:%d: parity %u", file, line, parity);
    if ((b->phase & 1u) == parity) {
        b->waiting++;
        land_late(self->block, b);
        if ((b->phase & 1u) == parity)
            emu_wait(b, file, line);
        else
            b->waiting--;
    }
    emu_acquire(&b->tag[parity]);
}

/* ---- bulk copies ---- */

EMU_HIDDEN void ferrum_emu_fence_async(void)
{
    emu_current()->async_fences++;
}

EMU_HIDDEN static void check_bulk(const emu_block_t *block, const ferrum_emu_bulk_t *copy,
                                  const char *file, int line)
{
    const uintptr_t from = (uintptr_t)copy->global;

    if (copy->bytes == 0 || copy->bytes % 16 != 0)
        emu_fault("bulk_copy at %s:%d: %u bytes are not a multiple of 16", file, line, copy->bytes);
    if (!emu_is_shared(block, (uintptr_t)copy->shared, copy->bytes))
        emu_fault("bulk_copy at %s:%d writes outside of shared memory (%zu bytes)", file, line,
                  block->shared_bytes);
    if ((uintptr_t)copy->shared % 16 != 0 || from % 16 != 0)
        emu_fault("bulk_copy at %s:%d: an address is not aligned to 16 bytes", file, line);
    if (emu_memory_find(from, copy->bytes) == NULL)
        emu_fault("bulk_copy at %s:%d reads outside of every allocation", file, line);
    if (emu_marked(block, copy->shared, copy->bytes))
        emu_fault("bulk_copy at %s:%d writes where a copy that was not waited for does", file,
                  line);
}

EMU_HIDDEN int ferrum_emu_bulk_issue(const ferrum_emu_bulk_t *copy, const char *file, int line)
{
    emu_block_t *block = emu_current()->block;
    emu_mbarrier_t *barrier = find(block, copy->barrier, file, line);
    bool now = emu_options.copies == EMU_COPIES_EAGER;

    check_bulk(block, copy, file, line);
    if (barrier->fences == barrier->initialiser->async_fences)
        emu_fault("bulk_copy at %s:%d: no fence_async followed the initialisation of its barrier",
                  file, line);
    if (block->bulk_count == EMU_BULKS)
        emu_fault("bulk_copy at %s:%d: %u of them are under way", file, line, EMU_BULKS);
    if (emu_options.copies == EMU_COPIES_RANDOM)
        now = emu_random(2) == 0;
    block->bulks[block->bulk_count++] = (emu_bulk_t){*copy, barrier, now};
    emu_mark(block, copy->shared, copy->bytes, true);
    if (!now) {
        emu_poison(copy->shared, copy->bytes);
        land_late(block, barrier);
    }
    return now;
}

EMU_HIDDEN void ferrum_emu_bulk_landed(const ferrum_emu_bulk_t *copy)
{
    emu_block_t *block = emu_current()->block;
    emu_mbarrier_t *barrier = find(block, copy->barrier, "", 0);

    emu_poison(copy->shared, copy->bytes);
    emu_release(&barrier->tag[barrier->phase & 1u]);
    barrier->bytes -= copy->bytes;
    end_phase(block, barrier);
    land_late(block, barrier);
}

/* ---- products of a warpgroup ---- */

EMU_HIDDEN void emu_unfenced_write(emu_thread_t *thread, const void *shared, uint32_t bytes)
{
    uint32_t *unfenced = &thread->block->unfenced[offset_of(thread->block, shared) / 4];

    for (uint32_t i = 0; i < bytes / 4; i++)
        unfenced[i] = (thread->index + 1) | thread->async_fences << 11;
}

/* All 128 threads come; true in the last of them, which lets the others go by wake_group. */
EMU_HIDDEN static bool meet_group(const char *what, const char *file, int line)
{
    emu_thread_t *self = emu_current();
    emu_meeting_t *meeting = &self->block->warpgroups[self->index / 128];

    if (self->block->thread_count < self->index / 128 * 128 + 128)
        emu_fault("%s at %s:%d in a warpgroup that is not whole", what, file, line);
    if (meeting->arrived != 0 && (meeting->line != line || meeting->file != file))
        emu_fault("%s at %s:%d while other threads of the warpgroup are at %s:%d", what, file, line,
                  meeting->file, meeting->line);
    meeting->file = file;
    meeting->line = line;
    if (++meeting->arrived == 128)
        return true;
    emu_wait(meeting, file, line);
    return false;
}

EMU_HIDDEN static void wake_group(void)
{
    emu_thread_t *self = emu_current();
    emu_thread_t *group = &self->block->threads[self->index / 128 * 128];

    self->block->warpgroups[self->index / 128].arrived = 0;
    for (uint32_t i = 0; i < 128; i++) {
        if (&group[i] != self)
            emu_wake(&group[i]);
    }
}

EMU_HIDDEN void ferrum_emu_wgmma_fence(void)
{
    emu_current()->wgmma_fenced = true;
}

EMU_HIDDEN void ferrum_emu_wgmma_commit(void)
{
    emu_current()->wgmma_groups++;
}

EMU_HIDDEN static void check_same(const emu_thread_t *group, const ferrum_emu_wgmma_t *op)
{
    for (uint32_t i = 0; i < 128; i++) {
        const ferrum_emu_wgmma_t *other = &group[i].wgmmas[group[i].wgmma_count - 1];

        if (other->b != op->b || other->n != op->n || other->kind != op->kind ||
            other->accumulate != op->accumulate)
            emu_fault("wgmma at %s:%d: thread %u of the warpgroup gives another B, shape or kind",
                      op->file, op->line, i);
    }
}

EMU_HIDDEN int ferrum_emu_wgmma_issue(const ferrum_emu_wgmma_t *op)
{
    emu_thread_t *self = emu_current();
    emu_thread_t *group = &self->block->threads[self->index / 128 * 128];

    if (!self->wgmma_fenced)
        emu_fault("wgmma at %s:%d: no wgmma_fence orders it after what wrote its registers",
                  op->file, op->line);
    if (self->wgmma_count == EMU_WGMMAS)
        emu_fault("wgmma at %s:%d: %u of them are under way", op->file, op->line, EMU_WGMMAS);
    self->wgmmas[self->wgmma_count] = *op;
    self->wgmmas[self->wgmma_count++].group = self->wgmma_groups;
    self->wgmma_open = true;
    if (meet_group("wgmma", op->file, op->line)) {
        check_same(group, op);
        self->block->wgmma_now[self->index / 128] =
            emu_options.copies == EMU_COPIES_EAGER ||
            (emu_options.copies == EMU_COPIES_RANDOM && emu_random(2) == 0);
        wake_group();
    }
    return self->block->wgmma_now[self->index / 128];
}

EMU_HIDDEN int ferrum_emu_wgmma_next(uint32_t pending, ferrum_emu_wgmma_t *out_op)
{
    emu_thread_t *self = emu_current();

    if (self->wgmma_count == 0 ||
        (pending != FERRUM_EMU_WGMMA_ALL && self->wgmmas[0].group + pending >= self->wgmma_groups))
        return 0;
    *out_op = self->wgmmas[0];
    self->wgmma_count--;
    for (uint32_t i = 0; i < self->wgmma_count; i++)
        self->wgmmas[i] = self->wgmmas[i + 1];
    return 1;
}

EMU_HIDDEN void ferrum_emu_wgmma_waited(uint32_t pending)
{
    emu_thread_t *self = emu_current();

    self->wgmma_fenced = false;
    if (pending == 0 && self->wgmma_count == 0)
        self->wgmma_open = false;
}

/* Rows of 128 bytes, 8 to an atom of 1024; address bits 4..6 are xor-ed with bits 7..9. */
EMU_HIDDEN static const unsigned char *b_chunk(const ferrum_emu_wgmma_t *op, uint32_t row,
                                               uint32_t half)
{
    const emu_block_t *block = emu_current()->block;
    const uint32_t start = (uint32_t)(op->b & 0x3fffu) << 4;
    const uint32_t stride = (uint32_t)(op->b >> 32 & 0x3fffu) << 4;
    uint32_t address;

    if (op->b >> 62 != 1 || (op->b >> 49 & 7u) != 0 || start / 128 % 8 != 0)
        emu_fault("wgmma at %s:%d: B is not described as atoms of 8 rows, swizzled by 128 bytes, "
                  "that begin at a multiple of 1024",
                  op->file, op->line);
    address = start + row / 8 * stride + row % 8 * 128 + half * 16;
    address ^= (address >> 7 & 7u) << 4;
    address -= FERRUM_EMU_SHARED_WINDOW;
    if (!emu_is_shared(block, (uintptr_t)block->shared + address, 16))
        emu_fault("wgmma at %s:%d: row %u of B lies outside of shared memory", op->file, op->line,
                  row);
    return block->shared + address;
}

EMU_HIDDEN const void *ferrum_emu_wgmma_chunk(const ferrum_emu_wgmma_t *op, uint32_t i)
{
    const emu_thread_t *self = emu_current();
    const emu_block_t *block = self->block;
    const uint32_t number = self->index % 128 + 128 * i;
    const unsigned char *chunk = b_chunk(op, number / 2, number % 2);
    const uint32_t *unfenced = &block->unfenced[offset_of(block, chunk) / 4];

    if (emu_marked(block, chunk, 16))
        emu_fault("wgmma at %s:%d reads what a copy that was not waited for is writing", op->file,
                  op->line);
    for (uint32_t w = 0; w < 4; w++) {
        const uint32_t writer = (unfenced[w] & 0x7ffu) - 1;

        if (unfenced[w] != 0 &&
            unfenced[w] >> 11 == (block->threads[writer].async_fences & (UINT32_MAX >> 11)))
            emu_fault("wgmma at %s:%d reads what thread %u copied without a fence_async since",
                      op->file, op->line, writer);
    }
    return chunk;
}

EMU_HIDDEN void ferrum_emu_wgmma_run(const ferrum_emu_wgmma_t *op, const uint32_t *words)
{
    emu_thread_t *self = emu_current();

    self->wgmma_running = *op;
    for (uint32_t i = 0; i < op->n / 16; i++)
        self->wgmma_words[i] = words[i];
    if (meet_group("wgmma", op->file, op->line)) {
        emu_wgmma_compute(&self->block->threads[self->index / 128 * 128]);
        wake_group();
    }
}

/* ---- the end of a thread ---- */

EMU_HIDDEN void emu_sm90_leave(emu_thread_t *thread)
{
    if (thread->wgmma_open)
        emu_fault("it returned, but did not wait for the wgmma at %s:%d",
                  thread->wgmma_count ? thread->wgmmas[0].file : thread->wgmma_running.file,
                  thread->wgmma_count ? thread->wgmmas[0].line : thread->wgmma_running.line);
    if (thread->block->alive == 1 && thread->block->bulk_count != 0)
        emu_fault("the block ends while %u bulk copies are under way", thread->block->bulk_count);
}

EMU_HIDDEN void emu_sm90_begin(emu_block_t *block)
{
    block->mbarrier_count = 0;
    block->bulk_count = 0;
    for (size_t i = 0; i < block->shared_bytes / 4; i++)
        block->unfenced[i] = 0;
    for (uint32_t i = 0; i < block->thread_count; i++) {
        emu_thread_t *t = &block->threads[i];

        t->async_fences = t->wgmma_count = t->wgmma_groups = 0;
        t->wgmma_fenced = t->wgmma_open = false;
    }
}
