/* SPDX-License-Identifier: MIT */
/**
 * @file host.h
 * @brief What the host gives a plugin: memory, log, options and threads.
 *
 * A plugin owns none of these itself. It starts no thread, calls no allocator of its own for
 * anything that outlives a call, prints nothing and reads no environment variable; that is what
 * makes it possible to unload it and to prove that nothing of it is left.
 */
#ifndef FERRUM_HOST_H
#define FERRUM_HOST_H

#include <ferrum/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Host memory. Blocks are freed through the allocator they came from.
 * Lifetime: at least as long as the plugin is loaded.
 */
typedef struct ferrum_allocator {
    ferrum_head_t head;
    void *self; /**< passed back as the first argument */
    /**
     * Allocate @p bytes (> 0) aligned to @p align (a power of two, at most 2 MiB). Contents are
     * undefined. Returns NULL when memory has run out. [any-thread] Since 1.0.
     */
    void *(*alloc)(void *self, size_t bytes, size_t align);
    /**
     * Free a block; @p bytes is the size it was allocated with. NULL is ignored.
     * [any-thread] Since 1.0.
     */
    void (*free)(void *self, void *ptr, size_t bytes);
} ferrum_allocator_t;

/** Frozen least size of ferrum_allocator_t. */
#define FERRUM_ALLOCATOR_MIN_SIZE 32u

/** Log levels; a logger drops what is above its own level. */
typedef uint32_t ferrum_log_level_t;
enum {
    FERRUM_LOG_ERROR = 0,
    FERRUM_LOG_WARN = 1,
    FERRUM_LOG_INFO = 2,
    FERRUM_LOG_DEBUG = 3
};

/** Where messages go. The first detector of a failure logs it; callers only pass it on. */
typedef struct ferrum_logger {
    ferrum_head_t head;
    void *self;
    ferrum_log_level_t level; /**< most verbose level that is wanted; check before formatting */
    uint32_t reserved;        /**< zero */
    /**
     * One line of UTF-8 without newline; copied before the call returns.
     * [any-thread] Since 1.0.
     */
    void (*log)(void *self, ferrum_log_level_t level, const char *message);
} ferrum_logger_t;

/** Frozen least size of ferrum_logger_t. */
#define FERRUM_LOGGER_MIN_SIZE 32u

/**
 * Body of a parallel region. Called once per team member with its number @p thread < @p width.
 * Must not start another region on the same executor.
 */
typedef void ferrum_task_fn(void *arg, uint32_t thread, uint32_t width);

/**
 * A team of threads that the host owns. The calling thread is member 0 of every region.
 * One executor serves one context at a time; independent contexts use independent executors.
 */
typedef struct ferrum_executor {
    ferrum_head_t head;
    void *self;
    uint32_t width;    /**< team size, at least 1; fixed for the executor's life */
    uint32_t reserved; /**< zero */
    /**
     * Run @p fn on all members and return when all have returned. [one-per-context] Since 1.0.
     */
    void (*run)(void *self, ferrum_task_fn *fn, void *arg);
    /**
     * Inside a region: wait until every member has arrived. All members must call it the same
     * number of times. Orders memory between members. Since 1.0.
     */
    void (*barrier)(void *self, uint32_t thread);
} ferrum_executor_t;

/** Frozen least size of ferrum_executor_t. */
#define FERRUM_EXECUTOR_MIN_SIZE 40u

/** Everything a plugin may use. Lives at least as long as the plugin is loaded. */
typedef struct ferrum_host {
    ferrum_head_t head;
    uint32_t abi_minor;                  /**< minor that the host was built with */
    uint32_t abi_minor_min;              /**< least minor that it accepts from a plugin */
    const ferrum_allocator_t *allocator; /**< never NULL */
    const ferrum_logger_t *logger;       /**< never NULL */
    void *self;                          /**< first argument of the functions below */
    /**
     * Value of an option by its full variable name ("FERRUM_CPU_MASK"), or NULL when unset. The
     * host reads the environment once; a plugin asks here and never calls getenv. The text stays
     * valid while the plugin is loaded. [any-thread] Since 1.0.
     */
    const char *(*option)(void *self, const char *name);
    /**
     * Run @p fn on as many threads as the host can spare now, the calling one among them, and
     * return when all have returned; for work that belongs to no context, such as packing weights.
     * `width` is at least 1 and differs from call to call. There is no barrier, and @p fn must not
     * come back here. NULL: the calling thread alone. [any-thread] Since 1.0.
     */
    void (*spread)(void *self, ferrum_task_fn *fn, void *arg);
} ferrum_host_t;

/** Frozen least size of ferrum_host_t. */
#define FERRUM_HOST_MIN_SIZE 48u

#ifdef __cplusplus
}
#endif

#endif /* FERRUM_HOST_H */
