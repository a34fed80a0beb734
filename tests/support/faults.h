/* SPDX-License-Identifier: MIT */
/**
 * @file faults.h
 * @brief Lets one chosen call to the operating system or to a library fail, and finds what is left
 *        behind. The one mechanism of all tests that inject faults.
 *
 * It works by the linker's --wrap: a test that uses it is linked with $(fault_ldflags), which name
 * every wrapped function, and with the convenience libraries instead of libferrum.so. Calls that
 * the C library makes itself are not seen; memory of Jansson is, through its allocation hooks. In
 * programs that do not use these flags nothing changes.
 */
#ifndef FERRUM_TEST_FAULTS_H
#define FERRUM_TEST_FAULTS_H

#include <ferrum/types.h>

#include <stdbool.h>
#include <stdint.h>

/** Count wrapped calls from now on, in every thread; call number @p nth (from 0) fails, a negative
 *  number: none does. Memory allocated from now on is tracked. */
void faults_begin(long nth);
/** Stop. The name of the function that failed, NULL when there were not so many calls. */
const char *faults_end(void);
/** Wrapped calls between the last begin and end. */
long faults_calls(void);

/** Only calls of the function @p name count from the next begin on; NULL: all. */
void faults_only(const char *name);

/** What a process holds. */
typedef struct faults_trace {
    long blocks;   /**< allocated between a begin and an end, not freed */
    long fds;      /**< open descriptors */
    long threads;  /**< of the process */
    long mappings; /**< of files, by lines of /proc/self/maps that name one */
} faults_trace_t;

/** Look now; call it between end and begin. */
faults_trace_t faults_trace(void);

/** One thing to try with every call failing in turn. */
typedef struct faults_operation {
    const char *name;
    /** Do it and undo it; the status of the first step that failed. */
    ferrum_status_t (*run)(ferrum_error_t *err);
    /** Functions whose failure it may survive; ends with NULL. NULL: none. */
    const char *const *may_survive;
    /** Fail every @p step-th call (0: every one), for long operations. */
    long step;
    /** Failures may leave something behind for ever: those whose message contains this, and those
     *  that it survives, for want of a way to tell. NULL: none may. */
    const char *leaves;
} faults_operation_t;

/**
 * Let every call of @p operation fail once. Ends the test (Check) unless each time: there is an
 * error, with one printable line of text, and OUT_OF_MEMORY exactly for memory; nothing is left
 * behind; and the operation succeeds afterwards. Returns how many calls were made to fail.
 */
long faults_exhaust(const faults_operation_t *operation);
/** The same for call number @p first (from 0) and every @p step-th one after it. */
long faults_exhaust_some(const faults_operation_t *operation, long first, long step);

#endif /* FERRUM_TEST_FAULTS_H */
