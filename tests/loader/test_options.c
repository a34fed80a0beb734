/* SPDX-License-Identifier: MIT */
/* The table of variables, how values are read, and what the environment draws warnings for. */
#include "config.h"

#include "plugin/text.h"
#include "tests/loader/support.h"

#include <stdlib.h>
#include <unistd.h>

START_TEST(table_is_sorted_and_complete)
{
    size_t count;
    const ferrum_option_info_t *table = ferrum_option_table(&count);
    ck_assert_uint_gt(count, 30);
    for (size_t i = 0; i < count; i++) {
        ck_assert_int_eq(strncmp(table[i].name, "FERRUM_", 7), 0);
        ck_assert(table[i].meaning[0] != '\0');
        ck_assert(strchr(table[i].meaning, '\n') == NULL);
        if (i > 0)
            ck_assert_str_lt(table[i - 1].name, table[i].name);
    }
}
END_TEST

START_TEST(defaults_apply_when_unset)
{
    ferrum_options_t *o;
    EXPECT_OK(ferrum_options_new(&o, &err));
    ck_assert_ptr_null(ferrum_options_get(o, "FERRUM_BACKEND"));
    ck_assert_uint_eq(ferrum_options_uint(o, "FERRUM_MOE_LARGE_M_MIN_PAIRS"), 1024);
    ck_assert_uint_eq(ferrum_options_uint(o, "FERRUM_MOE_BATCH_THRESHOLD"), 4);
    ck_assert_uint_eq(ferrum_options_uint(o, "FERRUM_MOE_PREFILL_THRESHOLD"), 32);
    ck_assert_uint_eq(ferrum_options_uint(o, "FERRUM_PAGED_MAX_SEQS"), 32);
    ck_assert_uint_eq(ferrum_options_uint(o, "FERRUM_THREADS"), 0);
    ck_assert_uint_eq(ferrum_options_uint(o, "FERRUM_BACKEND"), 0);
    ck_assert_int_eq(ferrum_options_switch(o, "FERRUM_VLLM_MOE"), 0);
    ck_assert_int_eq(ferrum_options_switch(o, "FERRUM_MOE_BUCKETED"), 1);
    ck_assert_int_eq(ferrum_options_switch(o, "FERRUM_MOE_PROFILE"), 0);
    ck_assert_int_eq(ferrum_options_switch(o, "FERRUM_MOE_DEVICE_ROUTE"), -1);
    ferrum_options_free(o);
    ck_assert_uint_eq(ferrum_options_uint(NULL, "FERRUM_KV_CAPACITY"), 512);
    ck_assert_int_eq(ferrum_options_switch(NULL, "FERRUM_MOE_BUCKETED"), 1);
    ferrum_options_free(NULL);
}
END_TEST

static const struct {
    const char *name, *value;
    int wanted;
} switches[] = {
    {"FERRUM_VLLM_MOE", "1", 1},         {"FERRUM_VLLM_MOE", "0", 0},
    {"FERRUM_VLLM_MOE", "true", 0},      {"FERRUM_VLLM_MOE", "11", 0},
    {"FERRUM_VLLM_MOE", "", 0},          {"FERRUM_MOE_BATCHED", "0", 0},
    {"FERRUM_MOE_BATCHED", "1", 1},      {"FERRUM_MOE_BATCHED", "no", 1},
    {"FERRUM_MOE_BATCHED", "00", 1},     {"FERRUM_MOE_PROFILE", "0", 1},
    {"FERRUM_MOE_PROFILE", "", 1},       {"FERRUM_MOE_DEVICE_ROUTE", "1", 1},
    {"FERRUM_MOE_DEVICE_ROUTE", "0", 0}, {"FERRUM_MOE_DEVICE_ROUTE", "yes", -1},
    {"FERRUM_KV_CAPACITY", "1", 0},
};

