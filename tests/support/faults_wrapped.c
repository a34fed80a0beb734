/* SPDX-License-Identifier: MIT */
/* The wrapped functions. Each is in $(fault_ldflags) too. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "config.h"

#include "tests/support/faults_wrapped.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <hwloc.h>
#include <pcre2.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utf8proc.h>

/* A function that does nothing but fail now and then. */
#define WRAP(type, name, parameters, arguments, error, failure)                                    \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters                                                                  \
    {                                                                                              \
        return faults_hit(#name, error) ? (failure) : __real_##name arguments;                     \
    }

WRAP(int, fstat, (int fd, struct stat *out), (fd, out), EIO, -1)
WRAP(int, stat, (const char *path, struct stat *out), (path, out), EACCES, -1)
WRAP(ssize_t, read, (int fd, void *out, size_t bytes), (fd, out, bytes), EIO, -1)
WRAP(ssize_t, write, (int fd, const void *data, size_t bytes), (fd, data, bytes), ENOSPC, -1)
WRAP(DIR *, opendir, (const char *path), (path), EMFILE, NULL)
WRAP(DIR *, fdopendir, (int fd), (fd), EMFILE, NULL)
WRAP(FILE *, fopen, (const char *path, const char *mode), (path, mode), EMFILE, NULL)
WRAP(int, memfd_create, (const char *name, unsigned flags), (name, flags), EMFILE, -1)
WRAP(int, dlclose, (void *handle), (handle), 0, -1)
WRAP(int, ftruncate, (int fd, off_t bytes), (fd, bytes), EIO, -1)
WRAP(void *, mmap, (void *at, size_t bytes, int protection, int flags, int fd, off_t offset),
     (at, bytes, protection, flags, fd, offset), ENOMEM, MAP_FAILED)
WRAP(int, pthread_create,
     (pthread_t * out, const pthread_attr_t *attributes, void *(*run)(void *), void *argument),
     (out, attributes, run, argument), EAGAIN, EAGAIN)
WRAP(int, pthread_mutex_init, (pthread_mutex_t * out, const pthread_mutexattr_t *attributes),
     (out, attributes), ENOMEM, ENOMEM)
WRAP(int, pthread_cond_init, (pthread_cond_t * out, const pthread_condattr_t *attributes),
     (out, attributes), ENOMEM, ENOMEM)
WRAP(int, pipe2, (int *ends, int flags), (ends, flags), EMFILE, -1)
WRAP(int, posix_spawn_file_actions_init, (posix_spawn_file_actions_t * out), (out), EAGAIN, EAGAIN)
WRAP(int, posix_spawn_file_actions_addopen,
     (posix_spawn_file_actions_t * actions, int fd, const char *path, int flags, mode_t mode),
     (actions, fd, path, flags, mode), EAGAIN, EAGAIN)
WRAP(int, posix_spawn_file_actions_adddup2,
     (posix_spawn_file_actions_t * actions, int from, int to), (actions, from, to), EAGAIN, EAGAIN)
WRAP(int, posix_spawnattr_init, (posix_spawnattr_t * out), (out), EAGAIN, EAGAIN)
WRAP(int, posix_spawnattr_setsigmask, (posix_spawnattr_t * attributes, const sigset_t *set),
     (attributes, set), EINVAL, EINVAL)
WRAP(int, posix_spawnattr_setsigdefault, (posix_spawnattr_t * attributes, const sigset_t *set),
     (attributes, set), EINVAL, EINVAL)
WRAP(int, posix_spawnattr_setflags, (posix_spawnattr_t * attributes, short flags),
     (attributes, flags), EINVAL, EINVAL)
WRAP(int, posix_spawn,
     (pid_t * out, const char *path, const posix_spawn_file_actions_t *actions,
      const posix_spawnattr_t *attributes, char *const *arguments, char *const *environment),
     (out, path, actions, attributes, arguments, environment), EAGAIN, EAGAIN)
WRAP(int, hwloc_topology_init, (hwloc_topology_t * out), (out), ENOMEM, -1)
WRAP(int, hwloc_topology_load, (hwloc_topology_t topology), (topology), EIO, -1)
WRAP(pcre2_match_data *, pcre2_match_data_create_8,
     (uint32_t pairs, pcre2_general_context *context), (pairs, context), ENOMEM, NULL)
WRAP(pcre2_match_context *, pcre2_match_context_create_8, (pcre2_general_context * context),
     (context), ENOMEM, NULL)
WRAP(utf8proc_ssize_t, utf8proc_map,
     (const utf8proc_uint8_t *text, utf8proc_ssize_t bytes, utf8proc_uint8_t **out,
      utf8proc_option_t options),
     (text, bytes, out, options), ENOMEM, UTF8PROC_ERROR_NOMEM)

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return faults_hit("open", EMFILE) ? -1 : __real_open(path, flags, mode);
}

