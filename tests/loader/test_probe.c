/* SPDX-License-Identifier: MIT */
/*
 * Probing in a child process and the quarantine: who is probed, what happens without the helper,
 * where records go. What hostile plugins do in the child is in tests/hostile.
 */
#include "config.h"

#include "tests/loader/support.h"

#include "plugin/probe.h"
#include "plugin/quarantine.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static ferrum_test_path_t dir, cache, records, program, plugin;

static void setup(void)
{
    ferrum_test_path_t fixture;
    const char *build = getenv("FERRUM_TEST_BUILDDIR");
    (void)snprintf(program, sizeof program, "%s/ferrum-probe", build ? build : ".");
    ferrum_test_make_directory(dir);
    ferrum_test_make_directory(cache);
    ferrum_test_join(cache, "quarantine", records);
    ferrum_test_join(dir, "fixture.so", plugin);
    plugin_path("fixture", fixture);
    copy_file(fixture, plugin);
}

static void teardown(void)
{
    ferrum_test_remove_directory(dir);
    if (access(records, F_OK) == 0)
        ferrum_test_remove_directory(records);
    ferrum_test_remove_directory(cache);
}

static ferrum_loader_t *loader_of(const ferrum_logger_t *logger, const char *probe,
                                  const char *helper)
{
    return new_loader(logger, "FERRUM_PLUGIN_PATH", dir, "FERRUM_CACHE_DIR", cache, "FERRUM_PROBE",
                      probe, "FERRUM_PROBE_PROGRAM", helper, NULL);
}

/* ---- SHA-256 against the examples of FIPS 180-4 and RFC 6234 ---- */

START_TEST(sha256)
{
    static const struct {
        const char *text;
        unsigned times;
        const char *digest;
    } examples[] = {
        {"", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"a", 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
        {"0123456701234567012345670123456701234567012345670123456701234567", 10,
         "594847328451bdfa85056225462cc1d867d877fb388df0ce35f25ab5562bfbb5"},
    };
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        char hex[FERRUM_SHA256_HEX];
        size_t length = strlen(examples[i].text), total = length * examples[i].times;
        char *data = malloc(total + 1);
        for (unsigned t = 0; t < examples[i].times; t++)
            memcpy(data + t * length, examples[i].text, length);
        ferrum_sha256_hex(data, total, hex);
        ck_assert_str_eq(hex, examples[i].digest);
        free(data);
    }
}
END_TEST

/* ---- policy ---- */

static void expect_selected(ferrum_loader_t *loader, const char *spec)
{
    ferrum_module_t *module = NULL;
    EXPECT_OK(ferrum_loader_select(loader, spec, &module, &err));
    ck_assert_str_eq(ferrum_module_name(module), "fixture");
    ferrum_module_release(module, NULL);
}

START_TEST(good_plugins_are_let_in)
{
    static const char *const policies[] = {"auto", "child", "none"};
    for (int i = 0; i < 3; i++) {
        ferrum_loader_t *loader = loader_of(NULL, policies[i], program);
        trace_t before = take_trace();
        expect_selected(loader, "auto");
        expect_selected(loader, "auto"); /* known by now */
        expect_selected(loader, "fixture");
        expect_selected(loader, plugin);
        expect_same_trace(&before);
        ferrum_loader_free(loader);
        ck_assert_int_ne(access(records, F_OK), 0);
    }
}
END_TEST

START_TEST(unknown_policy)
{
    ferrum_module_t *module;
    ferrum_loader_t *loader = loader_of(NULL, "maybe", program);
    EXPECT_FAILS(ferrum_loader_open(loader, plugin, &module, &err), FERRUM_INVALID_ARGUMENT,
                 "FERRUM_PROBE is auto, child or none, not 'maybe'");
    ferrum_loader_free(loader);
}
END_TEST

