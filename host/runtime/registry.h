/* SPDX-License-Identifier: MIT */
/**
 * @file registry.h
 * @brief What a swap must carry over to another generation, and the word by which a session keeps a
 *        swap out of its forward passes.
 *
 * Every session, layer, set of model weights and model handle is an *object* of its runtime. It has
 * one side that serves and, during a swap, another one: being built before the exchange, waiting to
 * be released after it.
 *
 * ## Memory order
 *
 * A *gate* is one word of a session with two bits, HELD (a pass is running) and CLOSED (a swap
 * keeps the session out). Its four transitions are read-modify-writes of that one word:
 *
 *     session: enter   compare-exchange 0 -> HELD,    acquire
 *              leave   and ~HELD,                     release
 *     swapper: close   or CLOSED, then wait for !HELD, acquire
 *              open    and ~CLOSED,                   release
 *
 * Enter succeeds only on 0 and close counts as done only without HELD, so a pass and a closed gate
 * exclude each other. Whatever a pass wrote is visible to the swapper, which reads the word after
 * `leave` released it; whatever the swapper wrote is visible to the next pass, which reads the word
 * after `open` released it (later read-modify-writes of the same word continue either release
 * sequence). So all fields that a swap exchanges are plain: sessions read them between enter and
 * leave, the swapper writes them while *every* gate of the runtime is closed. Everybody else reads
 * them under the registry's lock.
 *
 * A wait takes the lock; a thread that clears a bit takes it too before it wakes others, but only
 * if it saw that somebody waits (leave: CLOSED set), so an undisturbed pass costs two atomic
 * operations and touches no shared cache line.
 */
#ifndef FERRUM_HOST_REGISTRY_H
#define FERRUM_HOST_REGISTRY_H

#include "host/runtime/generation.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/** Weight formats in use, for the self-test. */
typedef struct ferrum_formats_used {
    uint64_t blocks;    /**< bit f: FERRUM_FORMAT_ f < 64 */
    uint32_t gptq_bits; /**< bit b: GPTQ of b bits */
    uint32_t reserved;
} ferrum_formats_used_t;

/** What a swap asks of an object. Never called on the same object at the same time. */
typedef struct ferrum_object_ops {
    /** Make the other side on @p next; nobody is held up. */
    ferrum_status_t (*rebuild)(void *self, const ferrum_generation_t *next, ferrum_error_t *err);
    /** Try the other side; @p out_error is relative to the bound. NULL: nothing to try. */
    ferrum_status_t (*self_test)(void *self, double *out_error, ferrum_error_t *err);
    /** Move what requests need; every gate is closed. NULL: nothing to move. */
    ferrum_status_t (*migrate)(void *self, uint32_t *requests, ferrum_error_t *err);
    /** Exchange the sides; every gate is closed. Cannot fail. */
    void (*publish)(void *self);
    /** Release the side that does not serve, if there is one. */
    void (*discard)(void *self);
    /** Memory of the serving side, and of the other one; NULL: too little to count. */
    void (*bytes)(void *self, uint64_t *out_serving, uint64_t *out_other);
    /** Add the formats of its weights; NULL: none. */
    void (*formats)(void *self, ferrum_formats_used_t *formats);
} ferrum_object_ops_t;

typedef struct ferrum_gate {
    _Atomic uint32_t word;
} ferrum_gate_t;

/** An entry; embedded in the object, zero before it is added. */
typedef struct ferrum_object {
    const ferrum_object_ops_t *ops;
    void *self;
    ferrum_gate_t *gate; /**< of a session, else NULL */
    struct ferrum_object *next, *previous;
    bool rebuilt; /**< the other side exists, for the swap that is running */
    bool busy;    /**< a swap works on it without the lock: it cannot be freed now */
} ferrum_object_t;

/** Objects of one runtime in the order of their making, and who may change the list. */
typedef struct ferrum_registry {
    pthread_mutex_t lock;
    pthread_cond_t changed; /**< anything below, or a gate */
    ferrum_object_t *first, *last;
    uint32_t builders; /**< threads that make or free objects on the generation that serves */
    bool exchanging;   /**< steps 4 to 6 of a swap: the list stays as it is */
    bool swapping;
    bool closing;
} ferrum_registry_t;

/** Errors: RESOURCE_EXHAUSTED. */
ferrum_status_t ferrum_registry_init(ferrum_registry_t *registry, ferrum_error_t *err);
void ferrum_registry_destroy(ferrum_registry_t *registry);

/** Begin to make or free objects: until the end the serving generation stays. Does not nest.
 *  [any-thread] */
void ferrum_registry_begin(ferrum_registry_t *registry);
void ferrum_registry_end(ferrum_registry_t *registry);
/** Enter the finished @p object, between begin and end. */
void ferrum_registry_add(ferrum_registry_t *registry, ferrum_object_t *object,
                         const ferrum_object_ops_t *ops, void *self, ferrum_gate_t *gate);
/** Take @p object out, between begin and end, and release its other side; one that was never added
 *  is ignored. */
void ferrum_registry_remove(ferrum_registry_t *registry, ferrum_object_t *object);

/* ---- gates ---- */

enum {
    FERRUM_GATE_HELD = 1u,
    FERRUM_GATE_CLOSED = 2u
};

/** The slow way in: waits until a swap lets the session go on.
 *  Errors: BUSY, the session is in use by another thread. */
ferrum_status_t ferrum_gate_enter_slowly(ferrum_registry_t *registry, ferrum_gate_t *gate,
                                         ferrum_error_t *err);
/** Tell a swap that waits. */
void ferrum_gate_wake(ferrum_registry_t *registry);

/** Begin a forward pass. [one-per-session] Errors: BUSY. */
static inline ferrum_status_t ferrum_gate_enter(ferrum_registry_t *registry, ferrum_gate_t *gate,
                                                ferrum_error_t *err)
{
    uint32_t idle = 0;
    if (atomic_compare_exchange_strong_explicit(&gate->word, &idle, FERRUM_GATE_HELD,
                                                memory_order_acquire, memory_order_relaxed))
        return FERRUM_OK;
    return ferrum_gate_enter_slowly(registry, gate, err);
}

/** End it. [one-per-session] */
static inline void ferrum_gate_leave(ferrum_registry_t *registry, ferrum_gate_t *gate)
{
    if (atomic_fetch_and_explicit(&gate->word, ~FERRUM_GATE_HELD, memory_order_release) &
        FERRUM_GATE_CLOSED)
        ferrum_gate_wake(registry);
}

/** Whether a swap waits for the pass that holds @p gate. [one-per-session] */
static inline bool ferrum_gate_wanted(const ferrum_gate_t *gate)
{
    return atomic_load_explicit(&gate->word, memory_order_relaxed) & FERRUM_GATE_CLOSED;
}

/* ---- for swaps; lock held ---- */

/** Ask a session to stop after its pass. */
void ferrum_gate_close(ferrum_gate_t *gate);
/** Wait for that until @p deadline_ns of CLOCK_MONOTONIC; false when it comes first. */
bool ferrum_gate_wait(ferrum_registry_t *registry, ferrum_gate_t *gate, int64_t deadline_ns);
/** Let the session go on. */
void ferrum_gate_open(ferrum_registry_t *registry, ferrum_gate_t *gate);

/** CLOCK_MONOTONIC in ns. */
int64_t ferrum_now_ns(void);

#endif /* FERRUM_HOST_REGISTRY_H */
