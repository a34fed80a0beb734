/* SPDX-License-Identifier: MIT */
/* A server in small: every client has a thread and a handle of one model; the backend is exchanged
 * under them while they generate.
 *     cc server_swap.c $(pkg-config --cflags --libs ferrum) -pthread -o server_swap
 *     ./server_swap MODEL BACKEND [BACKEND...]
 * Each BACKEND, a name or the path of a .so, is swapped to in turn; then the clients finish. */
#include <ferrum/model.h>
#include <ferrum/swap.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    CLIENTS = 4,
    TOKENS = 12
};

typedef struct client {
    pthread_t thread;
    ferrum_model_t *model; /* its own handle: requests, cache and threads; the weights are shared */
    uint32_t first[TOKENS], again[TOKENS], *tokens, count;
    unsigned requests, failed, different;
} client_t;

static atomic_int stop;

static void check(ferrum_status_t status, const ferrum_error_t *err)
{
    if (status == FERRUM_OK)
        return;
    fprintf(stderr, "server_swap: %s\n", err->message);
    exit(1);
}

static int on_token(void *arg, uint32_t token, const char *text, size_t text_bytes)
{
    client_t *client = arg;
    (void)text;
    (void)text_bytes;
    client->tokens[client->count++] = token;
    return 0;
}

static void request(client_t *client, uint32_t *tokens)
{
    const uint32_t prompt[] = {1, 2, 3, 5, 8, 13};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_generate_options_t options = {
        .head = FERRUM_HEAD(ferrum_generate_options_t), .max_tokens = TOKENS, .ignore_end = 1};
    client->tokens = tokens;
    client->count = 0;
    if (ferrum_generate(client->model, 0, prompt, sizeof prompt / sizeof prompt[0], &options,
                        on_token, client, NULL, &err) != FERRUM_OK) {
        fprintf(stderr, "server_swap: a request failed: %s\n", err.message);
        client->failed++;
    }
    client->requests++;
}

/* It knows nothing of swaps; a call may just take a little longer. */
static void *serve(void *arg)
{
    client_t *client = arg;
    while (!atomic_load(&stop)) {
        request(client, client->again);
        for (uint32_t i = 0; i < client->count; i++)
            if (client->again[i] != client->first[i]) {
                client->different++; /* another backend may round a close choice differently */
                break;
            }
    }
    return NULL;
}

static void swap_to(ferrum_runtime_t *runtime, const char *backend)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_swap_options_t options = {.head = FERRUM_HEAD(ferrum_swap_options_t),
                                     .backend = backend};
    ferrum_swap_report_t report = {.head = FERRUM_HEAD(ferrum_swap_report_t)};
    if (ferrum_runtime_swap(runtime, &options, &report, &err) != FERRUM_OK)
        printf("still %s: %s\n", report.from, err.message); /* and the clients never notice */
    else
        printf("%s -> %s in %.0f ms, clients held for at most %.2f ms; old one: %s\n", report.from,
               report.to, report.total_ms, report.pause_ms, report.detail);
}

int main(int argc, char **argv)
{
    static client_t clients[CLIENTS];
    ferrum_runtime_t *runtime;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_runtime_options_t runtime_options = {.head = FERRUM_HEAD(ferrum_runtime_options_t),
                                                .threads = 1}; /* of each handle */
    ferrum_model_options_t options = {.head = FERRUM_HEAD(ferrum_model_options_t),
                                      .max_sequences = 1};
    if (argc < 2) {
        fprintf(stderr, "usage: server_swap MODEL [BACKEND...]\n");
        return 2;
    }
    check(ferrum_runtime_open(&runtime_options, &runtime, &err), &err);
    for (int i = 0; i < CLIENTS; i++) {
        if (i == 0)
            check(ferrum_model_open(runtime, argv[1], &options, &clients[0].model, &err), &err);
        else
            check(ferrum_model_share(clients[0].model, &options, &clients[i].model, &err), &err);
        request(&clients[i], clients[i].first);
        if (pthread_create(&clients[i].thread, NULL, serve, &clients[i]) != 0)
            return 1;
    }
    for (int i = 2; i < argc; i++)
        swap_to(runtime, argv[i]);
    atomic_store(&stop, 1);
    unsigned requests = 0, failed = 0, different = 0;
    for (int i = 0; i < CLIENTS; i++) {
        (void)pthread_join(clients[i].thread, NULL);
        requests += clients[i].requests;
        failed += clients[i].failed;
        different += clients[i].different;
        ferrum_model_free(clients[i].model);
    }
    ferrum_runtime_close(runtime);
    printf("%u requests, %u failed, %u with other tokens than the first\n", requests, failed,
           different);
    return failed != 0;
}
