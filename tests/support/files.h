/* SPDX-License-Identifier: MIT */
/**
 * @file files.h
 * @brief Files and scratch directories of tests. Failures end the test.
 */
#ifndef FERRUM_TEST_FILES_H
#define FERRUM_TEST_FILES_H

#include <stddef.h>
#include <stdint.h>

/** Room for any path that these functions make. */
#define FERRUM_TEST_PATH_BYTES 4096
typedef char ferrum_test_path_t[FERRUM_TEST_PATH_BYTES];

/** Write (or overwrite) a file. */
void ferrum_test_write_file(const char *path, const void *data, size_t bytes);
/** The whole file with a NUL behind it; NULL when it does not exist. Release with free(). */
uint8_t *ferrum_test_read_file(const char *path, size_t *out_bytes);
/** A new empty directory under TMPDIR (or /tmp). */
void ferrum_test_make_directory(ferrum_test_path_t out_path);
/** Remove a directory made above, with the plain files in it. */
void ferrum_test_remove_directory(const char *path);
/** `directory/name`. */
void ferrum_test_join(const char *directory, const char *name, ferrum_test_path_t out_path);
/** A file of the source tree: `$FERRUM_TEST_SRCDIR/name`, or `./name` when that is not set. */
void ferrum_test_source_path(const char *name, ferrum_test_path_t out_path);

#endif /* FERRUM_TEST_FILES_H */
