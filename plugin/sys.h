/* SPDX-License-Identifier: MIT */
/*
 * Everything that the loader asks of the operating system and that can fail, behind one table, so
 * that tests can let each call fail once. The table is replaced only by tests, before they start.
 */
#ifndef FERRUM_PLUGIN_SYS_H
#define FERRUM_PLUGIN_SYS_H

#include <dirent.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

typedef struct ferrum_sys {
    void *(*alloc)(size_t bytes); /**< zeroed; NULL when memory has run out */
    void (*release)(void *block);
    void *(*host_alloc)(size_t bytes, size_t align); /**< default memory of plugins */
    int (*open)(const char *path, int flags);
    int (*stat_fd)(int fd, struct stat *out);
    ssize_t (*read)(int fd, void *out, size_t bytes);
    DIR *(*open_list)(int dir_fd); /**< takes over dir_fd on success */
    int (*memfd)(const char *name);
    ssize_t (*write)(int fd, const void *data, size_t bytes);
    int (*seal)(int fd);                /**< against every change */
    void *(*map)(int fd, size_t bytes); /**< read-only; NULL on failure */
    void *(*dl_open)(const char *path);
    void *(*dl_sym)(void *handle, const char *name);
    int (*dl_close)(void *handle);
} ferrum_sys_t;

/** The real operating system. */
extern const ferrum_sys_t ferrum_sys_real;
/** The table in use. */
extern const ferrum_sys_t *ferrum_sys;

#endif /* FERRUM_PLUGIN_SYS_H */
