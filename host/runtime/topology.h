/* SPDX-License-Identifier: MIT */
/**
 * @file topology.h
 * @brief Which processors this process may use, and how many of them are worth a thread.
 *
 * Two processors of one core share its multipliers and caches, so a thread team takes one per
 * core. The cores come from hwloc, once per process; which of them are allowed, from the affinity
 * mask of the calling thread at each call; how much time they may use, from the control group.
 */
#ifndef FERRUM_HOST_TOPOLOGY_H
#define FERRUM_HOST_TOPOLOGY_H

#include <stddef.h>
#include <stdint.h>

/** Most processors that are looked at. */
#define FERRUM_TOPOLOGY_MAX 4096u

/** What the calling thread may run on. */
typedef struct ferrum_topology {
    uint32_t processors;                 /**< at least 1 */
    uint32_t cores;                      /**< that they belong to, at least 1 */
    uint32_t order[FERRUM_TOPOLOGY_MAX]; /**< [processors]: first one of each core, then the rest */
} ferrum_topology_t;

/** Look at the affinity mask. [any-thread] */
void ferrum_topology_read(ferrum_topology_t *out_topology);

/**
 * Whole processors that the control group of this process may use, rounded up; UINT32_MAX: no
 * limit. @p root is put before the paths of proc and sys, "" for the real ones. [any-thread]
 */
uint32_t ferrum_topology_quota(const char *root);

#endif /* FERRUM_HOST_TOPOLOGY_H */
