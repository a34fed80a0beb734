/* SPDX-License-Identifier: MIT */
#include "config.h"

#include "tests/support/files.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((noreturn)) static void give_up(const char *what, const char *path)
{
    fprintf(stderr, "test support: cannot %s %s\n", what, path);
    abort();
}

void ferrum_test_write_file(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0)
        give_up("write", path);
}

uint8_t *ferrum_test_read_file(const char *path, size_t *out_bytes)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    if (fseek(file, 0, SEEK_END) != 0)
        give_up("read", path);
    long end = ftell(file);
    if (end < 0 || fseek(file, 0, SEEK_SET) != 0)
        give_up("read", path);
    size_t bytes = (size_t)end;
    uint8_t *data = malloc(bytes + 1);
    if (!data || fread(data, 1, bytes, file) != bytes)
        give_up("read", path);
    fclose(file);
    data[bytes] = 0;
    *out_bytes = bytes;
    return data;
}

void ferrum_test_join(const char *directory, const char *name, ferrum_test_path_t out_path)
{
    int length = snprintf(out_path, FERRUM_TEST_PATH_BYTES, "%s/%s", directory, name);
    if (length < 0 || length >= FERRUM_TEST_PATH_BYTES)
        give_up("name", name);
}

void ferrum_test_make_directory(ferrum_test_path_t out_path)
{
    const char *base = getenv("TMPDIR");
    ferrum_test_join(base && *base ? base : "/tmp", "ferrum-test-XXXXXX", out_path);
    if (!mkdtemp(out_path))
        give_up("make", out_path);
}

void ferrum_test_remove_directory(const char *path)
{
    DIR *directory = opendir(path);
    if (!directory)
        give_up("open", path);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        ferrum_test_path_t file;
        ferrum_test_join(path, entry->d_name, file);
        if (unlink(file) != 0)
            give_up("remove", file);
    }
    closedir(directory);
    if (rmdir(path) != 0)
        give_up("remove", path);
}

void ferrum_test_source_path(const char *name, ferrum_test_path_t out_path)
{
    const char *root = getenv("FERRUM_TEST_SRCDIR");
    ferrum_test_join(root && *root ? root : ".", name, out_path);
}
