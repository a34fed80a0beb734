/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "image.h"
#include "sys.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

ferrum_status_t ferrum_check_owner(int fd, const char *path, ferrum_error_t *err)
{
    struct stat st;
    path = ferrum_path_tail(path);
    if (ferrum_sys->stat_fd(fd, &st) != 0)
        return ferrum_fail(err, FERRUM_IO, FERRUM_REASON_OTHER, "%s: %s", path, strerror(errno));
    if (st.st_mode & S_IWOTH)
        return ferrum_fail(err, FERRUM_PERMISSION, FERRUM_REASON_OTHER,
                           "%s is writable by everybody; chmod o-w it, or name the plugin by its "
                           "path",
                           path);
    if (st.st_uid != 0 && st.st_uid != geteuid())
        return ferrum_fail(err, FERRUM_PERMISSION, FERRUM_REASON_OTHER,
                           "%s belongs to user %u, neither root nor you; name the plugin by its "
                           "path to use it anyway",
                           path, (unsigned)st.st_uid);
    return FERRUM_OK;
}

static ferrum_status_t fail_open(const char *path, int error, ferrum_error_t *err)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_NONE, "%s does not exist", path);
    case ELOOP:
        return ferrum_fail(err, FERRUM_PERMISSION, FERRUM_REASON_OTHER,
                           "%s is a symbolic link; name the file it points to", path);
    case EACCES:
        return ferrum_fail(err, FERRUM_PERMISSION, FERRUM_REASON_OTHER, "%s may not be read: %s",
                           path, strerror(error));
    default:
        return ferrum_fail(err, FERRUM_IO, FERRUM_REASON_OTHER, "cannot open %s: %s", path,
                           strerror(error));
    }
}

static const char *file_kind(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR:
        return "a directory";
    case S_IFIFO:
        return "a FIFO";
    case S_IFCHR:
    case S_IFBLK:
        return "a device";
    default:
        return "not a regular file";
    }
}

/* O_NONBLOCK, so that a FIFO cannot stop us before its kind is known. */
static ferrum_status_t open_file(const char *path, bool trusted, struct stat *st, int *out_fd,
                                 ferrum_error_t *err)
{
    int fd = ferrum_sys->open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    ferrum_status_t status;
    path = ferrum_path_tail(path);
    if (fd < 0)
        return fail_open(path, errno, err);
    if (ferrum_sys->stat_fd(fd, st) != 0)
        status = ferrum_fail(err, FERRUM_IO, FERRUM_REASON_OTHER, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(st->st_mode))
        status = ferrum_fail(err, FERRUM_BAD_PLUGIN, FERRUM_REASON_OTHER,
                             "%s is %s; a plugin is a regular file", path, file_kind(st->st_mode));
    else if (st->st_size == 0)
        status = ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_LENGTH, "%s is empty", path);
    else if ((uint64_t)st->st_size > FERRUM_IMAGE_MAX_BYTES)
        status =
            ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_LENGTH,
                        "%s is too large for a plugin: %lld bytes", path, (long long)st->st_size);
    else
        status = trusted ? FERRUM_OK : ferrum_check_owner(fd, path, err);
    if (status != FERRUM_OK) {
        (void)close(fd);
        return status;
    }
    *out_fd = fd;
    return FERRUM_OK;
}

static bool write_all(int fd, const unsigned char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = ferrum_sys->write(fd, data, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        data += n;
        bytes -= (size_t)n;
    }
    return true;
}

/* FNV-1a, 64 bits: only a first filter before contents are compared. */
static uint64_t hash_bytes(uint64_t hash, const unsigned char *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ data[i]) * 0x100000001b3u;
    return hash;
}

static ferrum_status_t copy_file(int from, uint64_t expected, const char *path,
                                 ferrum_image_t *image, ferrum_error_t *err)
{
    unsigned char block[16384];
    uint64_t total = 0;
    image->hash = 0xcbf29ce484222325u;
    for (;;) {
        ssize_t n = ferrum_sys->read(from, block, sizeof block);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return ferrum_fail(err, FERRUM_IO, FERRUM_REASON_OTHER, "cannot read %s: %s", path,
                               strerror(errno));
        if (n == 0)
            break;
        total += (uint64_t)n;
        if (total > expected)
            break;
        image->hash = hash_bytes(image->hash, block, (size_t)n);
        if (!write_all(image->fd, block, (size_t)n))
            return ferrum_fail(err, FERRUM_IO, FERRUM_REASON_OTHER,
                               "cannot copy %s into memory: %s", path, strerror(errno));
    }
    if (total != expected)
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_LENGTH,
                           "%s changed while it was read; try again", path);
    image->size = total;
    return FERRUM_OK;
}

static ferrum_status_t seal_image(const char *path, ferrum_image_t *image, ferrum_error_t *err)
{
    struct stat st;
    if (ferrum_sys->seal(image->fd) != 0)
        return ferrum_fail(err, FERRUM_IO, FERRUM_REASON_OTHER,
                           "cannot seal the copy of %s in memory: %s", path, strerror(errno));
    if (ferrum_sys->stat_fd(image->fd, &st) != 0)
        return ferrum_fail(err, FERRUM_IO, FERRUM_REASON_OTHER, "%s: %s", path, strerror(errno));
    image->inode = st.st_ino;
    image->bytes = ferrum_sys->map(image->fd, (size_t)image->size);
    if (!image->bytes)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "cannot map the copy of %s: %s", path, strerror(errno));
    return FERRUM_OK;
}

ferrum_status_t ferrum_image_read(const char *path, bool trusted, ferrum_image_t *out_image,
                                  ferrum_error_t *err)
{
    ferrum_image_t image = {.fd = -1};
    struct stat st;
    int from = -1;
    FERRUM_TRY(open_file(path, trusted, &st, &from, err));

    ferrum_status_t status;
    path = ferrum_path_tail(path);
    image.fd = ferrum_sys->memfd("ferrum-plugin");
    if (image.fd < 0)
        status = ferrum_fail(err, FERRUM_IO, FERRUM_REASON_OTHER,
                             "cannot make a memory file for %s: %s", path, strerror(errno));
    else
        status = copy_file(from, (uint64_t)st.st_size, path, &image, err);
    (void)close(from);
    if (status == FERRUM_OK)
        status = seal_image(path, &image, err);
    if (status != FERRUM_OK) {
        ferrum_image_close(&image);
        return status;
    }
    *out_image = image;
    return FERRUM_OK;
}

void ferrum_image_unmap(ferrum_image_t *image)
{
    if (image->bytes)
        (void)munmap((void *)(uintptr_t)image->bytes, (size_t)image->size);
    image->bytes = NULL;
}

void ferrum_image_close(ferrum_image_t *image)
{
    ferrum_image_unmap(image);
    if (image->fd >= 0)
        (void)close(image->fd);
    image->fd = -1;
}

bool ferrum_image_same(const ferrum_image_t *a, const ferrum_image_t *b)
{
    if (a->size != b->size || a->hash != b->hash)
        return false;
    const void *left = ferrum_sys->map(a->fd, (size_t)a->size);
    const void *right = ferrum_sys->map(b->fd, (size_t)b->size);
    bool same = left && right && memcmp(left, right, (size_t)a->size) == 0;
    if (left)
        (void)munmap((void *)(uintptr_t)left, (size_t)a->size);
    if (right)
        (void)munmap((void *)(uintptr_t)right, (size_t)b->size);
    return same;
}
