/* SPDX-License-Identifier: MIT */
/**
 * @file string_view.h
 * @brief Bytes that lie somewhere else: names and values inside mapped files.
 */
#ifndef FERRUM_HOST_STRING_VIEW_H
#define FERRUM_HOST_STRING_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/** Borrowed bytes, *not* NUL-terminated; valid as long as the object that they were got from. */
typedef struct ferrum_string_view {
    const char *data;
    size_t length; /**< bytes */
} ferrum_string_view_t;

/** Longest part of a name that messages show: they are one line of 240 bytes. */
#define FERRUM_VIEW_SHOWN_BYTES 96

/** The two arguments of a `%.*s` that shows a view, cut to FERRUM_VIEW_SHOWN_BYTES. */
#define FERRUM_VIEW_ARGS(view)                                                                     \
    (int)((view).length < FERRUM_VIEW_SHOWN_BYTES ? (view).length : FERRUM_VIEW_SHOWN_BYTES),      \
        (view).data

/** View of a C string. [any-thread] */
static inline ferrum_string_view_t ferrum_view(const char *text)
{
    ferrum_string_view_t view = {text, strlen(text)};
    return view;
}

/** Whether two views hold the same bytes. [any-thread] */
static inline bool ferrum_view_equal(ferrum_string_view_t a, ferrum_string_view_t b)
{
    return a.length == b.length && (a.length == 0 || memcmp(a.data, b.data, a.length) == 0);
}

#endif /* FERRUM_HOST_STRING_VIEW_H */
