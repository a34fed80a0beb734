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

int main(void)
{
    Suite *suite = suite_create("loader/faults");
    TCase *tests = tcase_create("faults");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, unproven_unload_makes_a_zombie, 0, 2);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
