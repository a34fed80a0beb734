/* SPDX-License-Identifier: MIT */
#include "config.h"

#include "tests/loader/support.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void keep_line(void *self, ferrum_log_level_t level, const char *message)
{
    log_capture_t *capture = self;
    size_t used = strlen(capture->text);
    (void)snprintf(capture->text + used, sizeof capture->text - used, "%u %s\n", level, message);
}

void capture_init(log_capture_t *out_capture, ferrum_log_level_t level)
{
    out_capture->logger = (ferrum_logger_t){.head = FERRUM_HEAD(ferrum_logger_t),
                                            .self = out_capture,
                                            .level = level,
                                            .log = keep_line};
    out_capture->text[0] = '\0';
}

void plugin_path(const char *name, ferrum_test_path_t out_path)
{
    const char *build = getenv("FERRUM_TEST_BUILDDIR");
    bool backend = strcmp(name, "cpu") == 0 || strcmp(name, "metal-stub") == 0;
    (void)snprintf(out_path, FERRUM_TEST_PATH_BYTES, "%s/%s%s/.libs/%s.so", build ? build : ".",
                   backend ? "backends/" : "tests/loader", backend ? name : "", name);
}

bool file_exists(const char *path)
{
    return access(path, R_OK) == 0;
}

void copy_file(const char *from, const char *to)
{
    size_t bytes;
    uint8_t *data = ferrum_test_read_file(from, &bytes);
    ck_assert_msg(data != NULL, "%s does not exist", from);
    ferrum_test_write_file(to, data, bytes);
    free(data);
}

ferrum_loader_t *new_loader(const ferrum_logger_t *logger, ...)
{
    ferrum_options_t *options;
    ferrum_loader_t *loader;
    va_list args;
    EXPECT_OK(ferrum_options_new(&options, &err));
    va_start(args, logger);
    for (const char *name = va_arg(args, const char *); name; name = va_arg(args, const char *))
        EXPECT_OK(ferrum_options_set(options, name, va_arg(args, const char *), &err));
    va_end(args);
    EXPECT_OK(ferrum_loader_new(options, NULL, logger, &loader, &err));
    ferrum_options_free(options);
    return loader;
}

ferrum_loader_t *fixture_loader(const ferrum_logger_t *logger, const char *words)
{
    return new_loader(logger, "FERRUM_CPU_MASK", words, NULL);
}

static long count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    long count = 0;
    ck_assert(dir != NULL);
    while (readdir(dir))
        count++;
    (void)closedir(dir);
    return count;
}

static long count_mappings(void)
{
    char line[512];
    long count = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    ck_assert(maps != NULL);
    while (fgets(line, sizeof line, maps))
        count += strstr(line, "ferrum-plugin") != NULL;
    (void)fclose(maps);
    return count;
}

trace_t take_trace(void)
{
    return (trace_t){count_fds(), count_mappings()};
}

void expect_same_trace(const trace_t *before)
{
    trace_t now = take_trace();
    ck_assert_int_eq(now.fds, before->fds);
    ck_assert_int_eq(now.mappings, before->mappings);
}

bool is_sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#else
    return false;
#endif
}
