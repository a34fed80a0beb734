/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include "tests/swap/clients.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- durations ---- */

static uint32_t bucket_of(uint64_t ns)
{
    uint32_t power = 0;
    while (ns >> power > 31)
        power++;
    uint32_t bucket = power * 16 + (uint32_t)(ns >> power);
    return bucket < CLIENT_BUCKETS ? bucket : CLIENT_BUCKETS - 1;
}

static uint64_t end_of(uint32_t bucket)
{
    if (bucket < 32)
        return bucket + 1;
    uint32_t power = bucket / 16 - 1;
    return (uint64_t)(bucket % 16 + 17) << power;
}

void durations_add(durations_t *durations, uint64_t ns)
{
    durations->count[bucket_of(ns)]++;
    durations->total++;
    if (ns > durations->longest_ns)
        durations->longest_ns = ns;
}

void durations_merge(durations_t *into, const durations_t *from)
{
    for (int i = 0; i < CLIENT_BUCKETS; i++)
        into->count[i] += from->count[i];
    into->total += from->total;
    if (from->longest_ns > into->longest_ns)
        into->longest_ns = from->longest_ns;
}

double durations_ms(const durations_t *durations, double part)
{
    uint64_t below = 0, wanted = (uint64_t)(part * (double)durations->total);
    for (uint32_t i = 0; i < CLIENT_BUCKETS; i++) {
        below += durations->count[i];
        if (below > wanted || below == durations->total) {
            uint64_t end = end_of(i);
            return (double)(end < durations->longest_ns ? end : durations->longest_ns) * 1e-6;
        }
    }
    return 0;
}

/* ---- a client ---- */

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint32_t argmax(const float *values, uint32_t count)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++)
        if (values[i] > values[best])
            best = i;
    return best;
}

/* What a server does between two tokens. It leaves the processor to the thread that swaps, which
 * has to share it with all clients. */
static void think(void)
{
    const struct timespec pause = {0, 500000};
    (void)nanosleep(&pause, NULL);
}

static bool note(client_t *client, ferrum_status_t status, const ferrum_error_t *err,
                 uint64_t begin_ns)
{
    durations_add(&client->durations, now_ns() - begin_ns);
    client->calls++;
    if (status == FERRUM_OK)
        return true;
    if (client->failed++ == 0)
        client->error = *err;
    return false;
}

/* Prompts of different lengths, some longer than a block of the cache. */
static bool prefill(client_t *client, uint64_t id, float *logits)
{
    uint32_t prompt[40], length = 3 + (client->seed * 7 + (uint32_t)id * 13) % 34;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    for (uint32_t i = 0; i < length; i++)
        prompt[i] = (client->seed * 31 + (uint32_t)id * 17 + i * i * 5 + i) % client->vocab;
    uint64_t begin = now_ns();
    ferrum_status_t status = ferrum_model_prefill(client->model, id, prompt, length, logits, &err);
    return note(client, status, &err, begin);
}

/* One round: all requests from their prompts to their last tokens. */
static void run_round(client_t *client, float *logits,
                      uint32_t out_tokens[CLIENT_REQUESTS][CLIENT_TOKENS])
{
    uint64_t ids[CLIENT_REQUESTS];
    uint32_t tokens[CLIENT_REQUESTS];
    bool ok = true;
    for (uint32_t r = 0; r < CLIENT_REQUESTS; r++) {
        ids[r] = r;
        ok = ok && prefill(client, r, logits + (size_t)r * client->vocab);
    }
    for (uint32_t t = 0; ok && t < CLIENT_TOKENS; t++) {
        ferrum_error_t err = FERRUM_ERROR_INIT;
        for (uint32_t r = 0; r < CLIENT_REQUESTS; r++) {
            tokens[r] = argmax(logits + (size_t)r * client->vocab, client->vocab);
            out_tokens[r][t] = tokens[r];
        }
        uint64_t begin = now_ns();
        ferrum_status_t status =
            ferrum_model_decode_batch(client->model, ids, tokens, CLIENT_REQUESTS, logits, &err);
        ok = note(client, status, &err, begin);
        think();
    }
    for (uint32_t r = 0; r < CLIENT_REQUESTS; r++)
        ferrum_model_release(client->model, r);
}

static float *room(const client_t *client)
{
    float *logits = malloc((size_t)CLIENT_REQUESTS * client->vocab * sizeof *logits);
    if (!logits) {
        (void)fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return logits;
}

void client_learn(client_t *client)
{
    float *logits = room(client);
    run_round(client, logits, client->expected);
    free(logits);
}

static void *client_main(void *arg)
{
    client_t *client = arg;
    float *logits = room(client);
    while (!atomic_load(client->stop)) {
        uint32_t tokens[CLIENT_REQUESTS][CLIENT_TOKENS];
        uint64_t failed = client->failed;
        memset(tokens, 0xff, sizeof tokens);
        run_round(client, logits, tokens);
        client->rounds++;
        if (client->failed == failed && memcmp(tokens, client->expected, sizeof tokens) != 0)
            client->wrong++;
    }
    free(logits);
    return NULL;
}

void client_start(client_t *client)
{
    if (pthread_create(&client->thread, NULL, client_main, client) != 0) {
        (void)fprintf(stderr, "no thread for a client\n");
        exit(1);
    }
}

void client_join(client_t *client)
{
    (void)pthread_join(client->thread, NULL);
}
