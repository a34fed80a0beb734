/* SPDX-License-Identifier: MIT */
/* Which plugin is used. Nothing here falls back without saying so. */
#include "internal.h"
#include "search.h"
#include "sys.h"
#include "text.h"

/* One selection: what was found, and what has been said about what failed. */
typedef struct selection {
    ferrum_loader_t *loader;
    ferrum_search_t search;
    ferrum_error_t last; /* the latest refusal */
    unsigned refusals;
    char reasons[FERRUM_ERROR_MESSAGE_BYTES]; /* all of them, separated by "; " */
} selection_t;

/* Note why a candidate is not used. */
static void refuse(selection_t *s, ferrum_log_level_t level, const ferrum_error_t *error)
{
    s->last = *error;
    s->refusals++;
    ferrum_text_append(s->reasons, sizeof s->reasons, "%s%s", s->reasons[0] ? "; " : "",
                       error->message);
    ferrum_log(&s->loader->logger, level, "%s", error->message);
}

/* Whether an opened plugin can do anything on this machine. */
static ferrum_status_t check_usable(const ferrum_module_t *module, ferrum_error_t *err)
{
    const ferrum_candidate_t *facts = &module->facts;
    if (facts->status != FERRUM_OK)
        return ferrum_fail(err, facts->status, facts->error.reason,
                           "backend '%s' cannot be used here: %s", facts->name,
                           facts->error.message);
    if (facts->score <= 0)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NO_DEVICE,
                           "backend '%s' cannot be used here: %s", facts->name, facts->summary);
    return FERRUM_OK;
}

static ferrum_status_t open_usable(selection_t *s, const char *path, ferrum_asked_t asked,
                                   ferrum_module_t **out_module, ferrum_error_t *err)
{
    ferrum_module_t *module = NULL;
    FERRUM_TRY(ferrum_module_open(s->loader, path, asked, NULL, &module, err));
    ferrum_status_t status = check_usable(module, err);
    if (status != FERRUM_OK) {
        ferrum_module_release(module, NULL);
        return status;
    }
    *out_module = module;
    return FERRUM_OK;
}

static ferrum_status_t fail_not_found(const selection_t *s, const char *name, ferrum_error_t *err)
{
    char known[128] = "";
    for (size_t i = 0; i < s->search.count; i++) {
        const char *file = ferrum_file_of(s->search.paths[i]);
        ferrum_text_append(known, sizeof known, "%s%.*s", i ? ", " : "", (int)(strlen(file) - 3),
                           file);
    }
    return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_NONE,
                       "there is no backend '%s' (found: %s); see `ferrum info`%s%s", name,
                       known[0] ? known : "none", s->search.skipped[0] ? "; " : "",
                       s->search.skipped);
}

static ferrum_status_t open_name(selection_t *s, const char *name, ferrum_module_t **out_module,
                                 ferrum_error_t *err)
{
    char file[80];
    const char *path = NULL;
    if (!ferrum_is_plugin_name(name))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OTHER,
                           "'%.64s' is no backend name: a name consists of a-z, 0-9 and '-', a "
                           "path contains a '/'",
                           name);
    (void)snprintf(file, sizeof file, "%s.so", name);
    for (size_t i = 0; i < s->search.count && !path; i++)
        if (strcmp(ferrum_file_of(s->search.paths[i]), file) == 0)
            path = s->search.paths[i];
    if (!path)
        return fail_not_found(s, name, err);
    FERRUM_TRY(open_usable(s, path, FERRUM_ASKED_NAME, out_module, err));
    if (strcmp((*out_module)->facts.name, name) != 0) {
        ferrum_status_t status = ferrum_fail(err, FERRUM_BAD_PLUGIN, FERRUM_REASON_OTHER,
                                             "%s calls itself '%s'; rename the file to %s.so", path,
                                             (*out_module)->facts.name, (*out_module)->facts.name);
        ferrum_module_release(*out_module, NULL);
        *out_module = NULL;
        return status;
    }
    return FERRUM_OK;
}

/* A machine without some device is normal; a broken plugin is not. */
static ferrum_log_level_t level_of(ferrum_status_t status)
{
    return status == FERRUM_UNSUPPORTED || status == FERRUM_NOT_FOUND ? FERRUM_LOG_INFO
                                                                      : FERRUM_LOG_WARN;
}

