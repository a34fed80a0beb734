/* SPDX-License-Identifier: MIT */
/* Which plugin is chosen, where it is looked for, and what is said when none will do. */
#include "config.h"

#include "tests/loader/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static ferrum_test_path_t dir, other_dir; /* searched in this order */
static ferrum_test_path_t fixture, threaded, stub;

static void put(const char *directory, const char *plugin, const char *file)
{
    ferrum_test_path_t path;
    ferrum_test_join(directory, file, path);
    copy_file(plugin, path);
    ck_assert_int_eq(chmod(path, 0755), 0);
}

static void setup(void)
{
    plugin_path("fixture", fixture);
    plugin_path("fixture-thread", threaded);
    plugin_path("metal-stub", stub);
    ferrum_test_make_directory(dir);
    ferrum_test_make_directory(other_dir);
}

static void teardown(void)
{
    ferrum_test_remove_directory(dir);
    ferrum_test_remove_directory(other_dir);
}

/* A loader that searches both directories. */
static ferrum_loader_t *searching(const ferrum_logger_t *logger, const char *backend,
                                  const char *words)
{
    char path[2 * FERRUM_TEST_PATH_BYTES + 2];
    (void)snprintf(path, sizeof path, "%s:%s", dir, other_dir);
    return new_loader(logger, "FERRUM_PLUGIN_PATH", path, "FERRUM_BACKEND", backend,
                      "FERRUM_CPU_MASK", words, NULL);
}

static void expect_selects(ferrum_loader_t *loader, const char *spec, const char *name)
{
    ferrum_module_t *module;
    EXPECT_OK(ferrum_loader_select(loader, spec, &module, &err));
    ck_assert_str_eq(ferrum_module_name(module), name);
    ferrum_module_release(module, NULL);
}

static void expect_refuses(ferrum_loader_t *loader, const char *spec, ferrum_status_t status,
                           const char *text)
{
    ferrum_module_t *module = NULL;
    EXPECT_FAILS(ferrum_loader_select(loader, spec, &module, &err), status, text);
    ck_assert_ptr_null(module);
}

START_TEST(by_name)
{
    put(dir, fixture, "fixture.so");
    ferrum_loader_t *loader = searching(NULL, NULL, "");
    expect_selects(loader, "fixture", "fixture");
    expect_refuses(loader, "nosuch", FERRUM_NOT_FOUND, "no backend 'nosuch' (found: fixture)");
    expect_refuses(loader, "Fixture", FERRUM_INVALID_ARGUMENT, "'Fixture' is no backend name");
    expect_refuses(loader, "../fixture", FERRUM_NOT_FOUND, "../fixture does not exist");
    expect_refuses(loader, "fix ture", FERRUM_INVALID_ARGUMENT, "no backend name");
    ferrum_loader_free(loader);
    loader = searching(NULL, "fixture", ""); /* NULL takes FERRUM_BACKEND */
    expect_selects(loader, NULL, "fixture");
    ferrum_loader_free(loader);
}
END_TEST

START_TEST(by_path)
{
    ferrum_loader_t *loader = fixture_loader(NULL, "");
    expect_selects(loader, fixture, "fixture");
    expect_refuses(loader, "/nowhere/cpu.so", FERRUM_NOT_FOUND, "/nowhere/cpu.so does not exist");
    ferrum_loader_free(loader);
}
END_TEST

START_TEST(auto_takes_the_best_score)
{
    put(dir, threaded, "fixture-thread.so"); /* score 3 */
    put(other_dir, fixture, "fixture.so");   /* score 5 */
    put(dir, stub, "metal-stub.so");         /* score 0 */
    ferrum_loader_t *loader = searching(NULL, NULL, "");
    expect_selects(loader, "auto", "fixture");
    expect_selects(loader, NULL, "fixture");
    ferrum_loader_free(loader);
    loader = searching(NULL, NULL, "probe-fails"); /* both fixtures refuse */
    expect_refuses(loader, "auto", FERRUM_NOT_FOUND, "no fixture driver");
    expect_refuses(loader, "auto", FERRUM_NOT_FOUND, "no backend can be used here");
    ferrum_loader_free(loader);
}
END_TEST

