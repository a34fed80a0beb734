/* SPDX-License-Identifier: MIT */
/*
 * A program that runs with more rights than its caller must not take plugins from the caller's
 * environment. This program makes a setuid copy of itself (for a user with fewer rights than root:
 * what counts is that the ids differ), and lets it look at the options.
 */
#define _GNU_SOURCE
#include "config.h"

#include <ferrum/loader.h>

#include "tests/support/files.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    SKIPPED = 77,
    NOBODY = 65534
};

static const char *const variables[][2] = {
    {"FERRUM_BACKEND", "/somewhere/evil.so"}, {"FERRUM_PLUGIN_PATH", "/somewhere"},
    {"FERRUM_CACHE_DIR", "/somewhere"},       {"FERRUM_PROBE_PROGRAM", "/somewhere/evil"},
    {"FERRUM_DISABLE_UNLOAD", "1"},           {"HOME", "/somewhere"},
    {"XDG_CACHE_HOME", "/somewhere"},
};

/* 0: the environment was ignored; 1: it was not; 77: the system ran us as an ordinary program. */
static int look(const char *expected)
{
    ferrum_options_t *options = NULL;
    size_t count, seen = 0;
    const ferrum_option_info_t *table = ferrum_option_table(&count);
    bool secure = getauxval(AT_SECURE) != 0;
    if (secure != (strcmp(expected, "setuid") == 0))
        return SKIPPED;
    if (ferrum_options_from_env(NULL, &options, NULL) != FERRUM_OK)
        return 2;
    for (size_t i = 0; i < count; i++)
        seen += ferrum_options_get(options, table[i].name) != NULL;
    ferrum_options_free(options);
    return secure ? seen != 0 : seen < 5;
}

static int run(const char *program, const char *expected)
{
    int state;
    pid_t child = fork();
    if (child == 0) {
        (void)execl(program, program, expected, (char *)NULL);
        _exit(SKIPPED);
    }
    if (child < 0 || waitpid(child, &state, 0) != child || !WIFEXITED(state))
        return 3;
    return WEXITSTATUS(state);
}

int main(int argc, char **argv)
{
    if (argc == 2)
        return look(argv[1]);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    printf("skipped: sanitizers do not run in setuid programs\n");
    return SKIPPED;
#endif
    if (geteuid() != 0) {
        printf("skipped: only root can make a setuid program of another user\n");
        return SKIPPED;
    }
    ferrum_test_path_t dir, program;
    size_t bytes;
    uint8_t *self = ferrum_test_read_file("/proc/self/exe", &bytes);
    ferrum_test_make_directory(dir);
    ferrum_test_join(dir, "program", program);
    ferrum_test_write_file(program, self, bytes);
    free(self);
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++)
        (void)setenv(variables[i][0], variables[i][1], 1);
    int plain = SKIPPED, secure = SKIPPED;
    if (chmod(dir, 0755) == 0 && chmod(program, 0755) == 0)
        plain = run(program, "plain");
    if (chown(program, NOBODY, (gid_t)-1) == 0 && chmod(program, 04755) == 0)
        secure = run(program, "setuid");
    ferrum_test_remove_directory(dir);
    printf("ordinary program: %d, setuid program: %d\n", plain, secure);
    if (plain == SKIPPED || secure == SKIPPED) {
        printf("skipped: setuid programs do not work here (a nosuid file system?)\n");
        return SKIPPED;
    }
    return plain || secure;
}
