/* SPDX-License-Identifier: MIT */
/**
 * @file check.h
 * @brief As much of libcheck as tests/kernels needs, for processors that only an emulator runs.
 *
 * In the include path before the real one, so that the same tests are built. A failed assertion
 * ends the program; tests run one after another in one process.
 */
#ifndef FERRUM_TESTS_ARM_CHECK_H
#define FERRUM_TESTS_ARM_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CK_NORMAL,
    CHECK_MAX_TESTS = 16
};

/** One test function and its name. */
typedef struct TTest {
    const char *name;
    void (*run)(int _i);
} TTest;

/** A test case is the whole suite here. */
typedef struct Suite {
    const TTest *tests[CHECK_MAX_TESTS];
    int ends[CHECK_MAX_TESTS];
    int count;
} Suite;
typedef Suite TCase;
typedef Suite SRunner;

#define START_TEST(name)                                                                           \
    static void name##_run(int _i);                                                                \
    static const TTest name##_test = {#name, name##_run};                                          \
    static const TTest *const name = &name##_test;                                                 \
    static void name##_run(int _i)                                                                 \
    {
#define END_TEST }

#define ck_abort_msg(...)                                                                          \
    do {                                                                                           \
        (void)fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                      \
        (void)fprintf(stderr, __VA_ARGS__);                                                        \
        (void)fputc('\n', stderr);                                                                 \
        exit(EXIT_FAILURE);                                                                        \
    } while (0)
#define ck_assert_msg(condition, ...)                                                              \
    do {                                                                                           \
        if (!(condition))                                                                          \
            ck_abort_msg(__VA_ARGS__);                                                             \
    } while (0)
#define ck_assert(condition) ck_assert_msg(condition, "%s", #condition)
#define ck_assert_ptr_nonnull(p) ck_assert((p) != NULL)
#define ck_assert_ptr_null(p) ck_assert((p) == NULL)
#define ck_assert_int_eq(a, b) ck_assert((intmax_t)(a) == (intmax_t)(b))
#define ck_assert_uint_eq(a, b) ck_assert((uintmax_t)(a) == (uintmax_t)(b))
#define ck_assert_uint_ne(a, b) ck_assert((uintmax_t)(a) != (uintmax_t)(b))
#define ck_assert_str_eq(a, b) ck_assert(strcmp(a, b) == 0)
#define ck_assert_mem_eq(a, b, n) ck_assert(memcmp(a, b, n) == 0)

static inline Suite *suite_create(const char *name)
{
    (void)name;
    Suite *suite = calloc(1, sizeof *suite);
    ck_assert(suite != NULL);
    return suite;
}

static inline TCase *tcase_create(const char *name)
{
    return suite_create(name);
}

static inline void tcase_set_timeout(TCase *tcase, double seconds)
{
    (void)tcase;
    (void)seconds;
}

/** Runs it for _i from 0 to @p end - 1. */
static inline void tcase_add_loop_test(TCase *tcase, const TTest *test, int start, int end)
{
    (void)start;
    ck_assert(tcase->count < CHECK_MAX_TESTS);
    tcase->tests[tcase->count] = test;
    tcase->ends[tcase->count++] = end;
}

static inline void suite_add_tcase(Suite *suite, TCase *tcase)
{
    *suite = *tcase;
    free(tcase);
}

static inline SRunner *srunner_create(Suite *suite)
{
    return suite;
}

static inline void srunner_run_all(SRunner *runner, int mode)
{
    (void)mode;
    for (int t = 0; t < runner->count; t++)
        for (int i = 0; i < runner->ends[t]; i++) {
            printf("%s %d\n", runner->tests[t]->name, i);
            (void)fflush(stdout);
            runner->tests[t]->run(i);
        }
}

static inline int srunner_ntests_failed(SRunner *runner)
{
    (void)runner;
    return 0;
}

static inline void srunner_free(SRunner *runner)
{
    free(runner);
}

#endif /* FERRUM_TESTS_ARM_CHECK_H */
