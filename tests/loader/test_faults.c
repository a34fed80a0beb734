/* SPDX-License-Identifier: MIT */
/* Unloads that cannot be proven. That every other call may fail is tried by tests/faults. */
#include "config.h"

#include "tests/loader/support.h"

static ferrum_sys_t sys;
static ferrum_test_path_t fixture;

static void setup(void)
{
    plugin_path("fixture", fixture);
    sys = ferrum_sys_real;
    ferrum_sys = &sys;
}

static void teardown(void)
{
    ferrum_sys = &ferrum_sys_real;
}

/* dlclose() that does nothing, as with NODELETE code that nobody announced. */
static int no_close(void *handle)
{
    return 0;
}

static int failing_close(void *handle)
{
    return -1;
}

START_TEST(unproven_unload_makes_a_zombie)
{
    ferrum_module_t *module;
    ferrum_unload_report_t report;
    sys.dl_close = _i ? failing_close : no_close;
    ferrum_loader_t *loader = fixture_loader(NULL, "");
    EXPECT_OK(ferrum_loader_open(loader, fixture, &module, &err));
    ferrum_module_release(module, &report);
    ck_assert_uint_eq(report.unloaded, 0);
    ck_assert_uint_eq(report.pinned, 0);
    ck_assert_str_eq(report.detail, "kept: still mapped after dlclose");
    sys.dl_close = ferrum_sys_real.dl_close;
    EXPECT_OK(
        ferrum_loader_open(loader, fixture, &module, &err)); /* a fresh copy, not the zombie */
    ferrum_module_release(module, &report);
    ck_assert_uint_eq(report.unloaded, 1);
    ferrum_loader_free(loader);
}
END_TEST

/* Whether a pinned plugin is the file that is opened: by size, hash and content, and when in doubt
 * it is another. */
static int maps_left;

static void *map_some(int fd, size_t bytes)
{
    return maps_left-- > 0 ? ferrum_sys_real.map(fd, bytes) : NULL;
}

START_TEST(same_images)
{
    ferrum_image_t a, b;
    EXPECT_OK(ferrum_image_read(fixture, true, &a, &err));
    EXPECT_OK(ferrum_image_read(fixture, true, &b, &err));
    sys.map = map_some;
    for (int maps = 0; maps <= 2; maps++) {
        maps_left = maps;
        ck_assert_int_eq(ferrum_image_same(&a, &b), maps == 2);
    }
    sys.map = ferrum_sys_real.map;
    b.hash ^= 1;
    ck_assert(!ferrum_image_same(&a, &b));
    b.size--;
    ck_assert(!ferrum_image_same(&a, &b));
    ferrum_image_close(&a);
    ferrum_image_close(&b);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loader/faults");
    TCase *tests = tcase_create("faults");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, unproven_unload_makes_a_zombie, 0, 2);
    tcase_add_test(tests, same_images);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