/* Without the helper auto goes on and says so; who asked for it is not given less. */
START_TEST(no_helper)
{
    static const char *const helpers[] = {"/nonexistent/ferrum-probe", "/bin/false", "/dev/null"};
    for (int i = 0; i < 3; i++) {
        log_capture_t log;
        ferrum_module_t *module;
        capture_init(&log, FERRUM_LOG_INFO);
        ferrum_loader_t *loader = loader_of(&log.logger, "auto", helpers[i]);
        expect_selected(loader, "auto");
        ck_assert_msg(strstr(log.text, "without a probe in a process of its own") != NULL, "%s",
                      log.text);
        ferrum_loader_free(loader);
        loader = loader_of(NULL, "child", helpers[i]);
        EXPECT_FAILS(ferrum_loader_open(loader, plugin, &module, &err), FERRUM_IO, helpers[i]);
        ferrum_loader_free(loader);
    }
}
END_TEST

/* A host that never waits for children, or leaves no standard streams open. */
START_TEST(odd_hosts)
{
    (void)signal(SIGCHLD, SIG_IGN);
    ferrum_loader_t *loader = loader_of(NULL, "child", program);
    expect_selected(loader, "auto");
    ferrum_loader_free(loader);
    for (int fd = 0; fd < 3; fd++)
        (void)close(fd); /* so that the image and the answer are among these */
    loader = loader_of(NULL, "child", program);
    ferrum_test_write_file(plugin, "", 0);
    ferrum_test_path_t fixture;
    plugin_path("fixture-thread", fixture); /* another content, not known yet */
    copy_file(fixture, plugin);
    ferrum_module_t *module;
    EXPECT_OK(ferrum_loader_open(loader, plugin, &module, &err));
    ferrum_module_release(module, NULL);
    ferrum_loader_free(loader);
}
END_TEST

/* ---- helpers that are not ferrum-probe, and what becomes of the plugin ---- */

static void helper_that_does(const char *script, ferrum_test_path_t out_path)
{
    char text[256];
    int length = snprintf(text, sizeof text, "#!/bin/sh\nulimit -c 0\n%s\n", script);
    ferrum_test_join(dir, "helper", out_path);
    ferrum_test_write_file(out_path, text, (size_t)length);
    ck_assert_int_eq(chmod(out_path, 0700), 0);
}

static const struct {
    const char *script;
    ferrum_status_t status; /* with FERRUM_PROBE=child */
    const char *text;
} helpers[] = {
    {"exec sleep 600", FERRUM_IO, "it said nothing in time"},
    {"exit 0", FERRUM_IO, "it ended at once"},
    {"printf lqip >/proc/self/fd/$2; kill -ABRT $$", FERRUM_BAD_PLUGIN,
     "crashed with signal 6 in its probe and is in quarantine; this process will not try it again"},
    {"printf l >/proc/self/fd/$2; exit 1", FERRUM_BAD_PLUGIN,
     "ended its process while it was loaded"},
    {"printf lqi >/proc/self/fd/$2; exec sleep 600", FERRUM_TIMEOUT,
     "did not come back in its get_interface"},
    {"printf lq. >/proc/self/fd/$2; kill -SEGV $$", FERRUM_OK, ""}, /* it had come back by then */
};

START_TEST(helpers_that_end_otherwise)
{
    ferrum_test_path_t helper;
    ferrum_module_t *module = NULL;
    helper_that_does(helpers[_i].script, helper);
    ferrum_loader_t *loader =
        new_loader(NULL, "FERRUM_PLUGIN_PATH", dir, "FERRUM_PROBE", "child", "FERRUM_PROBE_PROGRAM",
                   helper, "FERRUM_PROBE_SECONDS", "1", NULL); /* nowhere to keep records */
    if (helpers[_i].status == FERRUM_OK) {
        EXPECT_OK(ferrum_loader_open(loader, plugin, &module, &err));
        ferrum_module_release(module, NULL);
    } else {
        EXPECT_FAILS(ferrum_loader_open(loader, plugin, &module, &err), helpers[_i].status,
                     helpers[_i].text);
    }
    if (helpers[_i].status == FERRUM_BAD_PLUGIN) {
        EXPECT_FAILS(ferrum_loader_open(loader, plugin, &module, &err), FERRUM_BAD_PLUGIN,
                     "is in quarantine: it ");
        /* Another content of the same size is another plugin: it has its own try. */
        size_t bytes;
        uint8_t *data = ferrum_test_read_file(plugin, &bytes);
        data[bytes - 1] ^= 1; /* the last section header, of which the loader reads no such byte */
        ferrum_test_write_file(plugin, data, bytes);
        free(data);
        helper_that_does("printf . >/proc/self/fd/$2", helper);
        EXPECT_OK(ferrum_loader_open(loader, plugin, &module, &err));
        ferrum_module_release(module, NULL);
    }
    ferrum_loader_free(loader);
}
END_TEST

