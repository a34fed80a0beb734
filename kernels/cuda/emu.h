/* SPDX-License-Identifier: MIT */
/**
 * @file emu.h
 * @brief What device_emu.cuh asks of the emulator (tests/cuda_emu): the state of the running
 * thread, its meetings with other threads, and the table of kernels.
 *
 * The kernel's own loads and stores stay in device_emu.cuh, so that sanitizers see them and name
 * the line of the kernel. `file` and `line` say where in the kernel a function was called.
 */
#ifndef FERRUM_KERNELS_CUDA_EMU_H
#define FERRUM_KERNELS_CUDA_EMU_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** One kernel, made by FERRUM_KERNEL before main runs. */
typedef struct ferrum_emu_kernel {
    const char *name;
    void (*function)(void);                                      /**< the kernel, its type erased */
    void (*invoke)(void (*function)(void), void *const *params); /**< calls it */
    const size_t *param_sizes;
    size_t param_count;
    uint32_t max_threads; /**< launch bound */
    uint32_t capability;  /**< of the only devices that have it; 0: all */
    uint64_t runs;        /**< since the emulator was reset */
    struct ferrum_emu_kernel *next;
} ferrum_emu_kernel_t;

void ferrum_emu_register(ferrum_emu_kernel_t *kernel);

/** The running thread, as far as kernels may see it. */
typedef struct ferrum_emu_thread {
    uint32_t thread[3];
    uint32_t block[3];
    uint32_t block_dim[3];
    uint32_t grid_dim[3];
    uint32_t lane;
    unsigned char *shared; /**< the block's dynamic shared memory */
} ferrum_emu_thread_t;

const ferrum_emu_thread_t *ferrum_emu_self(void);

/** Address of a block's first byte of shared memory in the window that kernels see. */
#define FERRUM_EMU_SHARED_WINDOW 1024u

/** Barrier 0 of all threads: everybody has to call it from the same line. */
void ferrum_emu_barrier(const char *file, int line);
/** Barrier @p id of @p threads threads; `wait` is 0 for those that only arrive. */
void ferrum_emu_named_barrier(uint32_t id, uint32_t threads, int wait, const char *file, int line);
/** A fence, as far as the race detector is concerned. */
void ferrum_emu_fence(void);

/** Functions in which the lanes of a mask meet; words in and out of each lane. */
typedef enum ferrum_emu_meeting {
    FERRUM_EMU_WARP_BARRIER,   /**< - */
    FERRUM_EMU_BALLOT,         /**< predicate; mask */
    FERRUM_EMU_MATCH_ANY,      /**< value; mask */
    FERRUM_EMU_SHUFFLE,        /**< value, source lane; value */
    FERRUM_EMU_LDMATRIX,       /**< row of 4 words, matrices; a word per matrix */
    FERRUM_EMU_LDMATRIX_TRANS, /**< the same */
    FERRUM_EMU_MMA_F16,        /**< a[4], b[2], d[4]; d[4] */
    FERRUM_EMU_MMA_BF16,       /**< the same */
    FERRUM_EMU_MMA_S8,         /**< the same */
    FERRUM_EMU_MEETINGS
} ferrum_emu_meeting_t;

#define FERRUM_EMU_MEETING_IN 10
#define FERRUM_EMU_MEETING_OUT 4

/** Meet the other lanes of @p mask; returns when all have come. */
void ferrum_emu_meet(ferrum_emu_meeting_t kind, uint32_t mask, const uint32_t *in, size_t in_words,
                     uint32_t *out, size_t out_words, const char *file, int line);

/** Check one row address of ldmatrix: shared, aligned, and no copy_async to it under way. */
void ferrum_emu_check_row(const void *row, const char *file, int line);

/** One copy_async. */
typedef struct ferrum_emu_copy {
    unsigned char *shared;
    const unsigned char *global;
    uint32_t bytes;        /**< 4, 8 or 16 */
    uint32_t source_bytes; /**< 0..bytes; the rest is zeros */
    uint32_t group;
} ferrum_emu_copy_t;

/** Start a copy. Returns whether it lands now: the caller then copies and calls ..._landed. */
int ferrum_emu_copy_issue(const ferrum_emu_copy_t *copy, const char *file, int line);
void ferrum_emu_copy_landed(const ferrum_emu_copy_t *copy);
void ferrum_emu_copy_commit(void);
/**
 * Take one copy that has to be complete when @p pending groups may be unfinished; 0 when there is
 * none left. *out_land tells whether the caller has to copy (or it landed when it was issued).
 */
int ferrum_emu_copy_retire(uint32_t pending, ferrum_emu_copy_t *out_copy, int *out_land);

/*
 * Of sm_90a. Barriers in shared memory complete a phase when all arrivals and all bytes have come;
 * a bulk copy lands when it is issued or when everything else that its barrier waits for has come.
 */
void ferrum_emu_mbarrier_init(const void *barrier, uint32_t arrivals, const char *file, int line);
/** Expect @p bytes more of this phase, and arrive. */
void ferrum_emu_mbarrier_arrive(const void *barrier, uint32_t bytes, const char *file, int line);
/** Wait for the end of the phase of this parity; the first has parity 0. */
void ferrum_emu_mbarrier_wait(const void *barrier, uint32_t parity, const char *file, int line);
/** What this thread wrote by then may be read by wgmma, and a barrier may count bytes. */
void ferrum_emu_fence_async(void);

typedef struct ferrum_emu_bulk {
    unsigned char *shared;
    const unsigned char *global;
    uint32_t bytes;
    const void *barrier;
} ferrum_emu_bulk_t;

/** Start a bulk copy; returns whether the caller copies now, and then calls ..._landed. */
int ferrum_emu_bulk_issue(const ferrum_emu_bulk_t *copy, const char *file, int line);
void ferrum_emu_bulk_landed(const ferrum_emu_bulk_t *copy);

/** One wgmma m64nNk16 of a thread: d (N/2 sums) and a (4 words) stay where they are until it ran.
 */
typedef struct ferrum_emu_wgmma {
    const uint32_t *a;
    uint64_t b; /**< matrix descriptor */
    float *d;
    uint32_t n;
    ferrum_emu_meeting_t kind; /**< FERRUM_EMU_MMA_F16 or _BF16 */
    int accumulate;
    uint32_t group;
    const char *file;
    int line;
} ferrum_emu_wgmma_t;

#define FERRUM_EMU_WGMMA_WORDS 8
#define FERRUM_EMU_WGMMA_ALL UINT32_MAX

void ferrum_emu_wgmma_fence(void);
void ferrum_emu_wgmma_commit(void);
/** Queue a product; returns whether all that are queued run now. */
int ferrum_emu_wgmma_issue(const ferrum_emu_wgmma_t *op);
/** Take the next one that has to run when @p pending groups may be unfinished; 0: none is left. */
int ferrum_emu_wgmma_next(uint32_t pending, ferrum_emu_wgmma_t *out_op);
void ferrum_emu_wgmma_waited(uint32_t pending);
/** Where the 16 bytes number @p i of this thread's part of B lie. */
const void *ferrum_emu_wgmma_chunk(const ferrum_emu_wgmma_t *op, uint32_t i);
/** Give the words of this thread's part; returns when d has the sums. */
void ferrum_emu_wgmma_run(const ferrum_emu_wgmma_t *op, const uint32_t *words);

#ifdef __cplusplus
}
#endif
#endif
