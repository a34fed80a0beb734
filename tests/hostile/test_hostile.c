/* SPDX-License-Identifier: MIT */
/*
 * Meets every plugin of the table while cpu.so computes on another thread, and does what happens to
 * files while they are loaded.
 */
#include "config.h"

#include "tests/hostile/hostile.h"

#include <dirent.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

ferrum_test_path_t hostile_directory;
static ferrum_test_path_t cache, record_directory, copy;

static const char *build_directory(void)
{
    const char *build = getenv("FERRUM_TEST_BUILDDIR");
    return build ? build : ".";
}

static void built_path(const char *plugin, ferrum_test_path_t out_path)
{
    if (plugin == NULL)
        plugin_path("metal-stub", out_path);
    else if (strncmp(plugin, "hostile", 7) == 0)
        (void)snprintf(out_path, FERRUM_TEST_PATH_BYTES, "%s/tests/hostile/.libs/%s.so",
                       build_directory(), plugin);
    else
        plugin_path(plugin, out_path);
}

static void setup(void)
{
    ferrum_test_make_directory(hostile_directory);
    ferrum_test_make_directory(cache);
    ferrum_test_join(cache, "quarantine", record_directory);
    ferrum_test_join(hostile_directory, "hostile.so", copy);
    guard_start();
}

static void teardown(void)
{
    guard_stop();
    (void)chmod(hostile_directory, 0700);
    (void)rmdir(copy);
    ferrum_test_remove_directory(hostile_directory);
    if (access(record_directory, F_OK) == 0)
        ferrum_test_remove_directory(record_directory);
    ferrum_test_remove_directory(cache);
}

static ferrum_loader_t *loader_for(const hostile_t *h)
{
    ferrum_test_path_t program;
    (void)snprintf(program, sizeof program, "%s/ferrum-probe", build_directory());
    return new_loader(NULL, "FERRUM_CPU_MASK", h->words, "FERRUM_PLUGIN_PATH", hostile_directory,
                      "FERRUM_PROBE_PROGRAM", program, "FERRUM_PROBE_SECONDS",
                      h->status == FERRUM_TIMEOUT ? "2" : "60", "FERRUM_CACHE_DIR", cache, NULL);
}

/* ---- ways to meet one ---- */

static void meet_by_path(const hostile_t *h, ferrum_loader_t *loader)
{
    ferrum_module_t *module = NULL;
    ferrum_unload_report_t report = {.detail = ""};
    if (h->status != FERRUM_OK) {
        EXPECT_FAILS(ferrum_loader_open(loader, copy, &module, &err), h->status, h->text);
        ck_assert_ptr_null(module);
        return;
    }
    char said[600];
    EXPECT_OK(ferrum_loader_open(loader, copy, &module, &err));
    size_t summary = strlen(ferrum_module_candidate(module)->summary);
    ck_assert_uint_lt(summary, sizeof ferrum_module_candidate(module)->summary);
    (void)snprintf(said, sizeof said, "%s; ", ferrum_module_candidate(module)->error.message);
    ferrum_module_release(module, &report);
    (void)snprintf(said + strlen(said), sizeof said - strlen(said), "%s", report.detail);
    ck_assert_msg(strstr(said, h->text) != NULL, "\"%s\" is not in \"%s\"", h->text, said);
}

static void meet_by_auto(const hostile_t *h, ferrum_loader_t *loader)
{
    ferrum_module_t *module = NULL;
    ferrum_error_t error = FERRUM_ERROR_INIT;
    ferrum_candidate_t *list;
    size_t count;
    /* With nothing else to choose from, auto says what it found out. */
    EXPECT_FAILS(ferrum_loader_select(loader, "auto", &module, &err), FERRUM_NOT_FOUND, h->text);
    EXPECT_FAILS(ferrum_loader_select(loader, "auto", &module, &err), FERRUM_NOT_FOUND,
                 "is in quarantine");
    EXPECT_FAILS(ferrum_loader_select(loader, "hostile", &module, &err), FERRUM_BAD_PLUGIN,
                 "is in quarantine");
    EXPECT_OK(ferrum_loader_scan(loader, &list, &count, &err));
    ck_assert_uint_eq(count, 1);
    ck_assert_int_eq(list[0].status, FERRUM_BAD_PLUGIN);
    ck_assert_ptr_nonnull(strstr(list[0].error.message, "to try it again, delete "));
    ferrum_candidates_free(list);

    if (h->status == FERRUM_TIMEOUT)
        return; /* the rest takes as long again */
    /* Whoever deletes the record has it tried again, with the code of the first time. */
    DIR *records = opendir(record_directory);
    ck_assert_ptr_nonnull(records);
    for (struct dirent *entry = readdir(records); entry; entry = readdir(records))
        if (entry->d_name[0] != '.')
            ck_assert_int_eq(unlinkat(dirfd(records), entry->d_name, 0), 0);
    (void)closedir(records);
    EXPECT_OK(ferrum_loader_scan(loader, &list, &count, &err));
    error = list[0].error;
    ck_assert_int_eq(list[0].status, h->status);
    ck_assert_msg(strstr(error.message, h->text) != NULL, "%s", error.message);
    ferrum_candidates_free(list);
}

/* Run the program on the plugin; the exit status, and all it printed. */
static int check_plugin(const hostile_t *h, char *out, size_t size)
{
    char command[3 * FERRUM_TEST_PATH_BYTES];
    bool hangs = strstr(h->text, "hangs") != NULL;
    (void)snprintf(command, sizeof command,
                   "FERRUM_CPU_MASK='%s' '%s/ferrum' check-plugin --cycles 3 --timeout %d '%s' %s",
                   h->words, build_directory(), hangs ? 3 : 250, copy, h->groups);
    FILE *pipe = popen(command, "re");
    ck_assert_ptr_nonnull(pipe);
    size_t used = fread(out, 1, size - 1, pipe);
    out[used] = '\0';
    int state = pclose(pipe);
    ck_assert(WIFEXITED(state));
    return WEXITSTATUS(state);
}

