/* SPDX-License-Identifier: MIT */
/* SHA-256 (FIPS 180-4), to know a file by its content. */
#ifndef FERRUM_PLUGIN_SHA256_H
#define FERRUM_PLUGIN_SHA256_H

#include <stddef.h>
#include <stdint.h>

/** Characters of a digest in hexadecimal, terminator included. */
#define FERRUM_SHA256_HEX 65

/** Digest of @p size bytes as lower-case hexadecimal. */
void ferrum_sha256_hex(const void *bytes, uint64_t size, char out_hex[FERRUM_SHA256_HEX]);

#endif /* FERRUM_PLUGIN_SHA256_H */
