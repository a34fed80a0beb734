/* SPDX-License-Identifier: MIT */
/* Errors, logging and the way from flags to an open runtime. */
#include "tools/ferrum/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

cli_backend_options_t cli_backend;

struct poptOption cli_backend_table[] = {
    {"backend", 'b', POPT_ARG_STRING, &cli_backend.backend, 0,
     "name, list such as cuda,cpu, path of a .so, or auto (default: FERRUM_BACKEND)", "SPEC"},
    {"threads", 't', POPT_ARG_INT, &cli_backend.threads, 0,
     "threads (default: FERRUM_THREADS, else one per core)", "N"},
    {"verbose", 'v', POPT_ARG_NONE, &cli_backend.verbose, 0, "log everything to stderr", NULL},
    POPT_TABLEEND};

int cli_error(int code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("ferrum: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    return code;
}

int cli_fail(const ferrum_error_t *err, ferrum_status_t status, int otherwise)
{
    int code = otherwise;
    if (status == FERRUM_OUT_OF_MEMORY || status == FERRUM_RESOURCE_EXHAUSTED)
        code = CLI_RESOURCES;
    else if (status == FERRUM_CANCELLED && cli_interrupted)
        code = CLI_INTERRUPTED;
    return cli_error(code, "%s", err->message[0] ? err->message : "failed without a message");
}

int cli_finish_output(void)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return cli_error(CLI_FAILED, "cannot write the output: %s", strerror(errno));
    return CLI_OK;
}

/* A command that has not started cannot free what popt copied for it. */
static void free_texts(const struct poptOption *table)
{
    for (; table->arg != NULL; table++) {
        if ((table->argInfo & POPT_ARG_MASK) != POPT_ARG_STRING)
            continue;
        free(*(char **)table->arg);
        *(char **)table->arg = NULL;
    }
}

int cli_parse(int argc, const char **argv, const struct poptOption *table, const char *usage,
              poptContext *out_context, bool *out_help)
{
    int help = 0;
    struct poptOption all[] = {
        {NULL, '\0', POPT_ARG_INCLUDE_TABLE, (void *)(uintptr_t)table, 0, "Options:", NULL},
        {"help", 'h', POPT_ARG_NONE, &help, 0, "show this help", NULL},
        POPT_TABLEEND};
    *out_help = false;
    *out_context = NULL;
    poptContext context = poptGetContext("ferrum", argc, argv, all, 0);
    if (context == NULL)
        return cli_error(CLI_RESOURCES, "out of memory");
    poptSetOtherOptionHelp(context, usage);
    int rc;
    while ((rc = poptGetNextOpt(context)) > 0)
        ;
    int result = CLI_OK;
    if (rc < -1) {
        result =
            cli_error(CLI_USAGE, "%s: %s; ferrum %s --help lists the options",
                      poptBadOption(context, POPT_BADOPTION_NOALIAS), poptStrerror(rc), argv[0]);
    } else if (help) {
        argv[0] = "ferrum"; /* popt prints it before the usage */
        poptPrintHelp(context, stdout, 0);
        *out_help = true;
        result = cli_finish_output();
    }
    if (result != CLI_OK || *out_help) {
        poptFreeContext(context);
        free_texts(table);
        return result;
    }
    *out_context = context;
    return CLI_OK;
}

static void log_line(void *self, ferrum_log_level_t level, const char *message)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    (void)self;
    fprintf(stderr, "ferrum: %s: %s\n", names[level <= FERRUM_LOG_DEBUG ? level : FERRUM_LOG_DEBUG],
            message);
}

const ferrum_logger_t *cli_logger(const ferrum_options_t *options)
{
    static ferrum_logger_t logger = {FERRUM_HEAD(ferrum_logger_t), NULL, FERRUM_LOG_WARN, 0,
                                     log_line};
    if (cli_backend.verbose)
        logger.level = FERRUM_LOG_DEBUG;
    else if (options != NULL && ferrum_options_get(options, "FERRUM_LOG_LEVEL") != NULL)
        logger.level = (ferrum_log_level_t)ferrum_options_uint(options, "FERRUM_LOG_LEVEL");
    /* Who asks for a trace wants to see it. */
    if (options != NULL && logger.level < FERRUM_LOG_INFO &&
        (ferrum_options_switch(options, "FERRUM_MOE_PROFILE") == 1 ||
         ferrum_options_switch(options, "FERRUM_MOE_LOAD_TRACE") == 1))
        logger.level = FERRUM_LOG_INFO;
    return &logger;
}

