/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE /* MAP_FIXED_NOREPLACE, mallinfo2 */
#include "tests/swap/process.h"

#include <dirent.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    POISONED = 256
};
static plugin_range_t poisoned[POISONED];
static int poisoned_count;

static long count_entries(const char *directory)
{
    DIR *dir = opendir(directory);
    long count = 0;
    if (!dir)
        return -1;
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
        count += entry->d_name[0] != '.';
    (void)closedir(dir);
    return count;
}

int process_plugin_ranges(plugin_range_t out[PLUGIN_RANGES])
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    int count = 0;
    if (!maps)
        return -1;
    while (fgets(line, sizeof line, maps)) {
        unsigned long begin, end;
        if (!strstr(line, "memfd:ferrum-plugin") || sscanf(line, "%lx-%lx", &begin, &end) != 2)
            continue;
        if (count > 0 && out[count - 1].end == begin)
            out[count - 1].end = end;
        else if (count < PLUGIN_RANGES)
            out[count++] = (plugin_range_t){begin, end};
    }
    (void)fclose(maps);
    return count;
}

process_t process_look(void)
{
    plugin_range_t ranges[PLUGIN_RANGES];
    process_t now = {.fds = count_entries("/proc/self/fd"),
                     .threads = count_entries("/proc/self/task"),
                     .plugin_mappings = process_plugin_ranges(ranges)};
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
    now.heap_bytes = mallinfo2().uordblks + mallinfo2().hblkhd;
#endif
    return now;
}

static void lift(int index)
{
    (void)munmap((void *)poisoned[index].begin, poisoned[index].end - poisoned[index].begin);
}

int process_poison(const plugin_range_t *range)
{
    void *at = (void *)range->begin;
    size_t bytes = range->end - range->begin;
    void *got = mmap(at, bytes, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (got == MAP_FAILED)
        return 0;
    if (got != at) { /* a kernel that does not know the flag */
        (void)munmap(got, bytes);
        return 0;
    }
    int index = poisoned_count++ % POISONED;
    if (poisoned_count > POISONED)
        lift(index);
    poisoned[index] = *range;
    return 1;
}

void process_lift_poison(void)
{
    for (int i = 0; i < poisoned_count && i < POISONED; i++)
        lift(i);
    poisoned_count = 0;
}
