/* SPDX-License-Identifier: MIT */
/**
 * @file json_text.h
 * @brief Jansson with Ferrum's errors: parse text or a file, read fields of checked types.
 */
#ifndef FERRUM_HOST_JSON_TEXT_H
#define FERRUM_HOST_JSON_TEXT_H

#include <ferrum/types.h>
#include <jansson.h>
#include <stdbool.h>

/** Largest JSON file that is read: a tokenizer.json of a large vocabulary has about 12 MB. */
#define FERRUM_JSON_MAX_FILE_BYTES (256u << 20)

/**
 * Parse an object. A key that is there twice is an error. @p label names the text in messages.
 * Errors: CORRUPT (with line and column), OUT_OF_MEMORY. [any-thread]
 */
ferrum_status_t ferrum_json_parse(const char *text, size_t bytes, const char *label,
                                  json_t **out_object, ferrum_error_t *err);

/** The same from a file. Errors also: NOT_FOUND, IO. [any-thread] */
ferrum_status_t ferrum_json_load(const char *path, json_t **out_object, ferrum_error_t *err);

/*
 * Fields of @p object. A field that is missing or null leaves the output as it is when it is not
 * @p required (NOT_FOUND otherwise). Another type is CORRUPT (reason DTYPE), a value out of range
 * CORRUPT (reason RANGE). [any-thread]
 */
ferrum_status_t ferrum_json_u32(const json_t *object, const char *label, const char *field,
                                bool required, uint32_t *out_value, ferrum_error_t *err);
ferrum_status_t ferrum_json_i64(const json_t *object, const char *label, const char *field,
                                bool required, int64_t *out_value, ferrum_error_t *err);
ferrum_status_t ferrum_json_f64(const json_t *object, const char *label, const char *field,
                                bool required, double *out_value, ferrum_error_t *err);
ferrum_status_t ferrum_json_bool(const json_t *object, const char *label, const char *field,
                                 bool required, bool *out_value, ferrum_error_t *err);
/** Borrowed from @p object. */
ferrum_status_t ferrum_json_string(const json_t *object, const char *label, const char *field,
                                   bool required, const char **out_value, ferrum_error_t *err);

#endif /* FERRUM_HOST_JSON_TEXT_H */
