/* SPDX-License-Identifier: MIT */
/**
 * @file hostile.h
 * @brief The table of hostile plugins: what each does, how it is met, and what has to come of it.
 */
#ifndef FERRUM_TEST_HOSTILE_H
#define FERRUM_TEST_HOSTILE_H

#include "tests/loader/support.h"

/** How a plugin is met. */
typedef enum hostile_how {
    MET_BY_PATH,  /**< opened in this process; the text is in the error, or in what is reported of
                       the probe and of the unloading */
    MET_BY_NAME,  /**< selected by its name from a directory */
    MET_BY_AUTO,  /**< chosen by `auto`, which lets a child process probe it first; the second time
                       it is in quarantine */
    MET_BY_CHECK, /**< `ferrum check-plugin`: not conforming, and the text is in the report */
    MET_BY_NOTE   /**< the same: conforming, and the text is in the report */
} hostile_how_t;

/** One hostile plugin. */
typedef struct hostile {
    hostile_how_t how;
    const char *plugin;              /**< fixture that is built; NULL: metal-stub, unharmed */
    const char *words;               /**< what it is told; MET_BY_CHECK: then the groups to run */
    void (*spoil)(const char *path); /**< what is done to its copy */
    const char *groups;              /**< MET_BY_CHECK */
    ferrum_status_t status;          /**< of opening or choosing it */
    const char *text;
} hostile_t;

extern const hostile_t hostile_table[];
extern const int hostile_count;

/** A directory for one test; spoil functions may put things beside the plugin. */
extern ferrum_test_path_t hostile_directory;

/* ---- a host that goes on serving: cpu.so computes on a thread of its own ---- */

/** Start computing. */
void guard_start(void);
/** Fail the test unless results were, and still are, right; what happened in between is named. */
void guard_check(const char *during);
/** Stop, and see cpu.so unloaded. */
void guard_stop(void);

#endif /* FERRUM_TEST_HOSTILE_H */
