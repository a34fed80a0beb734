/* SPDX-License-Identifier: MIT */
/**
 * @file fuzz.h
 * @brief What the fuzz harnesses share.
 *
 * A harness is one file with the entry point of libFuzzer. Linked with libFuzzer it searches
 * (`make fuzz`); linked with replay.c it runs over files (`make check`). Beyond "no crash" it
 * demands what the headers promise, with FUZZ_REQUIRE.
 */
#ifndef FERRUM_TEST_FUZZ_H
#define FERRUM_TEST_FUZZ_H

#include <ferrum/types.h>

#include <stddef.h>
#include <stdint.h>

/** Run one input; always 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/** End the process when a promise is broken. */
#define FUZZ_REQUIRE(condition) ((condition) ? (void)0 : fuzz_fail(__FILE__, __LINE__, #condition))
__attribute__((noreturn)) void fuzz_fail(const char *file, int line, const char *what);

/** A refusal: not OK, the same in @p err, and one printable line of text. */
void fuzz_require_refusal(ferrum_status_t status, const ferrum_error_t *err);

/** A copy of exactly @p size bytes, so that a sanitizer sees the first byte beyond. */
uint8_t *fuzz_copy(const uint8_t *data, size_t size);

/** Read every byte of a range that the code under test calls readable. */
void fuzz_touch(const void *data, uint64_t bytes);

/** Numbers off the front of an input; zeros when it is used up. */
typedef struct fuzz_source {
    const uint8_t *at;
    size_t left;
} fuzz_source_t;

uint8_t fuzz_u8(fuzz_source_t *source);
uint32_t fuzz_u32(fuzz_source_t *source);
/** 0 to @p limit inclusive. */
uint32_t fuzz_up_to(fuzz_source_t *source, uint32_t limit);

#endif /* FERRUM_TEST_FUZZ_H */