START_TEST(switches_follow_their_kind)
{
    ferrum_options_t *o;
    EXPECT_OK(ferrum_options_new(&o, &err));
    EXPECT_OK(ferrum_options_set(o, switches[_i].name, switches[_i].value, &err));
    ck_assert_str_eq(ferrum_options_get(o, switches[_i].name), switches[_i].value);
    ck_assert_int_eq(ferrum_options_switch(o, switches[_i].name), switches[_i].wanted);
    EXPECT_OK(ferrum_options_set(o, switches[_i].name, NULL, &err));
    ck_assert_ptr_null(ferrum_options_get(o, switches[_i].name));
    ferrum_options_free(o);
}
END_TEST

static const struct {
    const char *value;
    uint64_t wanted; /* the default is 1024 */
} numbers[] = {
    {"7", 7},     {"0", 0},       {"007", 7},    {"18446744073709551615", UINT64_MAX},
    {"", 1024},   {"-1", 1024},   {" 7", 1024},  {"18446744073709551616", 1024},
    {"7k", 1024}, {"0x10", 1024}, {"1e3", 1024}, {"99999999999999999999999", 1024},
};

START_TEST(numbers_are_decimal)
{
    ferrum_options_t *o;
    EXPECT_OK(ferrum_options_new(&o, &err));
    EXPECT_OK(ferrum_options_set(o, "FERRUM_MOE_LARGE_M_MIN_PAIRS", numbers[_i].value, &err));
    ck_assert_uint_eq(ferrum_options_uint(o, "FERRUM_MOE_LARGE_M_MIN_PAIRS"), numbers[_i].wanted);
    ferrum_options_free(o);
}
END_TEST

START_TEST(copies_are_independent)
{
    ferrum_options_t *a, *b;
    EXPECT_OK(ferrum_options_new(&a, &err));
    EXPECT_OK(ferrum_options_set(a, "FERRUM_THREADS", "3", &err));
    EXPECT_OK(ferrum_options_copy(a, &b, &err));
    EXPECT_OK(ferrum_options_set(a, "FERRUM_THREADS", "4", &err));
    ck_assert_uint_eq(ferrum_options_uint(b, "FERRUM_THREADS"), 3);
    ferrum_options_free(a);
    ck_assert_str_eq(ferrum_options_get(b, "FERRUM_THREADS"), "3");
    ferrum_options_free(b);
}
END_TEST

START_TEST(unknown_names_are_refused)
{
    ferrum_options_t *o;
    EXPECT_OK(ferrum_options_new(&o, &err));
    EXPECT_FAILS(ferrum_options_set(o, "FERRUM_NOSUCH", "1", &err), FERRUM_NOT_FOUND,
                 "FERRUM_NOSUCH");
    EXPECT_FAILS(ferrum_options_set(o, NULL, "1", &err), FERRUM_INVALID_ARGUMENT, "NULL");
    ck_assert_ptr_null(ferrum_options_get(o, "FERRUM_NOSUCH"));
    ck_assert_int_eq(ferrum_options_switch(o, "FERRUM_NOSUCH"), 0);
    ferrum_options_free(o);
}
END_TEST

START_TEST(environment_is_read_and_complained_about)
{
    log_capture_t log;
    ferrum_options_t *o;
    capture_init(&log, FERRUM_LOG_WARN);
    ck_assert_int_eq(setenv("FERRUM_BACKEND", "cpu", 1), 0);
    ck_assert_int_eq(setenv("FERRUM_THREADS", "many", 1), 0);
    ck_assert_int_eq(setenv("FERRUM_VLLM_MOE", "yes", 1), 0);
    ck_assert_int_eq(setenv("FERRUM_KV_CAPACITY", "", 1), 0);
    ck_assert_int_eq(setenv("FERRUM_MOE_PROFILE", "", 1), 0);
    ck_assert_int_eq(setenv("FERRUM_BAKEND", "cpu", 1), 0);
    ck_assert_int_eq(setenv("FERRUM_SOMETHING_ELSE", "1", 1), 0);
    ck_assert_int_eq(setenv("FERRUM_TEST_ANYTHING", "1", 1), 0);
    EXPECT_OK(ferrum_options_from_env(&log.logger, &o, &err));
    ck_assert_str_eq(ferrum_options_get(o, "FERRUM_BACKEND"), "cpu");
    ck_assert_uint_eq(ferrum_options_uint(o, "FERRUM_THREADS"), 0);
    ck_assert_ptr_null(ferrum_options_get(o, "FERRUM_KV_CAPACITY"));
    ck_assert_int_eq(ferrum_options_switch(o, "FERRUM_MOE_PROFILE"), 1);
    ferrum_options_free(o);
    ck_assert_ptr_nonnull(strstr(log.text, "1 FERRUM_THREADS=many is not a decimal number"));
    ck_assert_ptr_nonnull(strstr(log.text, "1 FERRUM_VLLM_MOE=yes is neither 0 nor 1"));
    ck_assert_ptr_nonnull(
        strstr(log.text, "1 unknown variable FERRUM_BAKEND; did you mean FERRUM_BACKEND?"));
    ck_assert_ptr_nonnull(strstr(log.text, "1 unknown variable FERRUM_SOMETHING_ELSE; `"));
    ck_assert_ptr_null(strstr(log.text, "FERRUM_TEST_"));
    ck_assert_ptr_null(strstr(log.text, "KV_CAPACITY"));
}
END_TEST

