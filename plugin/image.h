/* SPDX-License-Identifier: MIT */
/*
 * A plugin file as bytes that nobody can change any more: read once into a sealed memfd. The fd
 * stays open as long as the code is mapped, so that replacing the file on disk, or the kernel's
 * reuse of an inode number, can never make dlopen() hand back other code.
 */
#ifndef FERRUM_PLUGIN_IMAGE_H
#define FERRUM_PLUGIN_IMAGE_H

#include <ferrum/types.h>

#include <stdbool.h>
#include <sys/types.h>

/** Larger files are refused. */
#define FERRUM_IMAGE_MAX_BYTES ((uint64_t)4 << 30)

typedef struct ferrum_image {
    int fd; /**< the sealed copy, or -1 */
    ino_t inode;
    uint64_t size;
    uint64_t hash;
    const unsigned char *bytes; /**< read-only mapping, until ferrum_image_unmap */
} ferrum_image_t;

/** Refuse a file or directory that other users could have put there: world-writable, or owned by
 *  neither root nor the current user. */
ferrum_status_t ferrum_check_owner(int fd, const char *path, ferrum_error_t *err);

/**
 * Read the file at @p path into @p out_image.
 * @param trusted the user named this very file: ownership is not checked
 * Errors: NOT_FOUND, PERMISSION, IO, CORRUPT (empty), OUT_OF_MEMORY. [any-thread]
 */
ferrum_status_t ferrum_image_read(const char *path, bool trusted, ferrum_image_t *out_image,
                                  ferrum_error_t *err);
/** Drop the mapping, keep the fd. */
void ferrum_image_unmap(ferrum_image_t *image);
/** Drop everything. */
void ferrum_image_close(ferrum_image_t *image);
/** Whether two images have the same content; their bytes are mapped for the comparison. */
bool ferrum_image_same(const ferrum_image_t *a, const ferrum_image_t *b);

#endif /* FERRUM_PLUGIN_IMAGE_H */
