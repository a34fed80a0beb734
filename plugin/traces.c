/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "traces.h"
#include "sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

bool ferrum_threads_list(ferrum_thread_list_t *out_list)
{
    ferrum_thread_list_t list = {NULL, 0};
    size_t capacity = 0;
    int fd = ferrum_sys->open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? ferrum_sys->open_list(fd) : NULL;
    if (!dir) {
        if (fd >= 0)
            (void)close(fd);
        return false;
    }
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        long id = strtol(entry->d_name, NULL, 10);
        if (id <= 0)
            continue;
        if (list.count == capacity) {
            capacity = capacity ? 2 * capacity : 64;
            pid_t *grown = ferrum_sys->alloc(capacity * sizeof *grown);
            if (!grown) {
                ferrum_threads_free(&list);
                (void)closedir(dir);
                return false;
            }
            if (list.count)
                memcpy(grown, list.ids, list.count * sizeof *grown);
            ferrum_sys->release(list.ids);
            list.ids = grown;
        }
        list.ids[list.count++] = (pid_t)id;
    }
    (void)closedir(dir);
    *out_list = list;
    return true;
}

void ferrum_threads_free(ferrum_thread_list_t *list)
{
    ferrum_sys->release(list->ids);
    *list = (ferrum_thread_list_t){NULL, 0};
}

static long count_new(const ferrum_thread_list_t *before)
{
    ferrum_thread_list_t now;
    long new_threads = 0;
    if (!ferrum_threads_list(&now))
        return -1;
    for (size_t i = 0; i < now.count; i++) {
        size_t j = 0;
        while (j < before->count && before->ids[j] != now.ids[i])
            j++;
        new_threads += j == before->count;
    }
    ferrum_threads_free(&now);
    return new_threads;
}

long ferrum_threads_new_since(const ferrum_thread_list_t *before)
{
    long new_threads = count_new(before);
    /* A joined thread can still be listed for an instant. */
    for (int i = 0; i < 20 && new_threads > 0; i++) {
        const struct timespec moment = {0, 2000000};
        (void)nanosleep(&moment, NULL);
        new_threads = count_new(before);
    }
    return new_threads;
}

/* One line of /proc/self/maps: "address perms offset device inode path". */
static bool line_names_inode(const char *line, ino_t inode)
{
    unsigned long found = 0;
    return strstr(line, "memfd:ferrum-plugin") &&
           sscanf(line, "%*s %*s %*s %*s %lu", &found) == 1 && found == (unsigned long)inode;
}

bool ferrum_is_mapped(ino_t inode)
{
    char buffer[4096];
    size_t used = 0;
    bool found = false;
    int fd = ferrum_sys->open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return true;
    while (!found) {
        ssize_t n = ferrum_sys->read(fd, buffer + used, sizeof buffer - 1 - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            found = n < 0;
            break;
        }
        used += (size_t)n;
        buffer[used] = '\0';
        char *line = buffer;
        for (char *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
            *end = '\0';
            found = found || line_names_inode(line, inode);
        }
        used -= (size_t)(line - buffer);
        if (used == sizeof buffer - 1)
            used = 0; /* a line longer than any of ours */
        memmove(buffer, line, used);
    }
    (void)close(fd);
    return found;
}

static int compare_name(struct dl_phdr_info *info, size_t size, void *name)
{
    (void)size;
    return info->dlpi_name && strcmp(info->dlpi_name, name) == 0;
}

bool ferrum_is_linked(const char *name)
{
    char copy[64];
    (void)snprintf(copy, sizeof copy, "%s", name);
    return dl_iterate_phdr(compare_name, copy) != 0;
}
