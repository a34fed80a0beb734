/* SPDX-License-Identifier: MIT */
#include "config.h"

#include "host/formats/mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ferrum/util.h>

static ferrum_status_t fail_errno(ferrum_error_t *err, const char *what, const char *path)
{
    int error = errno;
    ferrum_status_t status = error == ENOENT || error == ENOTDIR ? FERRUM_NOT_FOUND : FERRUM_IO;
    return ferrum_fail(err, status, FERRUM_REASON_OTHER, "cannot %s %.160s: %s", what, path,
                       strerror(error));
}

static ferrum_status_t map_descriptor(int fd, const char *path, ferrum_map_advice_t advice,
                                      ferrum_mapped_file_t *out_file, ferrum_error_t *err)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return fail_errno(err, "examine", path);
    if (!S_ISREG(info.st_mode))
        return ferrum_fail(err, FERRUM_IO, FERRUM_REASON_OTHER, "%.160s is not a regular file",
                           path);
    if (info.st_size < 0 || (uintmax_t)info.st_size > SIZE_MAX)
        return ferrum_fail(err, FERRUM_IO, FERRUM_REASON_OVERFLOW,
                           "%.160s is too large to be mapped on this machine", path);
    ferrum_mapped_file_t file = {NULL, (size_t)info.st_size};
    if (file.bytes) {
        void *data = mmap(NULL, file.bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
            return fail_errno(err, "map", path);
        if (advice == FERRUM_MAP_WILL_NEED)
            (void)madvise(data, file.bytes, MADV_WILLNEED);
        file.data = data;
    }
    *out_file = file;
    return FERRUM_OK;
}

ferrum_status_t ferrum_mapped_file_open(const char *path, ferrum_map_advice_t advice,
                                        ferrum_mapped_file_t *out_file, ferrum_error_t *err)
{
    /* O_NONBLOCK: a FIFO must be refused, not waited for. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fail_errno(err, "open", path);
    ferrum_status_t status = map_descriptor(fd, path, advice, out_file, err);
    (void)close(fd);
    return status;
}

void ferrum_mapped_file_release_pages(const ferrum_mapped_file_t *file)
{
    if (file->data)
        (void)madvise((void *)(uintptr_t)file->data, file->bytes, MADV_DONTNEED);
}

void ferrum_mapped_file_close(ferrum_mapped_file_t *file)
{
    if (file->data)
        (void)munmap((void *)(uintptr_t)file->data, file->bytes);
    file->data = NULL;
    file->bytes = 0;
}
