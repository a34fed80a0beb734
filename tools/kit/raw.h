/* SPDX-License-Identifier: MIT */
/**
 * @file raw.h
 * @brief The plugin without the loader around it: its exported query, called directly.
 */
#ifndef FERRUM_KIT_RAW_H
#define FERRUM_KIT_RAW_H

#include "tools/kit/kit.h"

/** A mapped plugin file. */
typedef struct cf_raw {
    void *handle;
    ferrum_plugin_query_fn *query;
} cf_raw_t;

/** Map the file and find the query; a failure is the running case's. */
bool cf_raw_open(cf_suite_t *suite, cf_raw_t *out_raw);
void cf_raw_close(cf_raw_t *raw);
/** Number of defined dynamic symbols besides the query; their first names go to @p out_names. */
unsigned cf_raw_exports(const cf_raw_t *raw, char *out_names, size_t size);

/** Memory of which every byte that must not be written is known. */
typedef union cf_guarded {
    ferrum_head_t head;
    ferrum_error_t error;
    uint64_t align;
    unsigned char bytes[1024];
} cf_guarded_t;
/** Fill with the pattern. */
void cf_guard(cf_guarded_t *memory);
/** Whether all bytes from @p size on still hold it. */
bool cf_is_guarded(const cf_guarded_t *memory, size_t size);

#endif /* FERRUM_KIT_RAW_H */
