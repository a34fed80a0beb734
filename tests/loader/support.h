/* SPDX-License-Identifier: MIT */
/**
 * @file support.h
 * @brief Loaders, plugin files and leak counts for the tests of the loader.
 */
#ifndef FERRUM_TEST_LOADER_SUPPORT_H
#define FERRUM_TEST_LOADER_SUPPORT_H

#include "plugin/internal.h"
#include "plugin/sys.h"
#include "tests/support/expect.h"
#include "tests/support/files.h"

#include <ferrum/util.h>

/** Lines that a loader logged, each "LEVEL message\n". */
typedef struct log_capture {
    ferrum_logger_t logger;
    char text[16384];
} log_capture_t;

/** A logger that keeps everything up to @p level. */
void capture_init(log_capture_t *out_capture, ferrum_log_level_t level);

/** Path of a test plugin, or of a built backend ("cpu", "metal-stub"). */
void plugin_path(const char *name, ferrum_test_path_t out_path);
/** Whether there is a file. */
bool file_exists(const char *path);
/** Copy a file. */
void copy_file(const char *from, const char *to);

/** A loader whose options are only those in the list: name, value, ..., NULL. */
ferrum_loader_t *new_loader(const ferrum_logger_t *logger, ...);
/** The loader's fixture behaves as @p words say; see fixture.c. */
ferrum_loader_t *fixture_loader(const ferrum_logger_t *logger, const char *words);

/** What must be as before once everything is closed. */
typedef struct trace {
    long fds;
    long mappings; /**< of plugin images */
} trace_t;
trace_t take_trace(void);
void expect_same_trace(const trace_t *before);

/** Whether the build is instrumented, so that timings and repetitions have to be modest. */
bool is_sanitized(void);

#endif /* FERRUM_TEST_LOADER_SUPPORT_H */
