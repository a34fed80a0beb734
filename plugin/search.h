/* SPDX-License-Identifier: MIT */
/*
 * Where plugins are looked for: FERRUM_PLUGIN_PATH, then the installed directory. The working
 * directory is never searched, nor is any directory that other users can write to.
 */
#ifndef FERRUM_PLUGIN_SEARCH_H
#define FERRUM_PLUGIN_SEARCH_H

#include <ferrum/loader.h>

/** The plugin files that were found, in search order. */
typedef struct ferrum_search {
    char **paths;
    size_t count;
    size_t capacity;
    char skipped[512]; /**< directories that may not be searched and why, separated by "; " */
} ferrum_search_t;

/** Find every `*.so` on the search path, sorted within a directory; of files with one name the
 *  first counts. */
ferrum_status_t ferrum_search_all(const ferrum_options_t *options, ferrum_search_t *out_search,
                                  ferrum_error_t *err);
void ferrum_search_free(ferrum_search_t *search);
/** The part of @p path after the last '/'. */
const char *ferrum_file_of(const char *path);

#endif /* FERRUM_PLUGIN_SEARCH_H */
