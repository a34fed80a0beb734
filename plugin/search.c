/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "search.h"
#include "image.h"
#include "sys.h"
#include "text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

const char *ferrum_file_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool is_plugin_file(const char *file)
{
    size_t n = strlen(file);
    return n > 3 && file[0] != '.' && strcmp(file + n - 3, ".so") == 0;
}

static bool has_file(const ferrum_search_t *search, const char *file)
{
    for (size_t i = 0; i < search->count; i++)
        if (strcmp(ferrum_file_of(search->paths[i]), file) == 0)
            return true;
    return false;
}

static ferrum_status_t add_path(ferrum_search_t *search, const char *dir, const char *file,
                                ferrum_error_t *err)
{
    size_t bytes = strlen(dir) + 1 + strlen(file) + 1;
    char *path = ferrum_sys->alloc(bytes);
    if (search->count == search->capacity && path) {
        size_t capacity = search->capacity ? 2 * search->capacity : 16;
        char **grown = ferrum_sys->alloc(capacity * sizeof *grown);
        if (grown && search->count)
            memcpy(grown, search->paths, search->count * sizeof *grown);
        if (grown) {
            ferrum_sys->release(search->paths);
            search->paths = grown;
            search->capacity = capacity;
        }
    }
    if (!path || search->count == search->capacity) {
        ferrum_sys->release(path);
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory to list the plugins in %s", dir);
    }
    (void)snprintf(path, bytes, "%s/%s", dir, file);
    search->paths[search->count++] = path;
    return FERRUM_OK;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void skip(ferrum_search_t *search, const char *why)
{
    ferrum_text_append(search->skipped, sizeof search->skipped, "%s%s",
                       search->skipped[0] ? "; " : "", why);
}

static ferrum_status_t search_list(ferrum_search_t *search, const char *dir, DIR *list,
                                   ferrum_error_t *err)
{
    size_t first = search->count;
    for (struct dirent *entry = readdir(list); entry; entry = readdir(list))
        if (is_plugin_file(entry->d_name) && !has_file(search, entry->d_name))
            FERRUM_TRY(add_path(search, dir, entry->d_name, err));
    if (search->count > first)
        qsort(search->paths + first, search->count - first, sizeof *search->paths, compare_paths);
    return FERRUM_OK;
}

/* A directory that is not there is no news; one that must not be used is. */
static ferrum_status_t search_dir(ferrum_search_t *search, const char *dir, ferrum_error_t *err)
{
    ferrum_error_t why = FERRUM_ERROR_INIT;
    if (dir[0] != '/') {
        (void)ferrum_fail(&why, FERRUM_PERMISSION, FERRUM_REASON_OTHER,
                          "'%.200s' is not an absolute path, not searched", dir);
        skip(search, why.message);
        return FERRUM_OK;
    }
    int fd = ferrum_sys->open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        if (errno != ENOENT) {
            (void)ferrum_fail(&why, FERRUM_IO, FERRUM_REASON_OTHER, "cannot search %s: %s", dir,
                              strerror(errno));
            skip(search, why.message);
        }
        return FERRUM_OK;
    }
    DIR *list = NULL;
    if (ferrum_check_owner(fd, dir, &why) != FERRUM_OK)
        skip(search, why.message);
    else if ((list = ferrum_sys->open_list(fd)) == NULL) {
        (void)ferrum_fail(&why, FERRUM_IO, FERRUM_REASON_OTHER, "cannot list %s: %s", dir,
                          strerror(errno));
        skip(search, why.message);
    }
    if (!list) {
        (void)close(fd);
        return FERRUM_OK;
    }
    ferrum_status_t status = search_list(search, dir, list, err);
    (void)closedir(list);
    return status;
}

ferrum_status_t ferrum_search_all(const ferrum_options_t *options, ferrum_search_t *out_search,
                                  ferrum_error_t *err)
{
    ferrum_search_t search = {0};
    const char *path = ferrum_options_get(options, "FERRUM_PLUGIN_PATH");
    ferrum_status_t status = FERRUM_OK;
    while (status == FERRUM_OK && path && *path) {
        char dir[512];
        size_t length = strcspn(path, ":");
        if (length >= sizeof dir) {
            skip(&search, "a directory of FERRUM_PLUGIN_PATH is longer than 511 bytes");
        } else if (length > 0) {
            memcpy(dir, path, length);
            dir[length] = '\0';
            status = search_dir(&search, dir, err);
        }
        path += length + (path[length] == ':');
    }
    if (status == FERRUM_OK)
        status = search_dir(&search, FERRUM_PKGLIBDIR, err);
    if (status != FERRUM_OK) {
        ferrum_search_free(&search);
        return status;
    }
    *out_search = search;
    return FERRUM_OK;
}

void ferrum_search_free(ferrum_search_t *search)
{
    for (size_t i = 0; i < search->count; i++)
        ferrum_sys->release(search->paths[i]);
    ferrum_sys->release(search->paths);
    *search = (ferrum_search_t){0};
}
