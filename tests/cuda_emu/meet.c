/* SPDX-License-Identifier: MIT */
/*
 * Barriers and the functions in which lanes of a warp meet. Barriers and warp barriers order memory
 * for the race detector; shuffles, votes and matrix functions do not, as on a GPU.
 */
#include "tests/cuda_emu/emulator.h"

static const char *const meeting_names[FERRUM_EMU_MEETINGS] = {
    [FERRUM_EMU_WARP_BARRIER] = "warp_barrier", [FERRUM_EMU_BALLOT] = "ballot",
    [FERRUM_EMU_MATCH_ANY] = "match_any",       [FERRUM_EMU_SHUFFLE] = "shuffle",
    [FERRUM_EMU_LDMATRIX] = "ldmatrix",         [FERRUM_EMU_LDMATRIX_TRANS] = "ldmatrix_trans",
    [FERRUM_EMU_MMA_F16] = "mma_m16n8k16_f16",  [FERRUM_EMU_MMA_BF16] = "mma_m16n8k16_bf16",
    [FERRUM_EMU_MMA_S8] = "mma_m16n8k32_s8",
};

EMU_HIDDEN static void wake_all(emu_block_t *block, const emu_meeting_t *meeting)
{
    for (uint32_t i = 0; i < block->thread_count; i++) {
        if (block->threads[i].waits_for == meeting)
            emu_wake(&block->threads[i]);
    }
}

EMU_HIDDEN void ferrum_emu_barrier(const char *file, int line)
{
    emu_thread_t *self = emu_current();
    emu_block_t *block = self->block;
    emu_meeting_t *barrier = &block->barriers[0];
    char *tag = &barrier->tag[barrier->generation & 1u];

    if (block->alive != block->thread_count)
        emu_fault("barrier at %s:%d after a thread of the block has returned", file, line);
    if (barrier->arrived > 0 && (barrier->line != line || barrier->file != file))
        emu_fault("barrier at %s:%d while others are at the one at %s:%d", file, line,
                  barrier->file, barrier->line);
    barrier->file = file;
    barrier->line = line;
    emu_release(tag);
    if (++barrier->arrived == block->thread_count) {
        barrier->arrived = 0;
        barrier->generation++;
        wake_all(block, barrier);
    } else {
        emu_wait(barrier, file, line);
    }
    emu_acquire(tag);
}

EMU_HIDDEN void ferrum_emu_named_barrier(uint32_t id, uint32_t threads, int wait, const char *file,
                                         int line)
{
    emu_thread_t *self = emu_current();
    emu_meeting_t *barrier = &self->block->barriers[id % EMU_NAMED_BARRIERS];
    char *tag = &barrier->tag[barrier->generation & 1u];

    if (id == 0 || id >= EMU_NAMED_BARRIERS)
        emu_fault("named barrier %u at %s:%d: 1..15 may be used", id, file, line);
    if (threads == 0 || threads % 32 != 0 || threads > self->block->thread_count)
        emu_fault("named barrier %u at %s:%d: %u threads, but whole warps of the block's %u are "
                  "wanted",
                  id, file, line, threads, self->block->thread_count);
    if (barrier->arrived > 0 && barrier->mask != threads)
        emu_fault("named barrier %u at %s:%d is for %u threads, but others gave %u", id, file, line,
                  threads, barrier->mask);
    barrier->mask = threads;
    emu_release(tag);
    if (++barrier->arrived == threads) {
        barrier->arrived = 0;
        barrier->generation++;
        wake_all(self->block, barrier);
    } else if (wait) {
        emu_wait(barrier, file, line);
    }
    if (wait)
        emu_acquire(tag);
}

/* One tag for all: a fence orders more here than on a GPU, but a missing one orders nothing. */
EMU_HIDDEN void ferrum_emu_fence(void)
{
    static char tag;

    emu_release(&tag);
    emu_acquire(&tag);
}

EMU_HIDDEN static void check_mask(const emu_thread_t *self, ferrum_emu_meeting_t kind,
                                  uint32_t mask, const char *file, int line)
{
    const emu_block_t *block = self->block;
    const uint32_t first = self->index / 32 * 32;

    if ((mask >> self->view.lane & 1u) == 0)
        emu_fault("%s at %s:%d: the mask 0x%08x does not have lane %u, which calls it",
                  meeting_names[kind], file, line, mask, self->view.lane);
    if (block->thread_count - first < 32 && mask >> (block->thread_count - first) != 0)
        emu_fault("%s at %s:%d: the mask 0x%08x has lanes that the block of %u threads lacks",
                  meeting_names[kind], file, line, mask, block->thread_count);
}

EMU_HIDDEN static void finish_meeting(emu_thread_t *self, emu_meeting_t *meeting)
{
    const uint32_t mask = meeting->mask;
    emu_thread_t *warp = &self->block->threads[self->index / 32 * 32];

    emu_meeting_compute(meeting->kind, mask, warp);
    meeting->arrived = 0;
    meeting->generation++;
    for (uint32_t lane = 0; lane < 32; lane++) {
        if ((mask >> lane & 1u) != 0 && &warp[lane] != self)
            emu_wake(&warp[lane]);
    }
}

/*
 * The meeting of a mask's lanes that has begun, or a free place for one. Another mask that shares
 * lanes may still be waited for, by lanes that come there first.
 */
EMU_HIDDEN static emu_meeting_t *find_meeting(emu_meeting_t *meetings, uint32_t mask)
{
    const uint32_t first = (uint32_t)__builtin_ctz(mask);
    emu_meeting_t *unused = NULL;

    for (uint32_t i = 0; i < 32; i++) {
        emu_meeting_t *m = &meetings[(first + i) % 32];

        if (m->arrived != 0 && m->mask == mask)
            return m;
        if (m->arrived == 0 && unused == NULL)
            unused = m;
    }
    return unused; /* each of 32 lanes is at one meeting at most, and this lane at none */
}

EMU_HIDDEN void ferrum_emu_meet(ferrum_emu_meeting_t kind, uint32_t mask, const uint32_t *in,
                                size_t in_words, uint32_t *out, size_t out_words, const char *file,
                                int line)
{
    emu_thread_t *self = emu_current();
    emu_meeting_t *meeting;
    char *tag;

    check_mask(self, kind, mask, file, line);
    meeting = find_meeting(self->block->meetings[self->index / 32], mask);
    tag = &meeting->tag[meeting->generation & 1u];
    if (meeting->arrived != 0 && meeting->kind != kind)
        emu_fault("%s at %s:%d while lanes of its warp wait in %s at %s:%d with the same mask "
                  "0x%08x",
                  meeting_names[kind], file, line, meeting_names[meeting->kind], meeting->file,
                  meeting->line, mask);
    meeting->kind = kind;
    meeting->mask = mask;
    meeting->file = file;
    meeting->line = line;
    meeting->arrived |= 1u << self->view.lane;
    for (size_t i = 0; i < in_words; i++)
        self->in[i] = in[i];
    if (kind == FERRUM_EMU_WARP_BARRIER)
        emu_release(tag);
    if (meeting->arrived == mask)
        finish_meeting(self, meeting);
    else
        emu_wait(meeting, file, line);
    if (kind == FERRUM_EMU_WARP_BARRIER)
        emu_acquire(tag);
    for (size_t i = 0; i < out_words; i++)
        out[i] = self->out[i];
}
