/* SPDX-License-Identifier: MIT */
/*
 * Plugins whose probe brought its process down, remembered by content. A record is a small text
 * file, SIZE-SHA256, in the directory `quarantine` below FERRUM_CACHE_DIR; deleting it lets the
 * plugin be tried again. Where no record can be written, this process remembers by itself.
 */
#ifndef FERRUM_PLUGIN_QUARANTINE_H
#define FERRUM_PLUGIN_QUARANTINE_H

#include "sha256.h"

#include <ferrum/loader.h>

#include <stdbool.h>

/** What identifies a file in quarantine. */
typedef struct ferrum_content {
    uint64_t size;
    char hex[FERRUM_SHA256_HEX];
} ferrum_content_t;

/** What is remembered of one. */
typedef struct ferrum_record {
    char why[160];  /**< "crashed with signal 11 in its probe" */
    char path[640]; /**< of the record's file; "" when only this process knows */
} ferrum_record_t;

/** Whether a file of @p size bytes could be in quarantine: no hash is needed to say no. */
bool ferrum_quarantine_may_have(const ferrum_options_t *options, uint64_t size);
/** Find a record. */
bool ferrum_quarantine_find(const ferrum_options_t *options, const ferrum_content_t *content,
                            ferrum_record_t *out_record);
/** Remember that @p content (a file once seen at @p path) did what @p why says. */
void ferrum_quarantine_add(const ferrum_options_t *options, const ferrum_content_t *content,
                           const char *path, const char *why, ferrum_record_t *out_record);

/** Files that survived a probe of this process, by size and the image's own quick hash: no more is
 *  at stake than a second probe. */
bool ferrum_quarantine_is_known_good(uint64_t size, uint64_t quick_hash);
void ferrum_quarantine_note_good(uint64_t size, uint64_t quick_hash);

#endif /* FERRUM_PLUGIN_QUARANTINE_H */
