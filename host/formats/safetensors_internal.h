/* SPDX-License-Identifier: MIT */
/** @file safetensors_internal.h  What safetensors.c and safetensors_open.c share. */
#ifndef FERRUM_HOST_SAFETENSORS_INTERNAL_H
#define FERRUM_HOST_SAFETENSORS_INTERNAL_H

#include "host/formats/mapped_file.h"
#include "host/formats/name_index.h"
#include "host/formats/safetensors.h"

/** One file. */
typedef struct ferrum_safetensors_shard {
    char *path;
    ferrum_mapped_file_t mapping; /**< zeroed when the bytes are borrowed */
    const uint8_t *data;
    uint64_t bytes;
    char *names; /**< the tensors' names, NUL-terminated, one after the other */
} ferrum_safetensors_shard_t;

struct ferrum_safetensors {
    char *path;
    ferrum_safetensors_shard_t *shards;
    uint32_t shard_count;
    ferrum_safetensors_tensor_t *tensors;
    uint32_t tensor_count;
    size_t tensor_capacity;
    ferrum_name_index_t index;
};

/** Copy of a C string or NULL. */
char *ferrum_safetensors_copy_text(const char *text);

/**
 * Check the header of shard number @p shard, whose path and bytes are set, and add its tensors.
 * On an error the checkpoint can only be closed.
 */
ferrum_status_t ferrum_safetensors_add_shard(ferrum_safetensors_t *checkpoint, uint32_t shard,
                                             ferrum_error_t *err);

#endif /* FERRUM_HOST_SAFETENSORS_INTERNAL_H */
