/* SPDX-License-Identifier: MIT */
/**
 * @file mapped_file.h
 * @brief A whole regular file, mapped read-only.
 */
#ifndef FERRUM_HOST_MAPPED_FILE_H
#define FERRUM_HOST_MAPPED_FILE_H

#include <ferrum/types.h>

/** A mapping. `data` is page-aligned; NULL when `bytes` is 0. */
typedef struct ferrum_mapped_file {
    const uint8_t *data;
    size_t bytes;
} ferrum_mapped_file_t;

/** How the pages will be read: passed to madvise, never changes results. */
typedef enum ferrum_map_advice {
    FERRUM_MAP_NORMAL,    /**< parsed once, small */
    FERRUM_MAP_WILL_NEED, /**< weights: start reading ahead now */
} ferrum_map_advice_t;

/**
 * Map @p path (O_CLOEXEC, MAP_PRIVATE, PROT_READ; the descriptor is closed again). Symbolic links
 * are followed: model caches are made of them. A truncation of the file by another process while
 * it is mapped raises SIGBUS on access, as with every mapped file. [any-thread]
 *
 * Errors: NOT_FOUND (no such file), IO (open, stat or map failed; not a regular file).
 */
ferrum_status_t ferrum_mapped_file_open(const char *path, ferrum_map_advice_t advice,
                                        ferrum_mapped_file_t *out_file, ferrum_error_t *err);

/** Let go of the memory that reading the pages took; they stay mapped, and in the system's cache.
 *  [any-thread] */
void ferrum_mapped_file_release_pages(const ferrum_mapped_file_t *file);

/** Unmap; a zeroed struct is fine. Leaves the struct zeroed. [init] */
void ferrum_mapped_file_close(ferrum_mapped_file_t *file);

#endif /* FERRUM_HOST_MAPPED_FILE_H */
