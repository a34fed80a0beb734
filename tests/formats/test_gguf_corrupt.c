/* SPDX-License-Identifier: MIT */
/*
 * GGUF files that are wrong. Each must be refused with a message or, where a damaged byte makes
 * another valid file, open into something consistent: everything reachable is then read, so that
 * the sanitizers see any access outside the file. Files lie in exact heap blocks for that reason.
 */
#include <check.h>
#include <stdlib.h>

#include "host/formats/gguf.h"
#include "tests/support/expect.h"
#include "tests/support/gguf_writer.h"

static volatile uint64_t sink;

/* Read one byte of everything, at both ends. */
static void touch(const ferrum_gguf_t *gguf)
{
    for (uint32_t i = 0; i < ferrum_gguf_key_count(gguf); i++) {
        const ferrum_gguf_key_t *key = ferrum_gguf_key_at(gguf, i);
        if (key->item_type == FERRUM_GGUF_STRING) {
            ferrum_string_view_t *views = calloc((size_t)key->count + 1, sizeof *views);
            ck_assert_ptr_nonnull(views);
            ferrum_gguf_array_strings(key, views);
            for (uint64_t s = 0; s < key->count; s++)
                for (size_t b = 0; b < views[s].length; b++)
                    sink += (uint8_t)views[s].data[b];
            free(views);
        } else {
            for (uint64_t n = 0; n < key->count; n++)
                sink +=
                    (uint64_t)ferrum_gguf_item_i64(key, n) + (ferrum_gguf_item_f64(key, n) > 0.0);
        }
    }
    for (uint32_t i = 0; i < ferrum_gguf_tensor_count(gguf); i++) {
        const ferrum_gguf_tensor_t *tensor = ferrum_gguf_tensor_at(gguf, i);
        ck_assert(!tensor->traits == !tensor->data);
        if (tensor->data && tensor->bytes)
            sink += ((const uint8_t *)tensor->data)[0] +
                    ((const uint8_t *)tensor->data)[tensor->bytes - 1];
    }
}

/* Open a copy of its exact size; true when it opened. */
static bool try_open(const uint8_t *data, size_t bytes)
{
    uint8_t *copy = malloc(bytes ? bytes : 1);
    ferrum_gguf_t *gguf = NULL;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, data, bytes);
    ferrum_status_t status = ferrum_gguf_open_memory(copy, bytes, "bad.gguf", &gguf, &err);
    if (status == FERRUM_OK) {
        touch(gguf);
    } else {
        ck_assert_ptr_null(gguf);
        ck_assert_int_eq(err.status, status);
        ck_assert_ptr_nonnull(strstr(err.message, "bad.gguf"));
    }
    ferrum_gguf_close(gguf);
    free(copy);
    return status == FERRUM_OK;
}

/* A small file with every kind of entry. */
static ferrum_gguf_writer_t *sample(void)
{
    static const char *const words[] = {"one", "", "three"};
    static const uint8_t data[288] = {1, 2, 3};
    ferrum_gguf_writer_t *writer = ferrum_gguf_writer_new();
    ferrum_gguf_writer_set_alignment(writer, 32);
    ferrum_gguf_writer_string(writer, "general.architecture", "qwen3moe");
    ferrum_gguf_writer_u32(writer, "n", 7);
    ferrum_gguf_writer_f32(writer, "f", 1.0f);
    ferrum_gguf_writer_bool(writer, "b", true);
    ferrum_gguf_writer_strings(writer, "words", words, 3);
    ferrum_gguf_writer_i32s(writer, "ids", (int32_t[]){1, 2, 3}, 3);
    ferrum_gguf_writer_tensor(writer, "a.weight", 0, 2, (uint64_t[]){4, 2}, data, 32);
    ferrum_gguf_writer_tensor(writer, "q.weight", 12, 2, (uint64_t[]){256, 2}, data, 288);
    return writer;
}

START_TEST(every_truncation)
{
    ferrum_gguf_writer_t *writer = sample();
    uint8_t *data;
    size_t bytes;
    ferrum_gguf_writer_bytes(writer, &data, &bytes);
    ferrum_gguf_writer_free(writer);
    ck_assert(try_open(data, bytes));
    for (size_t cut = 0; cut < bytes; cut++)
        ck_assert_msg(!try_open(data, cut), "%zu of %zu bytes opened", cut, bytes);
    free(data);
}
END_TEST

