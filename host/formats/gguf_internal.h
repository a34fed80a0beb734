/* SPDX-License-Identifier: MIT */
/** @file gguf_internal.h  What gguf.c (opening) and gguf_values.c (getters) share. */
#ifndef FERRUM_HOST_GGUF_INTERNAL_H
#define FERRUM_HOST_GGUF_INTERNAL_H

#include "host/formats/gguf.h"
#include "host/formats/mapped_file.h"
#include "host/formats/name_index.h"

struct ferrum_gguf {
    char *path;
    ferrum_mapped_file_t mapping; /**< zeroed when the bytes are borrowed */
    const uint8_t *data;
    uint64_t bytes;
    uint32_t version;
    uint32_t alignment;
    uint32_t key_count;
    uint32_t tensor_count;
    ferrum_gguf_key_t *keys;
    ferrum_gguf_tensor_t *tensors;
    ferrum_name_index_t key_index;
    ferrum_name_index_t tensor_index;
};

/** Bytes of one value of a scalar type; 0 for strings, arrays and unknown types. */
uint32_t ferrum_gguf_scalar_bytes(ferrum_gguf_type_t type);

#endif /* FERRUM_HOST_GGUF_INTERNAL_H */
