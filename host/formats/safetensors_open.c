/* SPDX-License-Identifier: MIT */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <ferrum/util.h>

#include "host/formats/json_text.h"
#include "host/formats/safetensors_internal.h"

static ferrum_status_t fail_memory(const char *path, ferrum_error_t *err)
{
    return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OTHER, "no memory to open %.160s",
                       path);
}

char *ferrum_safetensors_copy_text(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = malloc(bytes);
    if (copy)
        memcpy(copy, text, bytes);
    return copy;
}

/* `directory/name`, where `directory` has the given length; NULL when memory has run out. */
static char *join(const char *directory, size_t directory_bytes, const char *name)
{
    size_t name_bytes = strlen(name) + 1;
    char *path = malloc(directory_bytes + 1 + name_bytes);
    if (!path)
        return NULL;
    memcpy(path, directory, directory_bytes);
    path[directory_bytes] = '/';
    memcpy(path + directory_bytes + 1, name, name_bytes);
    return path;
}

static ferrum_safetensors_t *new_checkpoint(const char *path, size_t shards)
{
    ferrum_safetensors_t *checkpoint = calloc(1, sizeof *checkpoint);
    if (!checkpoint)
        return NULL;
    checkpoint->path = ferrum_safetensors_copy_text(path);
    checkpoint->shards = calloc(shards ? shards : 1, sizeof *checkpoint->shards);
    if (!checkpoint->path || !checkpoint->shards) {
        ferrum_safetensors_close(checkpoint);
        return NULL;
    }
    return checkpoint;
}

void ferrum_safetensors_close(ferrum_safetensors_t *checkpoint)
{
    if (!checkpoint)
        return;
    for (uint32_t i = 0; i < checkpoint->shard_count; i++) {
        ferrum_mapped_file_close(&checkpoint->shards[i].mapping);
        free(checkpoint->shards[i].names);
        free(checkpoint->shards[i].path);
    }
    ferrum_name_index_clear(&checkpoint->index);
    free(checkpoint->shards);
    free(checkpoint->tensors);
    free(checkpoint->path);
    free(checkpoint);
}

/* Map one more file; takes over `path`, which is NULL when memory has run out. */
static ferrum_status_t open_shard(ferrum_safetensors_t *checkpoint, char *path, ferrum_error_t *err)
{
    if (!path)
        return fail_memory(checkpoint->path, err);
    uint32_t number = checkpoint->shard_count++;
    ferrum_safetensors_shard_t *shard = &checkpoint->shards[number];
    shard->path = path;
    FERRUM_TRY(ferrum_mapped_file_open(path, FERRUM_MAP_WILL_NEED, &shard->mapping, err));
    shard->data = shard->mapping.data;
    shard->bytes = shard->mapping.bytes;
    return ferrum_safetensors_add_shard(checkpoint, number, err);
}

static ferrum_status_t open_single(const char *path, ferrum_safetensors_t **out_checkpoint,
                                   ferrum_error_t *err)
{
    ferrum_safetensors_t *checkpoint = new_checkpoint(path, 1);
    if (!checkpoint)
        return fail_memory(path, err);
    ferrum_status_t status = open_shard(checkpoint, ferrum_safetensors_copy_text(path), err);
    if (status != FERRUM_OK) {
        ferrum_safetensors_close(checkpoint);
        return status;
    }
    *out_checkpoint = checkpoint;
    return FERRUM_OK;
}

ferrum_status_t ferrum_safetensors_open_memory(const void *data, size_t bytes, const char *label,
                                               ferrum_safetensors_t **out_checkpoint,
                                               ferrum_error_t *err)
{
    ferrum_safetensors_t *checkpoint = new_checkpoint(label, 1);
    char *path = ferrum_safetensors_copy_text(label);
    if (!checkpoint || !path) {
        free(path);
        ferrum_safetensors_close(checkpoint);
        return fail_memory(label, err);
    }
    checkpoint->shard_count = 1;
    checkpoint->shards[0].path = path;
    checkpoint->shards[0].data = data;
    checkpoint->shards[0].bytes = bytes;
    ferrum_status_t status = ferrum_safetensors_add_shard(checkpoint, 0, err);
    if (status != FERRUM_OK) {
        ferrum_safetensors_close(checkpoint);
        return status;
    }
    *out_checkpoint = checkpoint;
    return FERRUM_OK;
}

/* An index may only name files next to it. */
static ferrum_status_t check_shard_name(const char *index_path, const char *name,
                                        ferrum_error_t *err)
{
    if (*name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_PERMISSION, FERRUM_REASON_OTHER,
                       "%.100s names the shard \"%.80s\": only files of its own directory are "
                       "allowed",
                       index_path, name);
}

/* Number the distinct shards of a weight map in order of appearance. Names stay in the JSON. */
static ferrum_status_t number_shards(const char *index_path, json_t *weight_map,
                                     ferrum_name_index_t *files, ferrum_error_t *err)
{
    const char *tensor;
    json_t *file;
    json_object_foreach(weight_map, tensor, file)
    {
        uint32_t existing;
        const char *name = json_string_value(file);
        if (!name)
            return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_DTYPE,
                               "%.100s: the file of tensor %.80s is not a string", index_path,
                               tensor);
        FERRUM_TRY(check_shard_name(index_path, name, err));
        FERRUM_TRY(ferrum_name_index_add(files, ferrum_view(name), (uint32_t)files->count,
                                         &existing, err));
        if (files->count > FERRUM_SAFETENSORS_MAX_SHARDS)
            return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_LENGTH,
                               "%.140s names more than %u shards", index_path,
                               FERRUM_SAFETENSORS_MAX_SHARDS);
    }
    return FERRUM_OK;
}