START_TEST(every_byte_of_the_header)
{
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff};
    ferrum_gguf_writer_t *writer = sample();
    size_t header = ferrum_gguf_writer_header_bytes(writer);
    uint8_t *data;
    size_t bytes;
    ferrum_gguf_writer_bytes(writer, &data, &bytes);
    ferrum_gguf_writer_free(writer);
    for (size_t at = 0; at < header; at++) {
        uint8_t original = data[at];
        for (unsigned bit = 0; bit < 8; bit++) {
            data[at] = (uint8_t)(original ^ 1u << bit);
            try_open(data, bytes);
        }
        for (size_t v = 0; v < sizeof values; v++) {
            data[at] = values[v];
            try_open(data, bytes);
        }
        data[at] = original;
    }
    free(data);
}
END_TEST

/* Every aligned or unaligned 64-bit field overwritten by sizes that invite overflow. */
START_TEST(every_field_made_huge)
{
    static const uint64_t values[] = {
        UINT64_MAX,      UINT64_MAX - 7,    1ull << 63,         (1ull << 63) - 1, 1ull << 60,
        1ull << 32,      (1ull << 32) - 1,  UINT64_MAX / 4 + 1, UINT64_MAX / 144, 1ull << 61,
        0xffffffff00000, UINT64_MAX - 4096, UINT64_MAX / 256};
    ferrum_gguf_writer_t *writer = sample();
    size_t header = ferrum_gguf_writer_header_bytes(writer);
    uint8_t *data;
    size_t bytes;
    ferrum_gguf_writer_bytes(writer, &data, &bytes);
    ferrum_gguf_writer_free(writer);
    for (size_t at = 8; at + 8 <= header; at++) {
        uint8_t saved[8];
        memcpy(saved, data + at, 8);
        for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
            memcpy(data + at, &values[v], 8);
            try_open(data, bytes);
        }
        memcpy(data + at, saved, 8);
    }
    free(data);
}
END_TEST

/* Open what a writer made and expect a failure. */
static void expect_refused(ferrum_gguf_writer_t *writer, ferrum_status_t status, const char *text)
{
    uint8_t *data;
    size_t bytes;
    ferrum_gguf_t *gguf = NULL;
    ferrum_gguf_writer_bytes(writer, &data, &bytes);
    ferrum_gguf_writer_free(writer);
    EXPECT_FAILS(ferrum_gguf_open_memory(data, bytes, "bad.gguf", &gguf, &err), status, text);
    free(data);
}

static ferrum_gguf_writer_t *with_tensor(const char *name, uint32_t type, uint32_t dims_count,
                                         const uint64_t *dims, size_t bytes)
{
    static const uint8_t data[1024];
    ferrum_gguf_writer_t *writer = ferrum_gguf_writer_new();
    ferrum_gguf_writer_tensor(writer, name, type, dims_count, dims, data, bytes);
    return writer;
}
#define DIMS(...)                                                                                  \
    (const uint64_t[])                                                                             \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

START_TEST(bad_tensors)
{
    expect_refused(with_tensor("t", 0, 5, DIMS(1, 1, 1, 1, 1), 4), FERRUM_CORRUPT, "tensor t");
    expect_refused(with_tensor("t", 0, 0, NULL, 4), FERRUM_CORRUPT, "1 to 4 but 0");
    expect_refused(with_tensor("t", 0, 2, DIMS(4, 0), 0), FERRUM_CORRUPT, "dimension is 0");
    expect_refused(with_tensor("", 0, 1, DIMS(1), 4), FERRUM_CORRUPT, "0 bytes, not 1");
    expect_refused(with_tensor("t", 12, 2, DIMS(255, 2), 288), FERRUM_CORRUPT, "whole blocks");
    expect_refused(with_tensor("t", 2, 2, DIMS(16, 2), 18), FERRUM_CORRUPT, "whole blocks");
    expect_refused(with_tensor("t", 0, 1, DIMS(9), 32), FERRUM_CORRUPT, "past the end");
    expect_refused(with_tensor("t", 0, 2, DIMS(1ull << 32, 1ull << 32), 4), FERRUM_CORRUPT,
                   "overflows");
    expect_refused(with_tensor("t", 0, 2, DIMS(1ull << 32, 1ull << 30), 4), FERRUM_CORRUPT,
                   "size overflows");
    expect_refused(with_tensor("t", 0, 1, DIMS(1ull << 61), 4), FERRUM_CORRUPT, "past the end");
    expect_refused(with_tensor("t", 77, 2, DIMS(UINT64_MAX, 2), 4), FERRUM_CORRUPT, "overflows");
    ferrum_gguf_writer_t *writer = with_tensor("same", 0, 1, DIMS(1), 4);
    ferrum_gguf_writer_tensor(writer, "same", 0, 1, DIMS(1), "....", 4);
    expect_refused(writer, FERRUM_CORRUPT, "tensor same at offset");
}
END_TEST

