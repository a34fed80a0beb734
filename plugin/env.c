/* SPDX-License-Identifier: MIT */
/* The only place that reads the environment. */
#define _GNU_SOURCE
#include "options.h"
#include "text.h"

#include <stdlib.h>
#include <unistd.h>

static void warn_of_unknown(const ferrum_logger_t *logger, const char *entry)
{
    char name[128];
    size_t length = strcspn(entry, "=");
    if (length >= sizeof name)
        length = sizeof name - 1;
    memcpy(name, entry, length);
    name[length] = '\0';

    size_t count;
    const ferrum_option_info_t *table = ferrum_option_table(&count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(table[i].name, name) == 0)
            return;
    const char *nearest = ferrum_option_nearest(name);
    if (nearest)
        ferrum_log(logger, FERRUM_LOG_WARN, "unknown variable %s; did you mean %s?", name, nearest);
    else
        ferrum_log(logger, FERRUM_LOG_WARN, "unknown variable %s; `ferrum env` lists them", name);
}

char **ferrum_env_all(void)
{
    return environ;
}

/* The per-user cache, where there is one. */
static ferrum_status_t set_cache_dir(ferrum_options_t *options, ferrum_error_t *err)
{
    static const struct {
        const char *variable, *below;
    } places[] = {{"XDG_CACHE_HOME", "/ferrum"}, {"HOME", "/.cache/ferrum"}};
    if (ferrum_options_get(options, "FERRUM_CACHE_DIR"))
        return FERRUM_OK;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        char path[512];
        const char *base = secure_getenv(places[i].variable);
        if (!base || base[0] != '/' || strlen(base) + strlen(places[i].below) >= sizeof path)
            continue;
        (void)snprintf(path, sizeof path, "%s%s", base, places[i].below);
        return ferrum_options_set(options, "FERRUM_CACHE_DIR", path, err);
    }
    return FERRUM_OK;
}

ferrum_status_t ferrum_options_from_env(const ferrum_logger_t *logger,
                                        ferrum_options_t **out_options, ferrum_error_t *err)
{
    ferrum_options_t *options = NULL;
    size_t count;
    const ferrum_option_info_t *table = ferrum_option_table(&count);
    if (!out_options)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL, "out_options is NULL");
    FERRUM_TRY(ferrum_options_new(&options, err));
    for (size_t i = 0; i < count; i++) {
        const char *value = secure_getenv(table[i].name);
        if (!value || (!*value && table[i].kind != FERRUM_OPTION_IF_PRESENT))
            continue;
        const char *complaint = ferrum_option_complaint(table[i].name, value);
        if (complaint)
            ferrum_log(logger, FERRUM_LOG_WARN, "%s=%.64s %s; the default applies", table[i].name,
                       value, complaint);
        ferrum_status_t status = ferrum_options_set(options, table[i].name, value, err);
        if (status != FERRUM_OK) {
            ferrum_options_free(options);
            return status;
        }
    }
    ferrum_status_t status = set_cache_dir(options, err);
    if (status != FERRUM_OK) {
        ferrum_options_free(options);
        return status;
    }
    for (char **entry = environ; entry && *entry; entry++)
        if (strncmp(*entry, "FERRUM_", 7) == 0 && strncmp(*entry, "FERRUM_TEST_", 12) != 0)
            warn_of_unknown(logger, *entry);
    *out_options = options;
    return FERRUM_OK;
}