/* Seals: the other uses of fcntl do not fail. */
int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...)
{
    va_list args;
    va_start(args, command);
    int argument = va_arg(args, int);
    va_end(args);
    return faults_hit("fcntl", EPERM) ? -1 : __real_fcntl(fd, command, argument);
}

/* A failing call goes to the real one with a name that nobody has, so that dlerror() knows. */
void *__real_dlopen(const char *path, int flags);
void *__wrap_dlopen(const char *path, int flags);
void *__wrap_dlopen(const char *path, int flags)
{
    return __real_dlopen(faults_hit("dlopen", 0) ? "/nowhere/injected-fault.so" : path, flags);
}

void *__real_dlsym(void *handle, const char *name);
void *__wrap_dlsym(void *handle, const char *name);
void *__wrap_dlsym(void *handle, const char *name)
{
    return faults_hit("dlsym", 0) ? NULL : __real_dlsym(handle, name);
}

pcre2_code *__real_pcre2_compile_8(PCRE2_SPTR pattern, PCRE2_SIZE length, uint32_t options,
                                   int *out_error, PCRE2_SIZE *out_offset,
                                   pcre2_compile_context *context);
pcre2_code *__wrap_pcre2_compile_8(PCRE2_SPTR pattern, PCRE2_SIZE length, uint32_t options,
                                   int *out_error, PCRE2_SIZE *out_offset,
                                   pcre2_compile_context *context);
pcre2_code *__wrap_pcre2_compile_8(PCRE2_SPTR pattern, PCRE2_SIZE length, uint32_t options,
                                   int *out_error, PCRE2_SIZE *out_offset,
                                   pcre2_compile_context *context)
{
    if (faults_hit("pcre2_compile_8", ENOMEM)) {
        *out_error = PCRE2_ERROR_HEAP_FAILED;
        *out_offset = 0;
        return NULL;
    }
    return __real_pcre2_compile_8(pattern, length, options, out_error, out_offset, context);
}

/* ---- memory ---- */

void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *block, size_t bytes);
void *__real_aligned_alloc(size_t align, size_t bytes);
int __real_posix_memalign(void **out, size_t align, size_t bytes);
void __real_free(void *block);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *block, size_t bytes);
void *__wrap_aligned_alloc(size_t align, size_t bytes);
int __wrap_posix_memalign(void **out, size_t align, size_t bytes);
void __wrap_free(void *block);

void *__wrap_malloc(size_t bytes)
{
    return faults_hit("malloc", ENOMEM) ? NULL : faults_allocated(__real_malloc(bytes));
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return faults_hit("calloc", ENOMEM) ? NULL : faults_allocated(__real_calloc(count, bytes));
}

void *__wrap_realloc(void *block, size_t bytes)
{
    if (faults_hit("realloc", ENOMEM))
        return NULL;
    faults_freed(block);
    return faults_allocated(__real_realloc(block, bytes));
}

void *__wrap_aligned_alloc(size_t align, size_t bytes)
{
    return faults_hit("aligned_alloc", ENOMEM)
               ? NULL
               : faults_allocated(__real_aligned_alloc(align, bytes));
}

int __wrap_posix_memalign(void **out, size_t align, size_t bytes)
{
    if (faults_hit("posix_memalign", ENOMEM))
        return ENOMEM;
    int failed = __real_posix_memalign(out, align, bytes);
    if (!failed)
        (void)faults_allocated(*out);
    return failed;
}

void __wrap_free(void *block)
{
    faults_freed(block);
    __real_free(block);
}
