/* SPDX-License-Identifier: MIT */
/*
 * The first look at a plugin happens in another process. The sealed image is handed to the program
 * ferrum-probe, which maps it, queries it and runs its probe; a file that brings that process down,
 * or keeps it busy for too long, is put in quarantine and never mapped here.
 *
 * The child is started with posix_spawn, which is safe in hosts with many threads: nothing of the
 * host runs between the fork and the exec.
 */
#ifndef FERRUM_PLUGIN_PROBE_H
#define FERRUM_PLUGIN_PROBE_H

#include "image.h"

#include <ferrum/loader.h>

/** How a file came to be opened; each trusts it less than the one before. */
typedef enum ferrum_asked {
    FERRUM_ASKED_PATH, /**< the user named this very file */
    FERRUM_ASKED_NAME, /**< the user named the backend */
    FERRUM_ASKED_ANY   /**< it lay on the search path */
} ferrum_asked_t;

/**
 * Refuse @p image if it is in quarantine, or does not survive its probe in a child process.
 * FERRUM_PROBE decides what is probed:
 *   auto   what nobody asked for by name or path and does not lie in the installed directory
 *   child  everything
 *   none   nothing, and the quarantine is not looked at either
 * @param path  for messages and the installed directory
 * Errors: BAD_PLUGIN (crashed, or in quarantine), TIMEOUT (hung), INVALID_ARGUMENT (FERRUM_PROBE),
 * IO (`child`, but no child process can be started). [any-thread]
 */
ferrum_status_t ferrum_probe_image(const ferrum_image_t *image, const char *path,
                                   ferrum_asked_t asked, const ferrum_options_t *options,
                                   const ferrum_logger_t *logger, ferrum_error_t *err);

#endif /* FERRUM_PLUGIN_PROBE_H */