/* A host that reaps all children knows that the helper is gone, and not how. */
START_TEST(crash_that_nobody_sees)
{
    ferrum_test_path_t helper;
    ferrum_module_t *module = NULL;
    (void)signal(SIGCHLD, SIG_IGN);
    helper_that_does("printf l >/proc/self/fd/$2; kill -SEGV $$", helper);
    ferrum_loader_t *loader = loader_of(NULL, "child", helper);
    EXPECT_FAILS(ferrum_loader_open(loader, plugin, &module, &err), FERRUM_BAD_PLUGIN,
                 "ended its process while it was loaded");
    ferrum_loader_free(loader);
}
END_TEST

/* What ferrum-probe leaves to the loader to say: it comes back whatever the plugin answers. */
START_TEST(odd_answers_pass_the_probe)
{
    static const struct {
        const char *words;
        ferrum_status_t status;
    } answers[] = {
        {"query-fails", FERRUM_BAD_PLUGIN},   {"tiny", FERRUM_BAD_PLUGIN},
        {"no-interfaces", FERRUM_BAD_PLUGIN}, {"missing", FERRUM_BAD_PLUGIN},
        {"probe-silent", FERRUM_OK},          {"leak", FERRUM_OK},
    };
    ferrum_module_t *module = NULL;
    if (is_sanitized() && strcmp(answers[_i].words, "leak") == 0)
        return; /* it would be reported, as it should */
    ferrum_loader_t *loader = new_loader(
        NULL, "FERRUM_CPU_MASK", answers[_i].words, "FERRUM_CACHE_DIR", cache, "FERRUM_PROBE",
        "child", "FERRUM_PROBE_PROGRAM", program, "FERRUM_PROBE_SECONDS", "100000", NULL);
    ferrum_status_t status = ferrum_loader_open(loader, plugin, &module, NULL);
    ck_assert_int_eq(status, answers[_i].status);
    ck_assert_int_ne(access(records, F_OK), 0);
    ferrum_module_release(module, NULL);
    ferrum_loader_free(loader);
}
END_TEST

START_TEST(helper_without_arguments)
{
    char command[FERRUM_TEST_PATH_BYTES + 64];
    (void)snprintf(command, sizeof command, "'%s' 2>/dev/null", program);
    ck_assert_int_eq(system(command), 2 << 8);
    /* A loader that is gone; a plugin that cannot be loaded. */
    (void)snprintf(command, sizeof command, "'%s' 0 77 2>/dev/null", program);
    ck_assert_int_eq(system(command), 1 << 8);
    (void)snprintf(command, sizeof command, "'%s' 0 1 </dev/null | grep -q '^l\\.$'", program);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

/* What the administrator installed is not probed unless it is asked for. */
START_TEST(installed_plugins_are_trusted)
{
    static const struct {
        const char *path;
        bool probed;
    } paths[] = {{FERRUM_PKGLIBDIR "/fixture.so", false},
                 {FERRUM_PKGLIBDIR "/sub/fixture.so", true},
                 {"/home/me/fixture.so", true}};
    ferrum_image_t image;
    ferrum_options_t *options;
    EXPECT_OK(ferrum_options_new(&options, &err));
    EXPECT_OK(ferrum_options_set(options, "FERRUM_PROBE_PROGRAM", "/nonexistent", &err));
    EXPECT_OK(ferrum_image_read(plugin, true, &image, &err));
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        log_capture_t log;
        capture_init(&log, FERRUM_LOG_INFO);
        EXPECT_OK(ferrum_probe_image(&image, paths[i].path, FERRUM_ASKED_ANY, options, &log.logger,
                                     &err));
        ck_assert_int_eq(strstr(log.text, "without a probe") != NULL, paths[i].probed);
    }
    ferrum_image_close(&image);
    ferrum_options_free(options);
}
END_TEST