static void meet_by_check(const hostile_t *h, int expected)
{
    static char said[65536];
    int status = check_plugin(h, said, sizeof said);
    ck_assert_msg(status == expected, "exit status %d, not %d:\n%s", status, expected, said);
    ck_assert_msg(strstr(said, h->text) != NULL, "\"%s\" is not in:\n%s", h->text, said);
}

START_TEST(hostile_plugins)
{
    const hostile_t *h = &hostile_table[_i];
    ferrum_test_path_t built;
    ferrum_module_t *module = NULL;
    built_path(h->plugin, built);
    copy_file(built, copy);
    if (h->spoil)
        h->spoil(copy);
    ferrum_loader_t *loader = loader_for(h);
    switch (h->how) {
    case MET_BY_PATH:
        meet_by_path(h, loader);
        break;
    case MET_BY_NAME:
        EXPECT_FAILS(ferrum_loader_select(loader, "hostile", &module, &err), h->status, h->text);
        break;
    case MET_BY_AUTO:
        meet_by_auto(h, loader);
        break;
    case MET_BY_CHECK:
        meet_by_check(h, 1);
        break;
    case MET_BY_NOTE:
        meet_by_check(h, 0);
        break;
    }
    ferrum_loader_free(loader);
    guard_check(h->text);
}
END_TEST

/* ---- files that change while they are loaded ---- */

static void by_truncating(void)
{
    ck_assert_int_eq(truncate(copy, 10), 0);
}

static void by_overwriting(void)
{
    ferrum_test_path_t other;
    built_path("fixture", other);
    copy_file(other, copy);
}

static void by_replacing(void)
{
    ferrum_test_path_t other, beside;
    built_path("fixture", other);
    ferrum_test_join(hostile_directory, "new", beside);
    copy_file(other, beside);
    ck_assert_int_eq(rename(beside, copy), 0);
}

static void by_deleting(void)
{
    ck_assert_int_eq(unlink(copy), 0);
}

static void (*const changes[])(void) = {by_truncating, by_overwriting, by_replacing, by_deleting};

START_TEST(files_change_while_loaded)
{
    const hostile_t plain = {.words = ""};
    ferrum_test_path_t built;
    ferrum_module_t *module;
    ferrum_device_t *device;
    ferrum_unload_report_t report;
    built_path("hostile", built);
    copy_file(built, copy);
    ferrum_loader_t *loader = loader_for(&plain);
    EXPECT_OK(ferrum_loader_open(loader, copy, &module, &err));
    const ferrum_backend_ops_t *be = ferrum_module_backend(module);
    changes[_i]();
    EXPECT_OK(be->device_open(ferrum_module_host(module), NULL, &device, &err));
    be->device_release(device);
    guard_check("a file changed while it was loaded");
    ferrum_module_release(module, &report);
    ck_assert_msg(report.unloaded == 1, "%s", report.detail);
    ferrum_loader_free(loader);
}
END_TEST

/* Every byte of the ELF header, in this very process. */
START_TEST(header_bytes)
{
    const hostile_t plain = {.words = ""};
    ferrum_test_path_t built;
    size_t bytes;
    built_path(NULL, built);
    uint8_t *data = ferrum_test_read_file(built, &bytes);
    ferrum_loader_t *loader = loader_for(&plain);
    for (size_t i = 0; i < sizeof(Elf64_Ehdr); i++) {
        static const uint8_t flips[] = {0x01, 0x80, 0xff};
        for (size_t f = 0; f < sizeof flips; f++) {
            ferrum_module_t *module = NULL;
            ferrum_error_t error = FERRUM_ERROR_INIT;
            data[i] ^= flips[f];
            ferrum_test_write_file(copy, data, bytes);
            if (ferrum_loader_open(loader, copy, &module, &error) == FERRUM_OK)
                ferrum_module_release(module, NULL); /* padding, flags */
            else
                ck_assert_msg(error.message[0] != '\0', "byte %zu is refused without a text", i);
            data[i] ^= flips[f];
        }
    }
    guard_check("damaged headers");
    ferrum_loader_free(loader);
    free(data);
}
END_TEST

/* The sanitizers are to leave crashes, and what hostile plugins leak, alone: here, and in the
 * programs that are started. */
static const char sanitizer_options[] = "allocator_may_return_null=1:detect_leaks=0:handle_segv=0:"
                                        "handle_abort=0:handle_sigill=0:handle_sigbus=0";

int main(int argc, char **argv)
{
    (void)argc;
    const char *given = getenv("ASAN_OPTIONS");
    if (!given || strcmp(given, sanitizer_options) != 0) { /* read once, when a program starts */
        (void)setenv("ASAN_OPTIONS", sanitizer_options, 1);
        (void)execv("/proc/self/exe", argv);
    }
    Suite *suite = suite_create("hostile");
    TCase *tests = tcase_create("hostile");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, hostile_plugins, 0, hostile_count);
    tcase_add_loop_test(tests, files_change_while_loaded, 0,
                        (int)(sizeof changes / sizeof changes[0]));
    tcase_add_test(tests, header_bytes);
    suite_add_tcase(suite, tests);
    (void)printf("%d hostile plugins\n", hostile_count);
    return expect_run(suite);
}
