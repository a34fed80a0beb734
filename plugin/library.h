/* SPDX-License-Identifier: MIT */
/*
 * One mapped plugin file: image, dlopen() handle, and the proof that nothing is left of it after
 * dlclose(). Libraries that must stay (pinned, or not provably gone) are kept in a process-wide
 * list; opening the same content again reuses a pinned one, so that reopening does not pile up
 * copies.
 */
#ifndef FERRUM_PLUGIN_LIBRARY_H
#define FERRUM_PLUGIN_LIBRARY_H

#include "image.h"
#include "probe.h"

#include <ferrum/plugin.h>

typedef struct ferrum_library ferrum_library_t;

/** What became of a library when its last user let go. */
typedef enum ferrum_library_fate {
    FERRUM_LIBRARY_GONE,   /**< proven unmapped */
    FERRUM_LIBRARY_PINNED, /**< kept on purpose */
    FERRUM_LIBRARY_ZOMBIE  /**< kept because the proof failed; never closed again */
} ferrum_library_fate_t;

/**
 * Read, check, let a child process probe what has to be probed, dlopen. [any-thread]
 */
ferrum_status_t ferrum_library_open(const char *path, ferrum_asked_t asked,
                                    const ferrum_options_t *options, const ferrum_logger_t *logger,
                                    ferrum_library_t **out_library, ferrum_error_t *err);
/** The exported query. */
ferrum_plugin_query_fn *ferrum_library_query(const ferrum_library_t *library);
/** Keep it mapped for ever; the first reason counts. */
void ferrum_library_pin(ferrum_library_t *library, const char *reason);
/** Why it is pinned; "" when it is not. */
const char *ferrum_library_pinned_reason(const ferrum_library_t *library);
/**
 * Drop one use.
 * @param keep_reason non-NULL: something of the plugin is still alive; keep it as a zombie
 * @param out_detail  one line for people
 */
ferrum_library_fate_t ferrum_library_close(ferrum_library_t *library, const char *keep_reason,
                                           char *out_detail, size_t detail_size);

#endif /* FERRUM_PLUGIN_LIBRARY_H */