static ferrum_status_t open_shards(ferrum_safetensors_t *checkpoint, json_t *weight_map,
                                   const ferrum_name_index_t *files, ferrum_error_t *err)
{
    const char *slash = strrchr(checkpoint->path, '/');
    const char *directory = slash ? checkpoint->path : ".";
    size_t directory_bytes = slash ? (size_t)(slash - checkpoint->path) : 1;
    const char *tensor;
    json_t *file;
    json_object_foreach(weight_map, tensor, file)
    {
        const char *name = json_string_value(file);
        if (ferrum_name_index_find(files, ferrum_view(name)) == checkpoint->shard_count)
            FERRUM_TRY(open_shard(checkpoint, join(directory, directory_bytes, name), err));
    }
    json_object_foreach(weight_map, tensor, file)
    {
        const ferrum_safetensors_tensor_t *found = ferrum_safetensors_find(checkpoint, tensor);
        uint32_t shard = ferrum_name_index_find(files, ferrum_view(json_string_value(file)));
        if (!found || found->shard != shard)
            return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_OTHER,
                               "%.70s: tensor %.80s is not in %.60s, where the index has it",
                               checkpoint->path, tensor, json_string_value(file));
    }
    return FERRUM_OK;
}

static ferrum_status_t open_weight_map(const char *path, json_t *weight_map,
                                       ferrum_safetensors_t **out_checkpoint, ferrum_error_t *err)
{
    ferrum_name_index_t files = {0};
    ferrum_safetensors_t *checkpoint = NULL;
    ferrum_status_t status = number_shards(path, weight_map, &files, err);
    if (status != FERRUM_OK)
        goto clear_files;
    checkpoint = new_checkpoint(path, files.count);
    if (!checkpoint) {
        status = fail_memory(path, err);
        goto clear_files;
    }
    status = open_shards(checkpoint, weight_map, &files, err);
    if (status == FERRUM_OK)
        *out_checkpoint = checkpoint;
    else
        ferrum_safetensors_close(checkpoint);
clear_files:
    ferrum_name_index_clear(&files);
    return status;
}

static ferrum_status_t open_index(const char *path, ferrum_safetensors_t **out_checkpoint,
                                  ferrum_error_t *err)
{
    json_t *root;
    FERRUM_TRY(ferrum_json_load(path, &root, err));
    json_t *weight_map = json_object_get(root, "weight_map");
    ferrum_status_t status;
    if (json_is_object(weight_map))
        status = open_weight_map(path, weight_map, out_checkpoint, err);
    else
        status = ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_FORMAT,
                             "%.140s: the object \"weight_map\" is missing", path);
    json_decref(root);
    return status;
}

static ferrum_status_t open_directory(const char *path, ferrum_safetensors_t **out_checkpoint,
                                      ferrum_error_t *err)
{
    static const struct {
        const char *name;
        ferrum_status_t (*open)(const char *path, ferrum_safetensors_t **out_checkpoint,
                                ferrum_error_t *err);
    } candidates[] = {
        {"model.safetensors", open_single},
        {"model.safetensors.index.json", open_index},
    };
    for (size_t i = 0; i < sizeof candidates / sizeof candidates[0]; i++) {
        struct stat info;
        char *file = join(path, strlen(path), candidates[i].name);
        if (!file)
            return fail_memory(path, err);
        bool absent = stat(file, &info) != 0 && errno == ENOENT;
        ferrum_status_t status = absent ? FERRUM_OK : candidates[i].open(file, out_checkpoint, err);
        free(file);
        if (!absent)
            return status;
    }
    return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_OTHER,
                       "%.120s has neither model.safetensors nor model.safetensors.index.json; "
                       "name the file itself",
                       path);
}

ferrum_status_t ferrum_safetensors_open(const char *path, ferrum_safetensors_t **out_checkpoint,
                                        ferrum_error_t *err)
{
    static const char json_suffix[] = ".json";
    size_t length = strlen(path);
    size_t suffix = sizeof json_suffix - 1;
    struct stat info;
    if (stat(path, &info) != 0)
        return ferrum_fail(err, errno == ENOENT ? FERRUM_NOT_FOUND : FERRUM_IO, FERRUM_REASON_OTHER,
                           "cannot open %.160s: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode))
        return open_directory(path, out_checkpoint, err);
    if (length > suffix && strcmp(path + length - suffix, json_suffix) == 0)
        return open_index(path, out_checkpoint, err);
    return open_single(path, out_checkpoint, err);
}

const char *ferrum_safetensors_path(const ferrum_safetensors_t *checkpoint)
{
    return checkpoint->path;
}

uint32_t ferrum_safetensors_shard_count(const ferrum_safetensors_t *checkpoint)
{
    return checkpoint->shard_count;
}

const char *ferrum_safetensors_shard_path(const ferrum_safetensors_t *checkpoint, uint32_t shard)
{
    return shard < checkpoint->shard_count ? checkpoint->shards[shard].path : NULL;
}

void ferrum_safetensors_release_pages(const ferrum_safetensors_t *checkpoint)
{
    for (uint32_t i = 0; i < checkpoint->shard_count; i++)
        ferrum_mapped_file_release_pages(&checkpoint->shards[i].mapping);
}

uint64_t ferrum_safetensors_bytes(const ferrum_safetensors_t *checkpoint)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < checkpoint->shard_count; i++)
        bytes += checkpoint->shards[i].bytes;
    return bytes;
}