/* ---- records ---- */

static ferrum_options_t *options_of(const char *cache_dir)
{
    ferrum_options_t *options;
    EXPECT_OK(ferrum_options_new(&options, &err));
    EXPECT_OK(ferrum_options_set(options, "FERRUM_CACHE_DIR", cache_dir, &err));
    return options;
}

START_TEST(records_on_disk)
{
    const ferrum_content_t content = {4711, "0123456789abcdef"}, other = {4711, "fedcba"};
    ferrum_record_t record;
    ferrum_test_path_t deep;
    ferrum_test_join(cache, "not/there/yet", deep);
    ferrum_options_t *options = options_of(deep);
    ck_assert(!ferrum_quarantine_may_have(options, 4711));
    ck_assert(!ferrum_quarantine_find(options, &content, &record));
    ferrum_quarantine_add(options, &content, "/some/plugin.so", "crashed a lot", &record);
    ck_assert_ptr_nonnull(strstr(record.path, "/not/there/yet/quarantine/4711-0123456789abcdef"));
    ck_assert(ferrum_quarantine_may_have(options, 4711));
    ck_assert(!ferrum_quarantine_may_have(options, 471));
    ck_assert(!ferrum_quarantine_may_have(options, 47112));
    ck_assert(!ferrum_quarantine_find(options, &other, &record));
    ck_assert(ferrum_quarantine_find(options, &content, &record));
    ck_assert_str_eq(record.why, "crashed a lot");
    size_t bytes;
    char *text = (char *)ferrum_test_read_file(record.path, &bytes);
    ck_assert_ptr_nonnull(strstr(text, "seen at /some/plugin.so\n"));
    free(text);
    ck_assert_int_eq(unlink(record.path), 0);
    ck_assert(!ferrum_quarantine_find(options, &content, &record));
    ferrum_options_free(options);
    for (char *slash = strrchr(record.path, '/'); slash && strcmp(record.path, cache) != 0;
         slash = strrchr(record.path, '/')) {
        *slash = '\0';
        if (strcmp(record.path, cache) != 0)
            ck_assert_int_eq(rmdir(record.path), 0);
    }
}
END_TEST

/* Records that were cut short, or written by somebody else. */
START_TEST(odd_records)
{
    static const char *const texts[] = {"", "\n", "no end of line"};
    static const char *const reasons[] = {"its probe failed badly", "its probe failed badly",
                                          "no end of line"};
    const ferrum_content_t content = {4711, "abc"};
    ferrum_record_t record;
    ferrum_test_path_t path;
    char deep[700];
    ck_assert_int_eq(mkdir(records, 0700), 0);
    ferrum_options_t *options = options_of(cache);
    ferrum_test_join(records, "4711", path); /* no record: it names no content */
    ferrum_test_write_file(path, "x", 1);
    ck_assert(!ferrum_quarantine_may_have(options, 4711));
    ferrum_test_join(records, "4711-abc", path);
    for (size_t i = 0; i < 3; i++) {
        ferrum_test_write_file(path, texts[i], strlen(texts[i]));
        ck_assert(ferrum_quarantine_find(options, &content, &record));
        ck_assert_str_eq(record.why, reasons[i]);
    }
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkdir(path, 0700), 0); /* cannot be written */
    ferrum_quarantine_add(options, &content, "plugin.so", "hung", &record);
    ck_assert_str_eq(record.path, "");
    ck_assert_int_eq(rmdir(path), 0);
    ferrum_options_free(options);

    memset(deep, 'x', sizeof deep - 1); /* a path that is too long */
    deep[0] = '/';
    deep[sizeof deep - 1] = '\0';
    options = options_of(deep);
    ck_assert(!ferrum_quarantine_find(options, &(ferrum_content_t){1, "1"}, &record));
    ck_assert(!ferrum_quarantine_find(options, &(ferrum_content_t){4711, "abd"}, &record));
    ck_assert(ferrum_quarantine_find(options, &content, &record));
    ferrum_options_free(options);
    ferrum_quarantine_note_good(10, 1);
    ck_assert(ferrum_quarantine_is_known_good(10, 1));
    ck_assert(!ferrum_quarantine_is_known_good(10, 2));
}
END_TEST