/* What plugins say of themselves, before anybody prints it. */
static const struct {
    const char *said, *shown;
} texts[] = {
    {"", ""},
    {"plain text", "plain text"},
    {"tab\there\x1b[2J\x7f", "tab?here?[2J?"},
    {"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"},
    {"\x80 \xbf \xf8 \xff", "? ? ? ?"},                             /* no first byte */
    {"\xc3( \xe2\x82 \xf0\x9f\x98", "?( ?? ???"},                   /* too few that follow */
    {"\xc2\x9b", "??"},                                             /* control characters */
    {"\xc1\xa0 \xe0\x9f\xbf \xf0\x8f\xbf\xbf", "?? ??? ????"},      /* longer than they need be */
    {"\xed\xa0\x80 \xed\xbf\xbf \xf4\x90\x80\x80", "??? ??? ????"}, /* no character */
    {"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf", "\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf"},
};

START_TEST(texts_are_cleaned)
{
    char text[64];
    FERRUM_COPY_TEXT(text, texts[_i].said);
    ferrum_text_clean(text);
    ck_assert_str_eq(text, texts[_i].shown);
}
END_TEST

START_TEST(odd_environments)
{
    char name[200] = "FERRUM_", home[600];
    log_capture_t log;
    ferrum_options_t *o;
    capture_init(&log, FERRUM_LOG_WARN);
    memset(name + 7, 'X', sizeof name - 8);
    memset(home, 'h', sizeof home - 1);
    home[0] = '/';
    home[sizeof home - 1] = '\0';
    ck_assert_int_eq(clearenv(), 0); /* there is not even an empty list then */
    EXPECT_OK(ferrum_options_from_env(&log.logger, &o, &err));
    ck_assert_ptr_null(ferrum_options_get(o, "FERRUM_CACHE_DIR"));
    ferrum_options_free(o);
    ck_assert_int_eq(setenv(name, "1", 1), 0);
    ck_assert_int_eq(setenv("HOME", home, 1), 0); /* too long to keep anything in */
    EXPECT_OK(ferrum_options_from_env(&log.logger, &o, &err));
    ck_assert_ptr_null(ferrum_options_get(o, "FERRUM_CACHE_DIR"));
    ck_assert_ptr_nonnull(strstr(log.text, "unknown variable FERRUM_XXXXXXX"));
    ferrum_options_free(o);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loader/options");
    TCase *tests = tcase_create("options");
    tcase_add_test(tests, table_is_sorted_and_complete);
    tcase_add_test(tests, defaults_apply_when_unset);
    tcase_add_loop_test(tests, switches_follow_their_kind, 0, sizeof switches / sizeof switches[0]);
    tcase_add_loop_test(tests, numbers_are_decimal, 0, sizeof numbers / sizeof numbers[0]);
    tcase_add_test(tests, copies_are_independent);
    tcase_add_test(tests, unknown_names_are_refused);
    tcase_add_test(tests, environment_is_read_and_complained_about);
    tcase_add_loop_test(tests, texts_are_cleaned, 0, sizeof texts / sizeof texts[0]);
    tcase_add_test(tests, odd_environments);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
