/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "quarantine.h"
#include "image.h"
#include "sys.h"
#include "text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* ---- what this process knows ---- */

typedef struct known {
    struct known *next;
    ferrum_content_t content; /* of a good one: the size alone */
    uint64_t quick_hash;      /* of a good one */
    char why[160];            /* "" for a good one */
} known_t;

static pthread_mutex_t known_mutex = PTHREAD_MUTEX_INITIALIZER;
static known_t *known_list;

static bool same_content(const ferrum_content_t *a, const ferrum_content_t *b)
{
    return a->size == b->size && strcmp(a->hex, b->hex) == 0;
}

/* What the content (NULL: any of that size) is known for goes to out_why, of 160 bytes. */
static bool look_up(const ferrum_content_t *content, uint64_t size, char *out_why)
{
    bool found = false;
    (void)pthread_mutex_lock(&known_mutex);
    for (known_t *k = known_list; k && !found; k = k->next) {
        found =
            k->why[0] && (content ? same_content(&k->content, content) : k->content.size == size);
        if (found && out_why)
            ferrum_text_copy(out_why, sizeof k->why, k->why);
    }
    (void)pthread_mutex_unlock(&known_mutex);
    return found;
}

static void note(const known_t *what)
{
    known_t *k = ferrum_sys->alloc(sizeof *k);
    if (!k)
        return; /* it will be probed again */
    *k = *what;
    (void)pthread_mutex_lock(&known_mutex);
    k->next = known_list;
    known_list = k;
    (void)pthread_mutex_unlock(&known_mutex);
}

bool ferrum_quarantine_is_known_good(uint64_t size, uint64_t quick_hash)
{
    bool found = false;
    (void)pthread_mutex_lock(&known_mutex);
    for (known_t *k = known_list; k && !found; k = k->next)
        found = !k->why[0] && k->content.size == size && k->quick_hash == quick_hash;
    (void)pthread_mutex_unlock(&known_mutex);
    return found;
}

void ferrum_quarantine_note_good(uint64_t size, uint64_t quick_hash)
{
    const known_t good = {.content = {.size = size}, .quick_hash = quick_hash};
    note(&good);
}

/* ---- records on disk ---- */

/* The directory of records, opened; -1 where there is none, or none that may be trusted. */
static int open_directory(const ferrum_options_t *options, bool make)
{
    const char *cache = ferrum_options_get(options, "FERRUM_CACHE_DIR");
    char path[512];
    ferrum_error_t unused = FERRUM_ERROR_INIT;
    if (!cache || cache[0] != '/' || strlen(cache) > sizeof path - sizeof "/quarantine")
        return -1;
    (void)snprintf(path, sizeof path, "%s/quarantine", cache);
    for (char *slash = path + 1; make && (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        (void)mkdir(path, 0700);
        *slash = '/';
    }
    if (make)
        (void)mkdir(path, 0700);
    int fd = ferrum_sys->open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0 && ferrum_check_owner(fd, path, &unused) != FERRUM_OK) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static void name_record(const ferrum_content_t *content, char *out_name, size_t size)
{
    (void)snprintf(out_name, size, "%llu-%s", (unsigned long long)content->size, content->hex);
}

bool ferrum_quarantine_may_have(const ferrum_options_t *options, uint64_t size)
{
    bool found = look_up(NULL, size, NULL);
    int fd = found ? -1 : open_directory(options, false);
    DIR *list = fd >= 0 ? ferrum_sys->open_list(fd) : NULL;
    if (!list) {
        if (fd >= 0)
            (void)close(fd);
        return found || fd >= 0; /* one that cannot be listed is looked into */
    }
    for (struct dirent *entry = readdir(list); entry && !found; entry = readdir(list)) {
        char *end;
        found = strtoull(entry->d_name, &end, 10) == size && *end == '-';
    }
    (void)closedir(list);
    return found;
}

bool ferrum_quarantine_find(const ferrum_options_t *options, const ferrum_content_t *content,
                            ferrum_record_t *out_record)
{
    ferrum_record_t record = {"", ""};
    char name[96], text[1024];
    int dir = open_directory(options, false);
    name_record(content, name, sizeof name);
    int fd = dir >= 0 ? openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;
    if (dir >= 0)
        (void)close(dir);
    if (fd < 0) {
        if (!look_up(content, 0, record.why))
            return false;
        *out_record = record;
        return true;
    }
    ssize_t n = ferrum_sys->read(fd, text, sizeof text - 1);
    (void)close(fd);
    text[n > 0 ? n : 0] = '\0';
    char *line = strchr(text, '\n'); /* the first line is what happened */
    if (line)
        *line = '\0';
    FERRUM_COPY_TEXT(record.why, text[0] ? text : "its probe failed badly");
    (void)snprintf(record.path, sizeof record.path, "%s/quarantine/%s",
                   ferrum_options_get(options, "FERRUM_CACHE_DIR"), name);
    *out_record = record;
    return true;
}

static bool write_record(int dir, const char *name, const char *path, const char *why)
{
    char text[1024], when[32] = "";
    time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc))
        (void)strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc);
    int length = snprintf(text, sizeof text, "%s\nseen at %.600s\non %s\n", why, path, when);
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return false;
    bool written = ferrum_sys->write(fd, text, (size_t)length) == length;
    (void)close(fd);
    return written;
}

void ferrum_quarantine_add(const ferrum_options_t *options, const ferrum_content_t *content,
                           const char *path, const char *why, ferrum_record_t *out_record)
{
    char name[96];
    bool written = false;
    int dir = open_directory(options, true);
    name_record(content, name, sizeof name);
    FERRUM_COPY_TEXT(out_record->why, why);
    out_record->path[0] = '\0';
    if (dir >= 0) {
        written = write_record(dir, name, path, why);
        (void)close(dir);
    }
    if (written) {
        (void)snprintf(out_record->path, sizeof out_record->path, "%s/quarantine/%s",
                       ferrum_options_get(options, "FERRUM_CACHE_DIR"), name);
    } else {
        known_t bad = {.content = *content};
        FERRUM_COPY_TEXT(bad.why, why);
        note(&bad);
    }
}