/* Where nothing can be written, or others could have written, this process remembers alone. */
START_TEST(records_in_memory)
{
    static const char *const places[] = {NULL, "relative/path", "/proc/nowhere"};
    ferrum_record_t record;
    for (unsigned i = 0; i < 4; i++) {
        ferrum_content_t content = {100 + i, "00"};
        if (i == 3) {
            ck_assert_int_eq(mkdir(records, 0777), 0);
            ck_assert_int_eq(chmod(records, 0777), 0);
        }
        ferrum_options_t *options = options_of(i < 3 ? places[i] : cache);
        ck_assert(!ferrum_quarantine_may_have(options, content.size));
        ferrum_quarantine_add(options, &content, "plugin.so", "hung", &record);
        ck_assert_str_eq(record.path, "");
        ck_assert(ferrum_quarantine_may_have(options, content.size));
        ck_assert(ferrum_quarantine_find(options, &content, &record));
        ck_assert_str_eq(record.why, "hung");
        ck_assert_str_eq(record.path, "");
        ck_assert(!ferrum_quarantine_is_known_good(content.size, 0));
        ferrum_options_free(options);
    }
}
END_TEST

START_TEST(cache_directory_from_the_environment)
{
    static const struct {
        const char *cache, *xdg, *home, *expected;
    } cases[] = {
        {"/mine", "/xdg", "/home/me", "/mine"},
        {NULL, "/xdg", "/home/me", "/xdg/ferrum"},
        {NULL, "relative", "/home/me", "/home/me/.cache/ferrum"},
        {NULL, NULL, "/home/me", "/home/me/.cache/ferrum"},
        {NULL, NULL, NULL, NULL},
    };
    const char *const names[] = {"FERRUM_CACHE_DIR", "XDG_CACHE_HOME", "HOME"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *const values[] = {cases[i].cache, cases[i].xdg, cases[i].home};
        ferrum_options_t *options;
        for (int v = 0; v < 3; v++)
            ck_assert_int_eq(values[v] ? setenv(names[v], values[v], 1) : unsetenv(names[v]), 0);
        EXPECT_OK(ferrum_options_from_env(NULL, &options, &err));
        const char *found = ferrum_options_get(options, "FERRUM_CACHE_DIR");
        ck_assert_pstr_eq(found, cases[i].expected);
        ferrum_options_free(options);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loader/probe");
    TCase *tests = tcase_create("probe");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, sha256);
    tcase_add_test(tests, good_plugins_are_let_in);
    tcase_add_test(tests, unknown_policy);
    tcase_add_test(tests, no_helper);
    tcase_add_test(tests, odd_hosts);
    tcase_add_loop_test(tests, helpers_that_end_otherwise, 0, sizeof helpers / sizeof helpers[0]);
    tcase_add_test(tests, crash_that_nobody_sees);
    tcase_add_loop_test(tests, odd_answers_pass_the_probe, 0, 6);
    tcase_add_test(tests, helper_without_arguments);
    tcase_add_test(tests, installed_plugins_are_trusted);
    tcase_add_test(tests, odd_records);
    tcase_add_test(tests, records_on_disk);
    tcase_add_test(tests, records_in_memory);
    tcase_add_test(tests, cache_directory_from_the_environment);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
