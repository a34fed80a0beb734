/* SPDX-License-Identifier: MIT */
/**
 * @file cli.h
 * @brief What the verbs of the `ferrum` program share: options, errors, exit codes, output.
 *
 * Results go to stdout, everything else to stderr. An error is one line, `ferrum: ...`, and an
 * exit code from the table below, which ferrum(1) documents.
 */
#ifndef FERRUM_CLI_H
#define FERRUM_CLI_H

#include <ferrum/model.h>

#include <popt.h>
#include <signal.h>
#include <stdbool.h>

/** Exit codes; a script may depend on them. */
enum {
    CLI_OK = 0,
    CLI_FAILED = 1,    /**< something else went wrong, such as an unwritable output */
    CLI_USAGE = 2,     /**< wrong flags or arguments */
    CLI_BACKEND = 3,   /**< no usable backend, plugin or device */
    CLI_MODEL = 4,     /**< a model file is missing, broken or of an unsupported kind */
    CLI_RESOURCES = 5, /**< out of memory, KV blocks or another bounded resource */
    CLI_SKIPPED = 77,  /**< check-plugin: nothing wrong, but not everything could be checked here */
    CLI_INTERRUPTED = 130
};

/** One verb. */
typedef struct cli_verb {
    const char *name;
    const char *summary;
    int (*run)(int argc, const char **argv);
} cli_verb_t;

extern const cli_verb_t cli_verbs[];
extern const size_t cli_verb_count;

int cli_generate(int argc, const char **argv);
int cli_bench(int argc, const char **argv);
int cli_info(int argc, const char **argv);
int cli_inspect(int argc, const char **argv);
int cli_check_plugin(int argc, const char **argv);
int cli_env(int argc, const char **argv);

/** Set by SIGINT and SIGTERM; long work looks at it between steps. */
extern volatile sig_atomic_t cli_interrupted;

/** Print `ferrum: message` and return @p code. */
int cli_error(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/** Print an error of the library; the exit code is that of its status where the status decides
 *  (resources, interruption), else @p otherwise. */
int cli_fail(const ferrum_error_t *err, ferrum_status_t status, int otherwise);
/** Flush stdout; CLI_FAILED with a message when it cannot be written (full disk, closed pipe). */
int cli_finish_output(void);

/** Parse @p table over a verb's arguments. @p usage names the operands. Returns CLI_OK with
 *  *out_context set, CLI_USAGE after an error line; --help prints and sets *out_help. */
int cli_parse(int argc, const char **argv, const struct poptOption *table, const char *usage,
              poptContext *out_context, bool *out_help);

/** Options that every verb with a backend takes. */
typedef struct cli_backend_options {
    char *backend;
    int threads;
    int verbose;
} cli_backend_options_t;

/** Storage for the table entries; one per process. */
extern cli_backend_options_t cli_backend;
/** For POPT_ARG_INCLUDE_TABLE. */
extern struct poptOption cli_backend_table[];

/** Logger to stderr at FERRUM_LOG_LEVEL, or DEBUG with --verbose. */
const ferrum_logger_t *cli_logger(const ferrum_options_t *options);
/** The environment's options, with --backend and --threads applied. */
ferrum_status_t cli_options(ferrum_options_t **out_options, ferrum_error_t *err);
/** Open the runtime that the flags and the environment ask for; prints its error. */
int cli_open_runtime(ferrum_runtime_t **out_runtime);
/** Open runtime and model, with a progress bar when stderr is a terminal; prints its error. */
int cli_open_model(const char *path, uint32_t kv_capacity, uint32_t max_sequences,
                   ferrum_runtime_t **out_runtime, ferrum_model_t **out_model);

/** "12.3 MiB" into @p out (at least 24 bytes). */
const char *cli_bytes(uint64_t bytes, char *out);
/** Whole file, or stdin for "-", as a malloc'd, terminated text. */
char *cli_read_text(const char *path, size_t *out_bytes);
/** Monotonic seconds. */
double cli_now(void);

#endif /* FERRUM_CLI_H */
