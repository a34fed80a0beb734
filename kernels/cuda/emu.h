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

#ifdef __cplusplus
}
#endif
#endif
