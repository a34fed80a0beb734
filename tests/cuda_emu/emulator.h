/* SPDX-License-Identifier: MIT */
/**
 * @file emulator.h
 * @brief What the parts of the emulated driver share. See README.md for the idea.
 *
 * Layers, from below: fiber (stacks), memory (device memory), threads, meet and copies (one
 * launch), then the driver: queue (streams, events, graphs) and the exported functions. One mutex,
 * taken by the exported functions, covers everything.
 */
#ifndef FERRUM_TESTS_CUDA_EMU_EMULATOR_H
#define FERRUM_TESTS_CUDA_EMU_EMULATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backends/cuda/driver_api.h"
#include "kernels/cuda/emu.h"

#if defined(__SANITIZE_ADDRESS__)
#define EMU_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define EMU_TSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMU_ASAN 1
#elif __has_feature(thread_sanitizer)
#define EMU_TSAN 1
#endif
#endif

/**
 * Functions that run between the threads of a kernel. The race detector must see what the kernel
 * does, not what the emulator does on its behalf.
 */
#define EMU_HIDDEN __attribute__((no_sanitize("thread"), no_sanitize("address")))
#define EMU_EXPORT __attribute__((visibility("default")))

/* ---- options.c ---- */

typedef enum emu_copy_mode {
    EMU_COPIES_EAGER,
    EMU_COPIES_LAZY,
    EMU_COPIES_RANDOM
} emu_copy_mode_t;

/** Each is FERRUM_TEST_CUDA_EMU_<NAME> in the environment, read by cuInit. */
typedef struct emu_options {
    uint64_t seed;   /**< SEED: 0 runs threads, blocks and streams in order */
    uint64_t memory; /**< MEMORY: bytes per device */
    uint64_t devices;
    uint64_t sm;      /**< SM: compute capability, 80, 89, 90 or 120 */
    uint64_t version; /**< VERSION: of the driver */
    uint64_t blocks;  /**< BLOCKS: how many are resident at once */
    emu_copy_mode_t copies;
    bool eager_streams; /**< STREAMS=eager: work runs when it is submitted */
} emu_options_t;

extern emu_options_t emu_options;

void emu_options_load(void);
/** The same, if it has not been done yet. */
void emu_options_need(void);
/** A number below @p bound; the same sequence for the same seed. */
uint32_t emu_random(uint32_t bound);
/** The result that call number @p count of a function is made to have, or CUDA_SUCCESS. */
CUresult emu_injected(const char *name, uint64_t count);
/** Remember and print what went wrong, for ferrum_emu_fault(). */
void emu_report(const char *format, ...) __attribute__((format(printf, 1, 2)));
void emu_report_clear(void);

/* ---- fiber.c ---- */

typedef struct emu_fiber {
    void *stack_pointer;
    const void *stack;
    size_t stack_bytes;
    void *map; /**< NULL for the thread that launches */
    void *tsan;
    void *asan;
} emu_fiber_t;

void emu_fiber_create(emu_fiber_t *fiber, void (*entry)(void));
void emu_fiber_destroy(emu_fiber_t *fiber);
/** Make @p fiber stand for the calling thread. */
void emu_fiber_adopt(emu_fiber_t *fiber);
void emu_fiber_switch(emu_fiber_t *from, emu_fiber_t *to);
/** To be called first by a fiber's entry. */
void emu_fiber_entered(void);

/** Order of memory for the race detector: what was done before release is seen after acquire. */
void emu_release(void *tag);
void emu_acquire(void *tag);
void emu_poison(const void *address, size_t bytes);
void emu_unpoison(const void *address, size_t bytes);

/* ---- memory.c ---- */

typedef struct emu_allocation {
    uintptr_t address;
    size_t bytes;
    uint64_t serial;
    CUdevice device;
} emu_allocation_t;

CUresult emu_memory_alloc(CUdevice device, size_t bytes, CUdeviceptr *out_address);
CUresult emu_memory_free(CUdeviceptr address);
uint64_t emu_memory_used(CUdevice device);
void emu_memory_free_device(CUdevice device);
/** The allocation that has all of [address, address + bytes), or NULL. */
const emu_allocation_t *emu_memory_find(uintptr_t address, size_t bytes);
/** Whether an address is device memory, allocated or not. */
bool emu_memory_owns(uintptr_t address);
/** Let this process access device memory, until closed as often as opened. */
void emu_memory_open(void);
void emu_memory_close(void);
/** Look for writes beside allocations; reports in the name of @p who. */
bool emu_memory_intact(const char *who);

CUresult emu_host_alloc(size_t bytes, void **out_pointer);
CUresult emu_host_free(void *pointer);
bool emu_host_pinned(const void *pointer, size_t bytes);

/* ---- threads.c: one launch ---- */

#define EMU_MAX_THREADS 1024u
#define EMU_MAX_WARPS (EMU_MAX_THREADS / 32)
#define EMU_NAMED_BARRIERS 16u
#define EMU_MBARRIERS 64u
#define EMU_WGMMAS 16u
#define EMU_BULKS 256u

typedef enum emu_thread_state {
    EMU_IDLE,
    EMU_READY,
    EMU_WAITING,
    EMU_RETURNED
} emu_thread_state_t;

typedef struct emu_pending_copy {
    ferrum_emu_copy_t copy;
    bool landed;
} emu_pending_copy_t;