START_TEST(first_directory_wins)
{
    ferrum_test_path_t path;
    ferrum_module_t *module;
    put(dir, fixture, "fixture.so");
    put(other_dir, fixture, "fixture.so");
    ferrum_loader_t *loader = searching(NULL, NULL, "");
    EXPECT_OK(ferrum_loader_select(loader, "fixture", &module, &err));
    ferrum_test_join(dir, "fixture.so", path);
    ck_assert_str_eq(ferrum_module_path(module), path);
    ferrum_module_release(module, NULL);
    ferrum_loader_free(loader);
}
END_TEST

START_TEST(lists_fall_back_aloud)
{
    log_capture_t log;
    put(dir, fixture, "fixture.so");
    put(dir, stub, "metal-stub.so");
    capture_init(&log, FERRUM_LOG_WARN);
    ferrum_loader_t *loader = searching(&log.logger, NULL, "");
    expect_selects(loader, "fixture,metal-stub", "fixture");
    ck_assert_str_eq(log.text, "");
    expect_selects(loader, "cuda,metal-stub,fixture", "fixture");
    ck_assert_ptr_nonnull(strstr(log.text, "1 there is no backend 'cuda'"));
    ck_assert_ptr_nonnull(strstr(log.text, "1 backend 'metal-stub' cannot be used here"));
    ck_assert_ptr_nonnull(strstr(log.text, "1 fell back to backend 'fixture' of the list"));
    expect_refuses(loader, "a,b,", FERRUM_NOT_FOUND, "no backend of the list a,b, can be used");
    ferrum_loader_free(loader);
}
END_TEST

START_TEST(strict_names_say_why)
{
    put(dir, fixture, "fixture.so");
    put(dir, stub, "metal-stub.so");
    put(dir, fixture, "renamed.so");
    ferrum_loader_t *loader = searching(NULL, NULL, "probe-fails");
    expect_refuses(loader, "fixture", FERRUM_UNSUPPORTED, "no fixture driver");
    expect_refuses(loader, "metal-stub", FERRUM_UNSUPPORTED,
                   "backend 'metal-stub' cannot be used here: a skeleton");
    ferrum_loader_free(loader);
    loader = searching(NULL, NULL, "");
    expect_refuses(loader, "renamed", FERRUM_BAD_PLUGIN, "calls itself 'fixture'");
    ferrum_loader_free(loader);
}
END_TEST

START_TEST(scan_lists_everything)
{
    ferrum_candidate_t *list;
    ferrum_test_path_t path;
    size_t count;
    trace_t before = take_trace();
    put(dir, stub, "metal-stub.so");
    put(dir, fixture, "fixture.so");
    ferrum_test_join(dir, "broken.so", path);
    ferrum_test_write_file(path, "text", 4);
    ferrum_test_join(dir, "readme.txt", path);
    ferrum_test_write_file(path, "text", 4);
    ferrum_loader_t *loader = searching(NULL, NULL, "");
    EXPECT_OK(ferrum_loader_scan(loader, &list, &count, &err));
    ck_assert_uint_eq(count, 3);
    ck_assert_str_eq(list[0].name, "broken");
    ck_assert_int_eq(list[0].status, FERRUM_CORRUPT);
    ck_assert_ptr_nonnull(strstr(list[0].error.message, "broken.so"));
    ck_assert_str_eq(list[1].name, "fixture");
    ck_assert_int_eq(list[1].score, 5);
    ck_assert_int_eq(list[1].status, FERRUM_OK);
    ck_assert_str_eq(list[2].name, "metal-stub");
    ck_assert_int_eq(list[2].score, 0);
    ferrum_candidates_free(list);
    ferrum_loader_free(loader);
    expect_same_trace(&before);
}
END_TEST

/* ---- who may put plugins where ---- */

