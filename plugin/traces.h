/* SPDX-License-Identifier: MIT */
/* What the kernel and the dynamic linker know about this process: threads and mappings. */
#ifndef FERRUM_PLUGIN_TRACES_H
#define FERRUM_PLUGIN_TRACES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/** Numbers of the threads that existed at one moment. */
typedef struct ferrum_thread_list {
    pid_t *ids;
    size_t count;
} ferrum_thread_list_t;

/** List the threads of this process; false when /proc or memory fails. */
bool ferrum_threads_list(ferrum_thread_list_t *out_list);
void ferrum_threads_free(ferrum_thread_list_t *list);
/**
 * Number of threads now that are not in @p before; -1 when it cannot be told. Threads that are
 * about to end are given a moment.
 */
long ferrum_threads_new_since(const ferrum_thread_list_t *before);

/** Whether a file with this inode, named memfd:ferrum-plugin, is mapped; true when it cannot be
 *  told. */
bool ferrum_is_mapped(ino_t inode);
/** Whether the dynamic linker has an object that was opened under @p name. */
bool ferrum_is_linked(const char *name);

#endif /* FERRUM_PLUGIN_TRACES_H */
