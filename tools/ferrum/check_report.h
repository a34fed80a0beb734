/* SPDX-License-Identifier: MIT */
/**
 * @file check_report.h
 * @brief How `ferrum check-plugin` shows what the suite found: three reports behind one table.
 */
#ifndef FERRUM_CHECK_REPORT_H
#define FERRUM_CHECK_REPORT_H

#include "tools/kit/run.h"

/** What a report needs to know, and keeps between groups. */
typedef struct check_style {
    const char *path;
    bool each;       /**< passed cases one by one too */
    bool begun;      /**< something has been printed */
    unsigned number; /**< TAP: of the last test */
} check_style_t;

/** One way to show an outcome. */
typedef struct check_report {
    /** Called when a group is done; arg is a check_style_t. */
    void (*group)(void *arg, const cf_outcome_t *outcome, const cf_group_result_t *group);
    /** Called at the end; @p rc is what the program will return. */
    void (*end)(check_style_t *style, const cf_outcome_t *outcome, int rc);
} check_report_t;

extern const check_report_t check_report_text, check_report_json, check_report_tap;

#endif /* FERRUM_CHECK_REPORT_H */