ferrum_status_t cli_options(ferrum_options_t **out_options, ferrum_error_t *err)
{
    ferrum_options_t *options;
    ferrum_status_t status = ferrum_options_from_env(cli_logger(NULL), &options, err);
    if (status != FERRUM_OK)
        return status;
    if (cli_backend.backend != NULL)
        status = ferrum_options_set(options, "FERRUM_BACKEND", cli_backend.backend, err);
    if (status == FERRUM_OK && cli_backend.threads != 0) {
        char text[16];
        snprintf(text, sizeof text, "%d", cli_backend.threads);
        status = ferrum_options_set(options, "FERRUM_THREADS", text, err);
    }
    if (status != FERRUM_OK) {
        ferrum_options_free(options);
        return status;
    }
    *out_options = options;
    return FERRUM_OK;
}

int cli_open_runtime(ferrum_runtime_t **out_runtime)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_options_t *options;
    ferrum_status_t status = cli_options(&options, &err);
    if (status != FERRUM_OK)
        return cli_fail(&err, status, CLI_USAGE);
    ferrum_runtime_options_t runtime_options = {
        .head = FERRUM_HEAD(ferrum_runtime_options_t),
        .options = options,
        .logger = cli_logger(options),
    };
    status = ferrum_runtime_open(&runtime_options, out_runtime, &err);
    ferrum_options_free(options);
    return status == FERRUM_OK ? CLI_OK : cli_fail(&err, status, CLI_BACKEND);
}

/* Redrawn at most ten times a second, erased when done, silent when stderr is not a terminal. */
typedef struct progress_bar {
    bool shown;
    double last;
} progress_bar_t;

static int draw_progress(void *arg, uint64_t done, uint64_t total)
{
    progress_bar_t *bar = arg;
    if (isatty(STDERR_FILENO) && total > 0 && (cli_now() - bar->last > 0.1)) {
        enum {
            WIDTH = 32
        };
        char text[24];
        int filled = (int)((double)done / (double)total * WIDTH);
        fprintf(stderr, "\rloading [%-*.*s] %3d %% of %s", WIDTH, filled,
                "################################", (int)(100.0 * (double)done / (double)total),
                cli_bytes(total, text));
        fflush(stderr);
        bar->last = cli_now();
        bar->shown = true;
    }
    return cli_interrupted;
}

int cli_open_model(const char *path, uint32_t kv_capacity, uint32_t max_sequences,
                   ferrum_runtime_t **out_runtime, ferrum_model_t **out_model)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    progress_bar_t bar = {false, 0};
    ferrum_model_options_t options = {
        .head = FERRUM_HEAD(ferrum_model_options_t),
        .kv_capacity = kv_capacity,
        .max_sequences = max_sequences,
        .progress = draw_progress,
        .progress_arg = &bar,
    };
    int rc = cli_open_runtime(out_runtime);
    if (rc != CLI_OK)
        return rc;
    ferrum_status_t status = ferrum_model_open(*out_runtime, path, &options, out_model, &err);
    if (bar.shown)
        fprintf(stderr, "\r%*s\r", 70, "");
    if (status == FERRUM_OK)
        return CLI_OK;
    ferrum_runtime_close(*out_runtime);
    *out_runtime = NULL;
    bool backend = status == FERRUM_DEVICE_ERROR || status == FERRUM_DEVICE_LOST ||
                   (status == FERRUM_UNSUPPORTED && err.reason == FERRUM_REASON_NOT_IMPLEMENTED);
    return cli_fail(&err, status, backend ? CLI_BACKEND : CLI_MODEL);
}

const char *cli_bytes(uint64_t bytes, char *out)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    snprintf(out, 24, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return out;
}

char *cli_read_text(const char *path, size_t *out_bytes)
{
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    if (file == NULL)
        return NULL;
    size_t used = 0, capacity = 1 << 16;
    char *text = malloc(capacity);
    while (text != NULL) {
        used += fread(text + used, 1, capacity - used - 1, file);
        if (used + 1 < capacity)
            break;
        capacity *= 2;
        char *grown = realloc(text, capacity);
        if (grown == NULL)
            free(text);
        text = grown;
    }
    if (text != NULL && ferror(file)) {
        free(text);
        text = NULL;
    }
    if (text != NULL) {
        text[used] = '\0';
        *out_bytes = used;
    }
    if (file != stdin)
        fclose(file);
    return text;
}

double cli_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}