START_TEST(writable_directories_are_skipped)
{
    log_capture_t log;
    ferrum_test_path_t path;
    put(dir, fixture, "fixture.so");
    ck_assert_int_eq(chmod(dir, 0777), 0);
    capture_init(&log, FERRUM_LOG_WARN);
    ferrum_loader_t *loader = searching(&log.logger, NULL, "");
    expect_refuses(loader, "fixture", FERRUM_NOT_FOUND, "is writable by everybody");
    ck_assert_ptr_nonnull(strstr(log.text, dir));
    ferrum_test_join(dir, "fixture.so", path); /* naming the file is enough */
    expect_selects(loader, path, "fixture");
    ferrum_loader_free(loader);
    ck_assert_int_eq(chmod(dir, 0755), 0);
}
END_TEST

START_TEST(writable_files_are_refused)
{
    ferrum_test_path_t path;
    put(dir, fixture, "fixture.so");
    ferrum_test_join(dir, "fixture.so", path);
    ck_assert_int_eq(chmod(path, 0666), 0);
    ferrum_loader_t *loader = searching(NULL, NULL, "");
    expect_refuses(loader, "fixture", FERRUM_PERMISSION, "is writable by everybody");
    expect_selects(loader, path, "fixture");
    ferrum_loader_free(loader);
}
END_TEST

START_TEST(files_of_strangers_are_refused)
{
    ferrum_test_path_t path;
    if (geteuid() != 0) {
        printf("not run: only root can give a file away\n");
        return;
    }
    put(dir, fixture, "fixture.so");
    ferrum_test_join(dir, "fixture.so", path);
    ck_assert_int_eq(chown(path, 12345, (gid_t)-1), 0);
    ferrum_loader_t *loader = searching(NULL, NULL, "");
    expect_refuses(loader, "fixture", FERRUM_PERMISSION, "belongs to user 12345");
    expect_selects(loader, path, "fixture");
    ck_assert_int_eq(chown(dir, 12345, (gid_t)-1), 0);
    expect_refuses(loader, "fixture", FERRUM_NOT_FOUND, "belongs to user 12345");
    ck_assert_int_eq(chown(dir, 0, (gid_t)-1), 0);
    ferrum_loader_free(loader);
}
END_TEST

START_TEST(working_directory_is_never_searched)
{
    ferrum_test_path_t cwd;
    static const char *const paths[] = {".", "", ":", "::.", "plugins", "./"};
    put(dir, fixture, "fixture.so");
    ck_assert_ptr_nonnull(getcwd(cwd, sizeof cwd));
    ck_assert_int_eq(chdir(dir), 0);
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        ferrum_loader_t *loader = new_loader(NULL, "FERRUM_PLUGIN_PATH", paths[i], NULL);
        expect_refuses(loader, "fixture", FERRUM_NOT_FOUND, "no backend 'fixture'");
        ferrum_loader_free(loader);
    }
    ck_assert_int_eq(chdir(cwd), 0);
}
END_TEST

START_TEST(links_are_refused)
{
    ferrum_test_path_t path;
    ferrum_test_join(dir, "fixture.so", path);
    ck_assert_int_eq(symlink(fixture, path), 0);
    ferrum_loader_t *loader = searching(NULL, NULL, "");
    expect_refuses(loader, "fixture", FERRUM_PERMISSION, "is a symbolic link");
    expect_refuses(loader, path, FERRUM_PERMISSION, "is a symbolic link");
    ferrum_loader_free(loader);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loader/select");
    TCase *tests = tcase_create("select");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, by_name);
    tcase_add_test(tests, by_path);
    tcase_add_test(tests, auto_takes_the_best_score);
    tcase_add_test(tests, first_directory_wins);
    tcase_add_test(tests, lists_fall_back_aloud);
    tcase_add_test(tests, strict_names_say_why);
    tcase_add_test(tests, scan_lists_everything);
    tcase_add_test(tests, writable_directories_are_skipped);
    tcase_add_test(tests, writable_files_are_refused);
    tcase_add_test(tests, files_of_strangers_are_refused);
    tcase_add_test(tests, working_directory_is_never_searched);
    tcase_add_test(tests, links_are_refused);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
