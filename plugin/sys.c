/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "sys.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static void *alloc_zeroed(size_t bytes)
{
    return calloc(1, bytes ? bytes : 1);
}

static void *alloc_aligned(size_t bytes, size_t align)
{
    void *block = NULL;
    if (align < sizeof(void *))
        align = sizeof(void *);
    return posix_memalign(&block, align, bytes) == 0 ? block : NULL;
}

static int open_file(const char *path, int flags)
{
    return open(path, flags);
}

static int memfd_new(const char *name)
{
    return memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

/* Fresh pages may be held for a moment by the kernel itself (reclaim, migration, monitoring); a
 * write seal then fails with EBUSY and succeeds a little later. */
static int memfd_seal(int fd)
{
    enum {
        TRIES = 50
    };
    const struct timespec pause = {0, 10000000};
    for (int i = 0;; i++) {
        int failed =
            fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
        if (!failed || errno != EBUSY || i == TRIES)
            return failed;
        (void)nanosleep(&pause, NULL);
    }
}

static void *map_readable(int fd, size_t bytes)
{
    void *bytes_mapped = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    return bytes_mapped == MAP_FAILED ? NULL : bytes_mapped;
}

static void *dl_open_local(const char *path)
{
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

const ferrum_sys_t ferrum_sys_real = {
    .alloc = alloc_zeroed,
    .release = free,
    .host_alloc = alloc_aligned,
    .open = open_file,
    .stat_fd = fstat,
    .read = read,
    .open_list = fdopendir,
    .memfd = memfd_new,
    .write = write,
    .seal = memfd_seal,
    .map = map_readable,
    .dl_open = dl_open_local,
    .dl_sym = dlsym,
    .dl_close = dlclose,
};

const ferrum_sys_t *ferrum_sys = &ferrum_sys_real;
