/* SPDX-License-Identifier: MIT */
#include "internal.h"
#include "search.h"
#include "sys.h"
#include "text.h"

/* ---- life ---- */

/* Copy a struct that the caller's headers may have made smaller or larger than ours. */
#define COPY_GIVEN(to, from)                                                                       \
    memcpy((to), (from), (from)->head.size < sizeof *(to) ? (from)->head.size : sizeof *(to))

ferrum_status_t ferrum_loader_new(const ferrum_options_t *options,
                                  const ferrum_allocator_t *allocator,
                                  const ferrum_logger_t *logger, ferrum_loader_t **out_loader,
                                  ferrum_error_t *err)
{
    if (!out_loader)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL, "out_loader is NULL");
    if (allocator &&
        (allocator->head.size < FERRUM_ALLOCATOR_MIN_SIZE || !allocator->alloc || !allocator->free))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "the allocator is too small or lacks alloc or free");
    if (logger && (logger->head.size < FERRUM_LOGGER_MIN_SIZE || !logger->log))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "the logger is too small or lacks log");
    ferrum_loader_t *loader = ferrum_sys->alloc(sizeof *loader);
    if (!loader)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory for the loader");
    ferrum_status_t status = options ? ferrum_options_copy(options, &loader->options, err)
                                     : ferrum_options_from_env(logger, &loader->options, err);
    if (status != FERRUM_OK) {
        ferrum_sys->release(loader);
        return status;
    }
    atomic_init(&loader->refs, 1);
    ferrum_loader_set_spread(loader, NULL, NULL);
    loader->allocator = ferrum_default_allocator;
    if (allocator)
        COPY_GIVEN(&loader->allocator, allocator);
    loader->allocator.head = (ferrum_head_t)FERRUM_HEAD(ferrum_allocator_t);
    loader->logger = ferrum_silent_logger;
    if (logger)
        COPY_GIVEN(&loader->logger, logger);
    loader->logger.head = (ferrum_head_t)FERRUM_HEAD(ferrum_logger_t);
    loader->abi_minor = FERRUM_ABI_MINOR;
    loader->abi_minor_min = FERRUM_HOST_MINOR_MIN;
    *out_loader = loader;
    return FERRUM_OK;
}

void ferrum_loader_retain(ferrum_loader_t *loader)
{
    atomic_fetch_add(&loader->refs, 1);
}

void ferrum_loader_set_spread(ferrum_loader_t *loader, ferrum_spread_fn *spread, void *self)
{
    loader->spread = spread;
    loader->spread_self = self;
}

void ferrum_loader_free(ferrum_loader_t *loader)
{
    if (!loader || atomic_fetch_sub(&loader->refs, 1) != 1)
        return;
    ferrum_options_free(loader->options);
    ferrum_sys->release(loader);
}

const ferrum_options_t *ferrum_loader_options(const ferrum_loader_t *loader)
{
    return loader->options;
}

ferrum_status_t ferrum_loader_open(ferrum_loader_t *loader, const char *path,
                                   ferrum_module_t **out_module, ferrum_error_t *err)
{
    ferrum_error_t error = FERRUM_ERROR_INIT;
    if (!loader || !path || !out_module)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "loader, path or out_module is NULL");
    ferrum_status_t status =
        ferrum_module_open(loader, path, FERRUM_ASKED_PATH, NULL, out_module, &error);
    if (status == FERRUM_OK)
        return FERRUM_OK;
    ferrum_log(&loader->logger, FERRUM_LOG_INFO, "%s", error.message);
    return ferrum_fail(err, status, error.reason, "%s", error.message);
}

/* ---- candidates ---- */

/* What is said of a file that could not be opened: its stem as a name, and the error. */
static void describe_failure(ferrum_candidate_t *candidate, const char *path,
                             ferrum_status_t status, const ferrum_error_t *error)
{
    FERRUM_COPY_TEXT(candidate->path, path);
    if (!candidate->name[0]) {
        FERRUM_COPY_TEXT(candidate->name, ferrum_file_of(path));
        char *suffix = strstr(candidate->name, ".so");
        if (suffix)
            *suffix = '\0';
    }
    candidate->status = status;
    candidate->error = *error;
}

ferrum_status_t ferrum_loader_scan(ferrum_loader_t *loader, ferrum_candidate_t **out_list,
                                   size_t *out_count, ferrum_error_t *err)
{
    ferrum_search_t search;
    if (!loader || !out_list || !out_count)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "loader, out_list or out_count is NULL");
    FERRUM_TRY(ferrum_search_all(loader->options, &search, err));
    ferrum_candidate_t *list = ferrum_sys->alloc((search.count + 1) * sizeof *list);
    if (!list) {
        ferrum_search_free(&search);
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory to describe the plugins");
    }
    if (search.skipped[0])
        ferrum_log(&loader->logger, FERRUM_LOG_WARN, "%s", search.skipped);
    for (size_t i = 0; i < search.count; i++) {
        ferrum_error_t error = FERRUM_ERROR_INIT;
        ferrum_module_t *module = NULL;
        ferrum_status_t status = ferrum_module_open(loader, search.paths[i], FERRUM_ASKED_ANY,
                                                    &list[i], &module, &error);
        if (status == FERRUM_OK)
            ferrum_module_release(module, NULL);
        else
            describe_failure(&list[i], search.paths[i], status, &error);
    }
    *out_list = list;
    *out_count = search.count;
    ferrum_search_free(&search);
    return FERRUM_OK;
}

void ferrum_candidates_free(ferrum_candidate_t *list)
{
    ferrum_sys->release(list);
}
