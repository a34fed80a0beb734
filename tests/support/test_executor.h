/* SPDX-License-Identifier: MIT */
/**
 * @file test_executor.h
 * @brief A plain team of threads for tests of plugins: condition variables only, so that sanitizers
 *        see every hand-over.
 */
#ifndef FERRUM_TEST_EXECUTOR_H
#define FERRUM_TEST_EXECUTOR_H

#include <ferrum/host.h>

typedef struct test_executor test_executor_t;

/** A team of @p width members, the caller of run included. */
test_executor_t *test_executor_new(uint32_t width);
/** What to give to context_new. */
const ferrum_executor_t *test_executor_get(const test_executor_t *team);
/** Regions run so far. */
unsigned test_executor_regions(const test_executor_t *team);
void test_executor_free(test_executor_t *team);

#endif /* FERRUM_TEST_EXECUTOR_H */
