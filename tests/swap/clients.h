/* SPDX-License-Identifier: MIT */
/**
 * @file clients.h
 * @brief Threads that decode on handles of one model while something else happens to it, and what
 *        they saw: failed calls, wrong tokens, how long calls took.
 */
#ifndef FERRUM_TEST_SWAP_CLIENTS_H
#define FERRUM_TEST_SWAP_CLIENTS_H

#include <ferrum/model.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

enum {
    CLIENT_REQUESTS = 2, /* of one client at a time, decoded as a batch */
    CLIENT_TOKENS = 24,  /* generated per request */
    CLIENT_BUCKETS = 1024
};

/** Durations in buckets of 1/16 of a power of two of nanoseconds. */
typedef struct durations {
    uint64_t count[CLIENT_BUCKETS];
    uint64_t total, longest_ns;
} durations_t;

void durations_add(durations_t *durations, uint64_t ns);
void durations_merge(durations_t *into, const durations_t *from);
/** Upper end of the bucket of the fraction @p part of all, in milliseconds. */
double durations_ms(const durations_t *durations, double part);

typedef struct client {
    pthread_t thread;
    ferrum_model_t *model; /**< of this client alone */
    atomic_bool *stop;
    uint32_t seed, vocab;
    uint32_t expected[CLIENT_REQUESTS][CLIENT_TOKENS]; /**< of an undisturbed run */
    uint64_t calls, failed, wrong, rounds;
    ferrum_error_t error; /**< of the first failed call */
    durations_t durations;
} client_t;

/** Fill @c expected; the model is not disturbed meanwhile. */
void client_learn(client_t *client);
/** Run until *stop, comparing. */
void client_start(client_t *client);
void client_join(client_t *client);

#endif /* FERRUM_TEST_SWAP_CLIENTS_H */
