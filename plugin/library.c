/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "library.h"
#include "elf_check.h"
#include "sys.h"
#include "text.h"
#include "traces.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>

struct ferrum_library {
    ferrum_library_t *next; /* in the list of kept libraries */
    bool kept;
    bool zombie; /* not provably idle: never handed out again */
    ferrum_image_t image;
    char name[32]; /* what it was dlopen()ed as */
    void *handle;
    ferrum_plugin_query_fn *query;
    bool may_start_threads;
    ferrum_thread_list_t threads_before;
    char pinned_reason[128];
};

/* Libraries that stay mapped, pinned ones and zombies. */
static pthread_mutex_t kept_mutex = PTHREAD_MUTEX_INITIALIZER;
static ferrum_library_t *kept_list;

static ferrum_library_t *take_kept(const ferrum_image_t *image)
{
    ferrum_library_t *found = NULL;
    (void)pthread_mutex_lock(&kept_mutex);
    for (ferrum_library_t *l = kept_list; l && !found; l = l->next)
        if (!l->zombie && ferrum_image_same(&l->image, image))
            found = l;
    (void)pthread_mutex_unlock(&kept_mutex);
    return found;
}

static void keep(ferrum_library_t *library)
{
    (void)pthread_mutex_lock(&kept_mutex);
    if (!library->kept) {
        library->kept = true;
        library->next = kept_list;
        kept_list = library;
    }
    (void)pthread_mutex_unlock(&kept_mutex);
}

static void free_library(ferrum_library_t *library)
{
    ferrum_image_close(&library->image);
    ferrum_threads_free(&library->threads_before);
    ferrum_sys->release(library);
}

static ferrum_status_t link_library(ferrum_library_t *library, const char *path,
                                    ferrum_error_t *err)
{
    const char *shown = ferrum_path_tail(path);
    (void)snprintf(library->name, sizeof library->name, "/proc/self/fd/%d", library->image.fd);
    if (library->may_start_threads && !ferrum_threads_list(&library->threads_before)) {
        int why = errno;
        return ferrum_fail(
            err, why == ENOMEM ? FERRUM_OUT_OF_MEMORY : FERRUM_IO, FERRUM_REASON_OTHER,
            "%s: cannot list the threads of this process in /proc: %s", shown, strerror(why));
    }
    library->handle = ferrum_sys->dl_open(library->name);
    if (!library->handle) {
        const char *why = dlerror();
        return ferrum_fail(err, FERRUM_BAD_PLUGIN, FERRUM_REASON_OTHER, "cannot load %s: %s", shown,
                           why ? why : "no reason given");
    }
    void *symbol = ferrum_sys->dl_sym(library->handle, FERRUM_PLUGIN_SYMBOL);
    memcpy(&library->query, &symbol, sizeof library->query);
    if (!library->query)
        return ferrum_fail(err, FERRUM_BAD_PLUGIN, FERRUM_REASON_OTHER, "%s does not export %s",
                           shown, FERRUM_PLUGIN_SYMBOL);
    return FERRUM_OK;
}

ferrum_status_t ferrum_library_open(const char *path, ferrum_asked_t asked,
                                    const ferrum_options_t *options, const ferrum_logger_t *logger,
                                    ferrum_library_t **out_library, ferrum_error_t *err)
{
    ferrum_elf_facts_t facts = {0};
    ferrum_library_t *library = ferrum_sys->alloc(sizeof *library);
    if (!library)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE, "no memory to open %s",
                           ferrum_path_tail(path));
    library->image.fd = -1;
    ferrum_status_t status =
        ferrum_image_read(path, asked == FERRUM_ASKED_PATH, &library->image, err);
    if (status == FERRUM_OK)
        status = ferrum_elf_check(library->image.bytes, library->image.size, ferrum_path_tail(path),
                                  &facts, err);
    if (status != FERRUM_OK)
        goto free_library;
    ferrum_library_t *kept = take_kept(&library->image);
    if (kept) {
        free_library(library);
        *out_library = kept;
        return FERRUM_OK;
    }
    status = ferrum_probe_image(&library->image, path, asked, options, logger, err);
    if (status != FERRUM_OK)
        goto free_library;
    ferrum_image_unmap(&library->image);
    library->may_start_threads = facts.may_start_threads;
    status = link_library(library, path, err);
    if (library->handle && facts.pinned_reason[0])
        ferrum_library_pin(library, facts.pinned_reason);
    if (status != FERRUM_OK)
        goto close_library;
    *out_library = library;
    return FERRUM_OK;

close_library:
    if (library->handle) {
        char detail[160];
        (void)ferrum_library_close(library, NULL, detail, sizeof detail);
        return status;
    }
free_library:
    free_library(library);
    return status;
}

ferrum_plugin_query_fn *ferrum_library_query(const ferrum_library_t *library)
{
    return library->query;
}

void ferrum_library_pin(ferrum_library_t *library, const char *reason)
{
    (void)pthread_mutex_lock(&kept_mutex);
    if (!library->pinned_reason[0])
        FERRUM_COPY_TEXT(library->pinned_reason, reason);
    (void)pthread_mutex_unlock(&kept_mutex);
    keep(library);
}

const char *ferrum_library_pinned_reason(const ferrum_library_t *library)
{
    return library->pinned_reason;
}

/* Close it and look whether it is really gone. */
static bool unmap_library(ferrum_library_t *library, char *out_detail, size_t detail_size)
{
    if (library->may_start_threads) {
        long left = ferrum_threads_new_since(&library->threads_before);
        if (left != 0) {
            if (left < 0)
                ferrum_text_append(out_detail, detail_size,
                                   "kept: cannot tell whether it left threads behind");
            else
                ferrum_text_append(out_detail, detail_size,
                                   "kept: it can start threads, and %ld started since it was "
                                   "opened are still there",
                                   left);
            return false;
        }
    }
    int failed = ferrum_sys->dl_close(library->handle);
    if (failed || ferrum_is_linked(library->name) || ferrum_is_mapped(library->image.inode)) {
        ferrum_text_append(out_detail, detail_size, "kept: still mapped after dlclose");
        return false;
    }
    ferrum_text_append(out_detail, detail_size, "unloaded: no mapping, thread or memory left");
    return true;
}

ferrum_library_fate_t ferrum_library_close(ferrum_library_t *library, const char *keep_reason,
                                           char *out_detail, size_t detail_size)
{
    out_detail[0] = '\0';
    if (library->pinned_reason[0]) {
        ferrum_text_append(out_detail, detail_size, "pinned: %s", library->pinned_reason);
        return FERRUM_LIBRARY_PINNED;
    }
    if (keep_reason)
        ferrum_text_append(out_detail, detail_size, "kept: %s", keep_reason);
    else if (unmap_library(library, out_detail, detail_size)) {
        free_library(library);
        return FERRUM_LIBRARY_GONE;
    }
    library->zombie = true;
    keep(library);
    return FERRUM_LIBRARY_ZOMBIE;
}
