/* SPDX-License-Identifier: MIT */
/** @file faults_wrapped.h  Between the wrapped functions and the counting of their calls. */
#ifndef FERRUM_TEST_FAULTS_WRAPPED_H
#define FERRUM_TEST_FAULTS_WRAPPED_H

#include <stdbool.h>
#include <stddef.h>

/** One call of @p name; true: it is to fail, and errno is @p error. */
bool faults_hit(const char *name, int error);
/** A new block, or NULL; returns it. */
void *faults_allocated(void *block);
/** A block that is about to be freed, or NULL. */
void faults_freed(void *block);

/** What --wrap leaves of malloc(). */
void *__real_malloc(size_t bytes);

#endif /* FERRUM_TEST_FAULTS_WRAPPED_H */
