/* SPDX-License-Identifier: MIT */
/*
 * ferrum-probe IMAGE_FD ANSWER_FD [NAME=VALUE]...: map the plugin behind IMAGE_FD, query it and run
 * its probe, saying each step to ANSWER_FD before it is taken. The loader starts this program and
 * watches how far it gets; what the plugin answers does not matter here, only that it comes back.
 */
#define _GNU_SOURCE
#include "probe_stages.h"

#include <ferrum/plugin.h>

#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

static int answer_fd;

static void say(char stage)
{
    if (write(answer_fd, &stage, 1) != 1)
        _exit(1); /* the loader is gone */
}

static void *alloc(void *self, size_t bytes, size_t align)
{
    void *block = NULL;
    (void)self;
    return posix_memalign(&block, align < sizeof block ? sizeof block : align, bytes) == 0 ? block
                                                                                           : NULL;
}

static void release(void *self, void *block, size_t bytes)
{
    (void)self;
    (void)bytes;
    free(block);
}

static void drop(void *self, ferrum_log_level_t level, const char *message)
{
    (void)self;
    (void)level;
    (void)message;
}

/* The options are the arguments, as the loader has them. */
static const char *option(void *self, const char *name)
{
    size_t n = strlen(name);
    for (char **at = self; *at; at++)
        if (strncmp(*at, name, n) == 0 && (*at)[n] == '=')
            return *at + n + 1;
    return NULL;
}

static void probe(const char *path, char **options)
{
    static ferrum_allocator_t allocator = {FERRUM_HEAD(ferrum_allocator_t), NULL, alloc, release};
    static ferrum_logger_t logger = {FERRUM_HEAD(ferrum_logger_t), NULL, FERRUM_LOG_ERROR, 0, drop};
    ferrum_host_t host = {.head = FERRUM_HEAD(ferrum_host_t),
                          .abi_minor = FERRUM_ABI_MINOR,
                          .allocator = &allocator,
                          .logger = &logger,
                          .self = options,
                          .option = option};
    ferrum_plugin_t plugin = {.head = FERRUM_HEAD(ferrum_plugin_t)};
    ferrum_probe_t result = {.head = FERRUM_HEAD(ferrum_probe_t)};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_plugin_query_fn *query = NULL;
    say(FERRUM_STAGE_LOAD);
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *symbol = handle ? dlsym(handle, FERRUM_PLUGIN_SYMBOL) : NULL;
    if (!symbol)
        return; /* the loader will see that itself, and say why */
    memcpy(&query, &symbol, sizeof query);
    say(FERRUM_STAGE_QUERY);
    if (query(&host, &plugin) != FERRUM_OK || plugin.head.size < FERRUM_PLUGIN_MIN_SIZE)
        return;
    say(FERRUM_STAGE_INTERFACES);
    if (plugin.get_interface) {
        (void)plugin.get_interface(FERRUM_INTERFACE_BACKEND, 0);
        (void)plugin.get_interface(FERRUM_INTERFACE_QUANT_LLM, 0);
        (void)plugin.get_interface(FERRUM_INTERFACE_MOE_FUSED, 0);
    }
    say(FERRUM_STAGE_PROBE);
    if (plugin.probe)
        (void)plugin.probe(&host, &result, &err);
}

int main(int argc, char **argv)
{
    const struct rlimit no_core = {0, 0};
    char path[64];
    if (argc < 3) {
        fprintf(stderr, "ferrum-probe is started by libferrum; see docs/writing-a-backend.md\n");
        return 2;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)setrlimit(RLIMIT_CORE, &no_core);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", atoi(argv[1]));
    answer_fd = atoi(argv[2]);
    probe(path, argv + 3);
    say(FERRUM_STAGE_DONE);
    _exit(0); /* not the plugin's exit handlers */
}