typedef struct emu_thread {
    ferrum_emu_thread_t view; /**< first: what the kernel sees */
    emu_fiber_t fiber;
    struct emu_block *block;
    uint32_t index;
    emu_thread_state_t state;
    const void *waits_for; /**< the barrier or meeting */
    const char *file;      /**< where */
    int line;
    uint32_t in[FERRUM_EMU_MEETING_IN];
    uint32_t out[FERRUM_EMU_MEETING_OUT];
    emu_pending_copy_t *copies;
    size_t copy_count, copy_capacity;
    uint32_t copy_groups;
    /* sm90.c */
    ferrum_emu_wgmma_t wgmmas[EMU_WGMMAS + 1]; /**< issued; of the committed groups first */
    ferrum_emu_wgmma_t wgmma_running;
    uint32_t wgmma_words[FERRUM_EMU_WGMMA_WORDS];
    uint32_t wgmma_count, wgmma_groups;
    uint32_t async_fences;
    bool wgmma_fenced; /**< since the last wait */
    bool wgmma_open;   /**< some were not waited for */
} emu_thread_t;

/** Where threads meet. Two tags, used in turn: a fast thread must not order a slow one's past. */
typedef struct emu_meeting {
    ferrum_emu_meeting_t kind;
    uint32_t mask;    /**< lanes that meet; a barrier's thread count */
    uint32_t arrived; /**< lanes that are there; a barrier's threads */
    const char *file;
    int line;
    uint32_t generation;
    char tag[2];
} emu_meeting_t;

/** A barrier of sm_90a in shared memory. */
typedef struct emu_mbarrier {
    uint32_t offset;
    uint32_t arrivals, missing; /**< of a phase, and of this one */
    int64_t bytes;              /**< expected and not landed */
    uint32_t phase;
    uint32_t waiting; /**< threads */
    const emu_thread_t *initialiser;
    uint32_t fences; /**< that the initialiser had made by then */
    char tag[2];     /**< by parity of the phase */
} emu_mbarrier_t;

typedef struct emu_bulk {
    ferrum_emu_bulk_t copy;
    emu_mbarrier_t *barrier;
    bool landed;
} emu_bulk_t;

typedef struct emu_block {
    emu_thread_t *threads;
    uint32_t thread_count, alive;
    uint32_t coordinates[3];
    emu_meeting_t barriers[EMU_NAMED_BARRIERS];
    emu_meeting_t meetings[EMU_MAX_WARPS]
                          [32]; /**< of each warp, by lowest lane of the mask if free */
    unsigned char *shared_map;
    unsigned char *shared;
    size_t shared_bytes;
    uint8_t *in_flight; /**< copies under way to each 4 bytes of shared memory */
    uint32_t *unfenced; /**< and who copied there, with how many fences made; 0: nobody */
    emu_mbarrier_t mbarriers[EMU_MBARRIERS];
    uint32_t mbarrier_count;
    emu_bulk_t bulks[EMU_BULKS];
    uint32_t bulk_count;
    emu_meeting_t warpgroups[EMU_MAX_THREADS / 128];
    bool wgmma_now[EMU_MAX_THREADS / 128]; /**< the last one issued runs at once */
    uint32_t runs;
    char tag[2]; /**< by turns: a block follows the one before in its slot */
} emu_block_t;

typedef struct emu_launch {
    ferrum_emu_kernel_t *kernel;
    uint32_t grid[3], block[3];
    uint32_t shared_bytes;
    void *const *params;
    CUdevice device;
} emu_launch_t;

#define EMU_MAX_SHARED_BYTES (256u * 1024u)

/** Run all blocks. CUDA_SUCCESS, or CUDA_ERROR_LAUNCH_FAILED after a report. */
CUresult emu_launch_run(const emu_launch_t *launch);

/* For the functions that a kernel calls. */
emu_thread_t *emu_current(void);
/** Let others run until somebody wakes this thread. */
void emu_wait(const void *what, const char *file, int line);
void emu_wake(emu_thread_t *thread);
/** Name the thread that runs; false if none does. */
bool emu_describe(char *text, size_t bytes);
/** Abandon the launch; does not return. */
_Noreturn void emu_fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- copies.c ---- */

/** Forget the copies that a thread has not waited for. */
void emu_copies_drop(emu_thread_t *thread);
bool emu_is_shared(const emu_block_t *block, uintptr_t address, size_t bytes);
/** Copies to these bytes of shared memory are under way, or no longer. */
void emu_mark(const emu_block_t *block, const void *shared, uint32_t bytes, bool on);
bool emu_marked(const emu_block_t *block, const void *shared, uint32_t bytes);

/* ---- sm90.c ---- */

/** A thread copied to shared memory by what is not a bulk copy. */
void emu_unfenced_write(emu_thread_t *thread, const void *shared, uint32_t bytes);
/** A block begins; a thread has returned, and nothing of its may be left under way. */
void emu_sm90_begin(emu_block_t *block);
void emu_sm90_leave(emu_thread_t *thread);

/* ---- mma.c: the last lane to arrive computes for its warp ---- */

void emu_meeting_compute(ferrum_emu_meeting_t kind, uint32_t mask, emu_thread_t *warp);
/** What the 128 threads have as wgmma_running. */
void emu_wgmma_compute(emu_thread_t *group);

/* ---- kernels.c ---- */

ferrum_emu_kernel_t *emu_kernel_find(const char *name);
/** No kernel has run. */
void emu_kernels_reset(void);

#endif