static ferrum_status_t open_best(selection_t *s, ferrum_module_t **out_module, ferrum_error_t *err)
{
    ferrum_module_t *best = NULL;
    for (size_t i = 0; i < s->search.count; i++) {
        ferrum_error_t error = FERRUM_ERROR_INIT;
        ferrum_module_t *module = NULL;
        ferrum_status_t status =
            open_usable(s, s->search.paths[i], FERRUM_ASKED_ANY, &module, &error);
        if (status != FERRUM_OK) {
            refuse(s, level_of(status), &error);
        } else if (!best || module->facts.score > best->facts.score) {
            ferrum_module_release(best, NULL);
            best = module;
        } else {
            ferrum_module_release(module, NULL);
        }
    }
    if (!best)
        return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_NO_DEVICE,
                           "no backend can be used here: %s%s%s",
                           s->reasons[0] ? s->reasons
                                         : "no plugin was found, set "
                                           "FERRUM_PLUGIN_PATH",
                           s->search.skipped[0] ? "; " : "", s->search.skipped);
    *out_module = best;
    return FERRUM_OK;
}

static ferrum_status_t open_entry(selection_t *s, const char *entry, ferrum_module_t **out_module,
                                  ferrum_error_t *err)
{
    return strcmp(entry, "auto") == 0 ? open_best(s, out_module, err)
                                      : open_name(s, entry, out_module, err);
}

static ferrum_status_t open_list(selection_t *s, const char *list, ferrum_module_t **out_module,
                                 ferrum_error_t *err)
{
    const char *rest = list;
    while (*rest) {
        char entry[80];
        size_t length = strcspn(rest, ",");
        ferrum_error_t error = FERRUM_ERROR_INIT;
        (void)snprintf(entry, sizeof entry, "%.*s", (int)(length < 79 ? length : 79), rest);
        rest += length + (rest[length] == ',');
        if (!entry[0])
            continue;
        if (open_entry(s, entry, out_module, &error) == FERRUM_OK) {
            if (s->refusals)
                ferrum_log(&s->loader->logger, FERRUM_LOG_WARN,
                           "fell back to backend '%s' of the list %s", (*out_module)->facts.name,
                           list);
            return FERRUM_OK;
        }
        refuse(s, FERRUM_LOG_WARN, &error);
    }
    return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_NO_DEVICE,
                       "no backend of the list %.64s can be used: %s", list, s->reasons);
}

static ferrum_status_t select_module(selection_t *s, const char *spec, ferrum_module_t **out_module,
                                     ferrum_error_t *err)
{
    if (strchr(spec, '/'))
        return open_usable(s, spec, FERRUM_ASKED_PATH, out_module, err);
    FERRUM_TRY(ferrum_search_all(s->loader->options, &s->search, err));
    if (s->search.skipped[0])
        ferrum_log(&s->loader->logger, FERRUM_LOG_WARN, "%s", s->search.skipped);
    return strchr(spec, ',') ? open_list(s, spec, out_module, err)
                             : open_entry(s, spec, out_module, err);
}

ferrum_status_t ferrum_loader_select(ferrum_loader_t *loader, const char *spec,
                                     ferrum_module_t **out_module, ferrum_error_t *err)
{
    ferrum_module_t *module = NULL;
    ferrum_error_t error = FERRUM_ERROR_INIT;
    if (!loader || !out_module)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "loader or out_module is NULL");
    if (!spec)
        spec = ferrum_options_get(loader->options, "FERRUM_BACKEND");
    if (!spec || !*spec)
        spec = "auto";
    selection_t selection = {.loader = loader};
    ferrum_status_t status = select_module(&selection, spec, &module, &error);
    ferrum_search_free(&selection.search);
    if (status != FERRUM_OK) {
        ferrum_log(&loader->logger, FERRUM_LOG_INFO, "%s", error.message);
        return ferrum_fail(err, status, error.reason, "%s", error.message);
    }
    ferrum_log(&loader->logger, FERRUM_LOG_INFO, "backend '%s' %s from %s: %s", module->facts.name,
               module->facts.version, module->facts.path, module->facts.summary);
    *out_module = module;
    return FERRUM_OK;
}