/* The data offset is the last field of the last tensor's entry. */
START_TEST(bad_data_offsets)
{
    static const struct {
        uint64_t offset;
        const char *text;
    } cases[] = {{4, "not aligned: 4"},
                 {33, "not aligned: 33"},
                 {32, "past the end"},
                 {0ull - 32, "past the end"},
                 {1ull << 63, "past the end"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ferrum_gguf_writer_t *writer = with_tensor("t", 0, 1, DIMS(8), 32);
        size_t header = ferrum_gguf_writer_header_bytes(writer);
        uint8_t *data;
        size_t bytes;
        ferrum_gguf_t *gguf = NULL;
        ferrum_gguf_writer_bytes(writer, &data, &bytes);
        ferrum_gguf_writer_free(writer);
        memcpy(data + header - 8, &cases[i].offset, 8);
        EXPECT_FAILS(ferrum_gguf_open_memory(data, bytes, "bad.gguf", &gguf, &err), FERRUM_CORRUPT,
                     cases[i].text);
        free(data);
    }
}
END_TEST

START_TEST(bad_metadata)
{
    static const uint32_t nested[] = {9, 2, 0, 0};
    static const uint32_t unknown_item[] = {13, 1, 0, 0};
    static const uint32_t long_array[] = {10, 0xffffffff, 0x1fffffff};
    ferrum_gguf_writer_t *writer = ferrum_gguf_writer_new();
    ferrum_gguf_writer_u32(writer, "twice", 1);
    ferrum_gguf_writer_u32(writer, "twice", 2);
    expect_refused(writer, FERRUM_CORRUPT, "metadata key twice at offset");
    static const uint32_t alignments[] = {0, 1, 4, 24, 33, 0xffffffff};
    for (size_t i = 0; i < sizeof alignments / sizeof alignments[0]; i++) {
        writer = ferrum_gguf_writer_new();
        ferrum_gguf_writer_u32(writer, "general.alignment", alignments[i]);
        expect_refused(writer, FERRUM_CORRUPT, "power of two");
    }
    writer = ferrum_gguf_writer_new();
    ferrum_gguf_writer_string(writer, "general.alignment", "32");
    expect_refused(writer, FERRUM_CORRUPT, "general.alignment");
    writer = ferrum_gguf_writer_new();
    ferrum_gguf_writer_raw(writer, "k", 13, "....", 4);
    expect_refused(writer, FERRUM_CORRUPT, "unknown type 13");
    writer = ferrum_gguf_writer_new();
    ferrum_gguf_writer_raw(writer, "k", 9, nested, sizeof nested);
    expect_refused(writer, FERRUM_UNSUPPORTED, "nested");
    writer = ferrum_gguf_writer_new();
    ferrum_gguf_writer_raw(writer, "k", 9, unknown_item, sizeof unknown_item);
    expect_refused(writer, FERRUM_CORRUPT, "unknown type 13");
    writer = ferrum_gguf_writer_new();
    ferrum_gguf_writer_raw(writer, "k", 9, long_array, sizeof long_array);
    expect_refused(writer, FERRUM_CORRUPT, "past the end");
    writer = ferrum_gguf_writer_new();
    ferrum_gguf_writer_u32(writer, "", 1);
    expect_refused(writer, FERRUM_CORRUPT, "0 bytes, not 1");
}
END_TEST

START_TEST(bad_versions)
{
    static const struct {
        uint32_t version;
        const char *text;
    } cases[] = {{0, "version 0"}, {1, "version 1"}, {4, "version 4"}, {3u << 24, "big-endian"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ferrum_gguf_writer_t *writer = ferrum_gguf_writer_new();
        ferrum_gguf_writer_set_version(writer, cases[i].version);
        expect_refused(writer, FERRUM_UNSUPPORTED, cases[i].text);
    }
}
END_TEST

/* Counts are checked before anything is allocated for them. */
START_TEST(absurd_counts_fail_at_once)
{
    static const uint64_t counts[] = {1ull << 60, UINT64_MAX, 1ull << 32, 1000};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        for (size_t field = 8; field <= 16; field += 8) {
            uint8_t file[256] = "GGUF\3";
            ferrum_gguf_t *gguf = NULL;
            uint64_t aligned[32];
            memcpy(file + field, &counts[i], 8);
            memcpy(aligned, file, sizeof file);
            EXPECT_FAILS(ferrum_gguf_open_memory(aligned, sizeof aligned, "bad.gguf", &gguf, &err),
                         FERRUM_CORRUPT,
                         field == 8 ? "tensors, more than" : "metadata keys, more than");
        }
    }
}
END_TEST

/* A large file of zeros could hold that many keys, but no real file does. */
START_TEST(there_is_a_limit_on_keys)
{
    enum {
        BYTES = 2 << 20
    };
    uint64_t count = FERRUM_GGUF_MAX_KEYS + 1;
    uint8_t *data = calloc(1, BYTES);
    ferrum_gguf_t *gguf = NULL;
    ck_assert_ptr_nonnull(data);
    memcpy(data, "GGUF\3", 5);
    memcpy(data + 16, &count, 8);
    EXPECT_FAILS(ferrum_gguf_open_memory(data, BYTES, "bad.gguf", &gguf, &err), FERRUM_CORRUPT,
                 "more than any file can hold");
    free(data);
}
END_TEST

START_TEST(memory_must_be_aligned)
{
    uint64_t words[8] = {0};
    ferrum_gguf_t *gguf = NULL;
    EXPECT_FAILS(ferrum_gguf_open_memory((uint8_t *)words + 4, 32, "odd", &gguf, &err),
                 FERRUM_INVALID_ARGUMENT, "aligned");
    EXPECT_FAILS(ferrum_gguf_open_memory(words, 32, "zeros", &gguf, &err), FERRUM_CORRUPT,
                 "zeros is not a GGUF file");
}
END_TEST

/* Random damage on top of the systematic kind, over the whole file. */
START_TEST(random_damage)
{
    ferrum_gguf_writer_t *writer = sample();
    uint8_t *data;
    uint8_t *damaged;
    size_t bytes;
    uint64_t state = 88172645463325252u;
    ferrum_gguf_writer_bytes(writer, &data, &bytes);
    ferrum_gguf_writer_free(writer);
    damaged = malloc(bytes);
    ck_assert_ptr_nonnull(damaged);
    for (int round = 0; round < 20000; round++) {
        memcpy(damaged, data, bytes);
        for (int hits = 0; hits < 1 + round % 5; hits++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            damaged[(state >> 16) % bytes] = (uint8_t)state;
        }
        try_open(damaged, bytes);
    }
    free(damaged);
    free(data);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("corrupt gguf");
    TCase *tests = tcase_create("refusing");
    tcase_add_test(tests, every_truncation);
    tcase_add_test(tests, every_byte_of_the_header);
    tcase_add_test(tests, every_field_made_huge);
    tcase_add_test(tests, bad_tensors);
    tcase_add_test(tests, bad_data_offsets);
    tcase_add_test(tests, bad_metadata);
    tcase_add_test(tests, bad_versions);
    tcase_add_test(tests, absurd_counts_fail_at_once);
    tcase_add_test(tests, there_is_a_limit_on_keys);
    tcase_add_test(tests, memory_must_be_aligned);
    tcase_add_test(tests, random_damage);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
