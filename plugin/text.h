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

/** Bytes of the UTF-8 character at @p c; 0 when there is none, or a control character. */
static inline size_t ferrum_text_char(const unsigned char *c)
{
    if (c[0] < 0x80)
        return c[0] >= 0x20 && c[0] != 0x7f;
    if (c[0] < 0xc0 || c[0] >= 0xf8)
        return 0;
    size_t length = c[0] >= 0xf0 ? 4 : c[0] >= 0xe0 ? 3 : 2;
    uint32_t code = c[0] & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if ((c[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (c[i] & 0x3fu);
    }
    static const uint32_t least[] = {0xa0, 0x800, 0x10000}; /* 80 to 9f are control characters */
    bool surrogate = code >= 0xd800 && code <= 0xdfff;
    return code >= least[length - 2] && code <= 0x10ffff && !surrogate ? length : 0;
}

/** Make what a plugin says of itself fit for terminals, logs and JSON: one line of UTF-8, in which
 *  every other byte has become '?'. */
static inline void ferrum_text_clean(char *text)
{
    while (*text) {
        size_t length = ferrum_text_char((const unsigned char *)text);
        if (length == 0)
            *text = '?';
        text += length ? length : 1;
    }
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
