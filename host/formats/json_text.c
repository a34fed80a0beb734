/* SPDX-License-Identifier: MIT */
#include "host/formats/json_text.h"

#include <ferrum/util.h>

#include "host/formats/mapped_file.h"

ferrum_status_t ferrum_json_parse(const char *text, size_t bytes, const char *label,
                                  json_t **out_object, ferrum_error_t *err)
{
    json_error_t error;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        /* Jansson says nothing at all when memory runs out early. */
        if (!error.text[0] || json_error_code(&error) == json_error_out_of_memory)
            return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OTHER,
                               "%.140s: no memory to parse the JSON", label);
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_FORMAT,
                           "%.100s: bad JSON in line %d, column %d: %.80s", label, error.line,
                           error.column, error.text);
    }
    if (!json_is_object(root)) {
        json_decref(root);
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_FORMAT,
                           "%.140s: the JSON is not an object", label);
    }
    *out_object = root;
    return FERRUM_OK;
}

ferrum_status_t ferrum_json_load(const char *path, json_t **out_object, ferrum_error_t *err)
{
    ferrum_mapped_file_t file;
    FERRUM_TRY(ferrum_mapped_file_open(path, FERRUM_MAP_NORMAL, &file, err));
    ferrum_status_t status;
    if (file.bytes > FERRUM_JSON_MAX_FILE_BYTES)
        status = ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_LENGTH,
                             "%.120s has %zu bytes, too many for a JSON file of a model", path,
                             file.bytes);
    else
        status = ferrum_json_parse(file.data ? (const char *)file.data : "", file.bytes, path,
                                   out_object, err);
    ferrum_mapped_file_close(&file);
    return status;
}

/* The field, or NULL with *out_status what the getter returns. */
static const json_t *get(const json_t *object, const char *label, const char *field, bool required,
                         ferrum_status_t *out_status, ferrum_error_t *err)
{
    const json_t *value = json_object_get(object, field);
    *out_status = FERRUM_OK;
    if (value && !json_is_null(value))
        return value;
    if (required)
        *out_status = ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_OTHER,
                                  "%.120s: the field \"%.60s\" is missing", label, field);
    return NULL;
}

static ferrum_status_t fail_type(const char *label, const char *field, const char *wanted,
                                 ferrum_error_t *err)
{
    return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_DTYPE,
                       "%.120s: the field \"%.60s\" is not %s", label, field, wanted);
}

ferrum_status_t ferrum_json_i64(const json_t *object, const char *label, const char *field,
                                bool required, int64_t *out_value, ferrum_error_t *err)
{
    ferrum_status_t status;
    const json_t *value = get(object, label, field, required, &status, err);
    if (!value)
        return status;
    if (!json_is_integer(value))
        return fail_type(label, field, "an integer", err);
    *out_value = json_integer_value(value);
    return FERRUM_OK;
}

ferrum_status_t ferrum_json_u32(const json_t *object, const char *label, const char *field,
                                bool required, uint32_t *out_value, ferrum_error_t *err)
{
    int64_t value = *out_value;
    FERRUM_TRY(ferrum_json_i64(object, label, field, required, &value, err));
    if (value < 0 || value > UINT32_MAX)
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_RANGE,
                           "%.120s: the field \"%.60s\" is out of range (%lld)", label, field,
                           (long long)value);
    *out_value = (uint32_t)value;
    return FERRUM_OK;
}

ferrum_status_t ferrum_json_f64(const json_t *object, const char *label, const char *field,
                                bool required, double *out_value, ferrum_error_t *err)
{
    ferrum_status_t status;
    const json_t *value = get(object, label, field, required, &status, err);
    if (!value)
        return status;
    if (!json_is_number(value))
        return fail_type(label, field, "a number", err);
    *out_value = json_number_value(value);
    return FERRUM_OK;
}

ferrum_status_t ferrum_json_bool(const json_t *object, const char *label, const char *field,
                                 bool required, bool *out_value, ferrum_error_t *err)
{
    ferrum_status_t status;
    const json_t *value = get(object, label, field, required, &status, err);
    if (!value)
        return status;
    if (!json_is_boolean(value))
        return fail_type(label, field, "true or false", err);
    *out_value = json_is_true(value);
    return FERRUM_OK;
}

ferrum_status_t ferrum_json_string(const json_t *object, const char *label, const char *field,
                                   bool required, const char **out_value, ferrum_error_t *err)
{
    ferrum_status_t status;
    const json_t *value = get(object, label, field, required, &status, err);
    if (!value)
        return status;
    if (!json_is_string(value))
        return fail_type(label, field, "a string", err);
    *out_value = json_string_value(value);
    return FERRUM_OK;
}
