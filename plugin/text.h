/* SPDX-License-Identifier: MIT */
/*
 * Text in fixed buffers and lines for the logger. Nothing here allocates, so that it works while
 * a failure is being reported.
 */
#ifndef FERRUM_PLUGIN_TEXT_H
#define FERRUM_PLUGIN_TEXT_H

#include <ferrum/host.h>
#include <ferrum/util.h>

#include <string.h>

/** Copy @p src into a fixed array, cut at its end when it does not fit. */
#define FERRUM_COPY_TEXT(array, src) ferrum_text_copy((array), sizeof(array), (src))

static inline void ferrum_text_copy(char *out, size_t size, const char *src)
{
    size_t n = 0;
    for (; n + 1 < size && src[n]; n++)
        out[n] = src[n];
    out[n] = '\0';
}

/** The end of a path, short enough to leave room for the rest of a message. */
static inline const char *ferrum_path_tail(const char *path)
{
    enum {
        LONGEST = 110
    };
    size_t n = strlen(path);
    if (n <= LONGEST)
        return path;
    const char *slash = strchr(path + n - LONGEST, '/');
    return slash ? slash + 1 : path + n - LONGEST;
}

/** Append to the text in @p out; when it does not fit, the text ends in "...". */
FERRUM_PRINTF(3, 4)
static inline void ferrum_text_append(char *out, size_t size, const char *fmt, ...)
{
    size_t used = strlen(out);
    va_list args;
    va_start(args, fmt);
    int wanted = vsnprintf(out + used, size - used, fmt, args);
    va_end(args);
    if (wanted >= 0 && (size_t)wanted >= size - used && size > 4)
        memcpy(out + size - 4, "...", 4);
}

/** Send one line to @p logger, if it wants that level. */
FERRUM_PRINTF(3, 4)
static inline void ferrum_log(const ferrum_logger_t *logger, ferrum_log_level_t level,
                              const char *fmt, ...)
{
    if (!logger || !logger->log || level > logger->level)
        return;
    char line[512];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    logger->log(logger->self, level, line);
}

#endif /* FERRUM_PLUGIN_TEXT_H */
