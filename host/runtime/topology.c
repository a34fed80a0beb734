/* SPDX-License-Identifier: MIT */
#include <config.h>

#include "host/runtime/topology.h"

#include <hwloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

/* The core of each processor, by the number that the system gives it. */
static struct {
    pthread_once_t once;
    uint32_t core_of[FERRUM_TOPOLOGY_MAX];
} machine = {.once = PTHREAD_ONCE_INIT};

static int load(hwloc_topology_t *out_topology)
{
    if (hwloc_topology_init(out_topology) != 0)
        return 0;
    if (hwloc_topology_set_all_types_filter(*out_topology, HWLOC_TYPE_FILTER_KEEP_NONE) == 0 &&
        hwloc_topology_set_type_filter(*out_topology, HWLOC_OBJ_CORE, HWLOC_TYPE_FILTER_KEEP_ALL) ==
            0 &&
        hwloc_topology_set_flags(*out_topology, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED) == 0 &&
        hwloc_topology_load(*out_topology) == 0)
        return 1;
    hwloc_topology_destroy(*out_topology);
    return 0;
}

/* A processor that hwloc does not know counts as a core of its own. */
static void read_machine(void)
{
    hwloc_topology_t topology;
    for (uint32_t i = 0; i < FERRUM_TOPOLOGY_MAX; i++)
        machine.core_of[i] = i;
    if (!load(&topology))
        return;
    const int cores = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE);
    for (int c = 0; c < cores; c++) {
        const hwloc_obj_t core = hwloc_get_obj_by_type(topology, HWLOC_OBJ_CORE, (unsigned)c);
        const int first = hwloc_bitmap_first(core->cpuset);
        for (int p = first; p >= 0 && p < (int)FERRUM_TOPOLOGY_MAX;
             p = hwloc_bitmap_next(core->cpuset, p))
            machine.core_of[p] = (uint32_t)first;
    }
    hwloc_topology_destroy(topology);
}

void ferrum_topology_read(ferrum_topology_t *out_topology)
{
    unsigned long words[FERRUM_TOPOLOGY_MAX / (8 * sizeof(unsigned long))] = {0};
    cpu_set_t *const mask = (cpu_set_t *)(void *)words;
    uint8_t seen[FERRUM_TOPOLOGY_MAX] = {0};
    uint32_t rest = 0;
    uint32_t later[FERRUM_TOPOLOGY_MAX];

    (void)pthread_once(&machine.once, read_machine);
    out_topology->cores = 0;
    if (sched_getaffinity(0, sizeof words, mask) != 0)
        CPU_SET_S(0, sizeof words, mask);
    for (uint32_t p = 0; p < FERRUM_TOPOLOGY_MAX; p++) {
        if (!CPU_ISSET_S(p, sizeof words, mask))
            continue;
        if (seen[machine.core_of[p]]++)
            later[rest++] = p;
        else
            out_topology->order[out_topology->cores++] = p;
    }
    memcpy(out_topology->order + out_topology->cores, later, rest * sizeof *later);
    out_topology->processors = out_topology->cores + rest;
}

enum {
    PATH_BYTES = 1024
};

/* Quota and period of one group, "max" or -1 meaning no limit; version 2 has both in one file. */
static uint32_t read_limit(const char *directory, int version)
{
    char path[PATH_BYTES + 64];
    long long quota = -1, period = 0;

    (void)snprintf(path, sizeof path, "%s/%s", directory,
                   version == 2 ? "cpu.max" : "cpu.cfs_quota_us");
    FILE *file = fopen(path, "re");
    if (!file)
        return UINT32_MAX;
    int fields = fscanf(file, "%lld %lld", &quota, &period);
    (void)fclose(file);
    if (version == 1 && fields == 1) {
        (void)snprintf(path, sizeof path, "%s/cpu.cfs_period_us", directory);
        file = fopen(path, "re");
        fields += file && fscanf(file, "%lld", &period) == 1;
        if (file)
            (void)fclose(file);
    }
    if (fields != 2 || quota <= 0 || period <= 0 || quota / period >= UINT32_MAX)
        return UINT32_MAX;
    return (uint32_t)((quota + period - 1) / period);
}

/* The least limit of a group and all groups above it. */
static uint32_t least_limit(const char *mount, const char *group, int version)
{
    char path[PATH_BYTES];
    uint32_t least = UINT32_MAX;
    const int length = snprintf(path, sizeof path, "%s%s", mount, group);

    if (length < 0 || length >= PATH_BYTES)
        return least;
    for (;;) {
        const uint32_t limit = read_limit(path, version);
        least = limit < least ? limit : least;
        char *slash = strrchr(path, '/');
        if (!slash || (size_t)(slash - path) < strlen(mount))
            return least;
        *slash = '\0';
    }
}

/* Whether a list such as "cpu,cpuacct" has "cpu". */
static int names_cpu(const char *list, const char *end)
{
    while (list < end) {
        const char *comma = memchr(list, ',', (size_t)(end - list));
        const char *stop = comma ? comma : end;
        if (stop - list == 3 && memcmp(list, "cpu", 3) == 0)
            return 1;
        list = stop + 1;
    }
    return 0;
}

uint32_t ferrum_topology_quota(const char *root)
{
    char path[PATH_BYTES], line[PATH_BYTES];
    uint32_t least = UINT32_MAX;

    (void)snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    if (!file)
        return least;
    /* A line is hierarchy:controllers:group; hierarchy 0 is version 2. */
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        const char *controllers = strchr(line, ':');
        const char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        const int version = strncmp(line, "0::", 3) == 0 ? 2 : 1;
        if (version == 1 && !names_cpu(controllers + 1, group))
            continue;
        (void)snprintf(path, sizeof path, "%s/sys/fs/cgroup%s", root, version == 2 ? "" : "/cpu");
        const uint32_t limit =
            least_limit(path, strcmp(group + 1, "/") == 0 ? "" : group + 1, version);
        least = limit < least ? limit : least;
    }
    (void)fclose(file);
    return least;
}
