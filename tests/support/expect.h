/* SPDX-License-Identifier: MIT */
/**
 * @file expect.h
 * @brief Assertions on calls that return a status. In each, `err` is a ferrum_error_t that the
 *        call is given as `&err`.
 */
#ifndef FERRUM_TEST_EXPECT_H
#define FERRUM_TEST_EXPECT_H

#include <check.h>
#include <string.h>

#include <ferrum/types.h>

/** The call succeeds and leaves the error struct alone. */
#define EXPECT_OK(call)                                                                            \
    do {                                                                                           \
        ferrum_error_t err = FERRUM_ERROR_INIT;                                                    \
        ferrum_status_t expect_status_ = (call);                                                   \
        ck_assert_msg(expect_status_ == FERRUM_OK, "%s: status %d: %s", #call, expect_status_,     \
                      err.message);                                                                \
        ck_assert_msg(err.status == FERRUM_OK, "%s: error set on success", #call);                 \
    } while (0)

/** The call fails with this status, and its one-line message contains @p text. */
#define EXPECT_FAILS(call, wanted, text)                                                           \
    do {                                                                                           \
        ferrum_error_t err = FERRUM_ERROR_INIT;                                                    \
        ferrum_status_t expect_status_ = (call);                                                   \
        ck_assert_msg(expect_status_ == (wanted), "%s: status %d, not %d: %s", #call,              \
                      expect_status_, (wanted), err.message);                                      \
        ck_assert_msg(err.status == (wanted), "%s: err.status is %d", #call, err.status);          \
        ck_assert_msg(strstr(err.message, (text)) != NULL, "%s: \"%s\" is not in \"%s\"", #call,   \
                      (text), err.message);                                                        \
        ck_assert_msg(strchr(err.message, '\n') == NULL, "more than one line: %s", err.message);   \
    } while (0)

/** Runs a suite and returns the exit status of the program. */
static inline int expect_run(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}

#endif /* FERRUM_TEST_EXPECT_H */
