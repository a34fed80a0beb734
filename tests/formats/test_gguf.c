/* SPDX-License-Identifier: MIT */
/* GGUF files that are right: every value type, tensors of every format, the look-ups. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "host/formats/gguf.h"
#include "tests/support/expect.h"
#include "tests/support/files.h"
#include "tests/support/gguf_writer.h"

/* A writer's bytes, opened; both are released by close_file. */
typedef struct open_file {
    uint8_t *data;
    ferrum_gguf_t *gguf;
} open_file_t;

static open_file_t open_writer(ferrum_gguf_writer_t *writer)
{
    open_file_t file;
    size_t bytes;
    ferrum_gguf_writer_bytes(writer, &file.data, &bytes);
    ferrum_gguf_writer_free(writer);
    EXPECT_OK(ferrum_gguf_open_memory(file.data, bytes, "test.gguf", &file.gguf, &err));
    return file;
}

static void close_file(open_file_t *file)
{
    ferrum_gguf_close(file->gguf);
    free(file->data);
}

START_TEST(an_empty_file_is_fine)
{
    for (uint32_t version = 2; version <= 3; version++) {
        ferrum_gguf_writer_t *writer = ferrum_gguf_writer_new();
        ferrum_gguf_writer_set_version(writer, version);
        open_file_t file = open_writer(writer);
        ck_assert_uint_eq(ferrum_gguf_version(file.gguf), version);
        ck_assert_uint_eq(ferrum_gguf_alignment(file.gguf), 32);
        ck_assert_uint_eq(ferrum_gguf_key_count(file.gguf), 0);
        ck_assert_uint_eq(ferrum_gguf_tensor_count(file.gguf), 0);
        ck_assert_ptr_null(ferrum_gguf_key_at(file.gguf, 0));
        ck_assert_ptr_null(ferrum_gguf_tensor_at(file.gguf, 0));
        ck_assert_ptr_null(ferrum_gguf_find_key(file.gguf, "x"));
        ck_assert_ptr_null(ferrum_gguf_find_tensor(file.gguf, ""));
        ck_assert_str_eq(ferrum_gguf_path(file.gguf), "test.gguf");
        close_file(&file);
    }
}
END_TEST

START_TEST(reads_every_scalar_type)
{
    static const uint8_t u64_max[8] = {255, 255, 255, 255, 255, 255, 255, 255};
    ferrum_gguf_writer_t *writer = ferrum_gguf_writer_new();
    ferrum_gguf_writer_raw(writer, "u8", 0, (uint8_t[]){200}, 1);
    ferrum_gguf_writer_raw(writer, "i8", 1, (uint8_t[]){0xfe}, 1);
    ferrum_gguf_writer_raw(writer, "u16", 2, (uint8_t[]){0x34, 0x12}, 2);
    ferrum_gguf_writer_raw(writer, "i16", 3, (uint8_t[]){0xff, 0xff}, 2);
    ferrum_gguf_writer_u32(writer, "u32", 4000000000u);
    ferrum_gguf_writer_i32(writer, "i32", -7);
    ferrum_gguf_writer_f32(writer, "f32", 0.5f);
    ferrum_gguf_writer_bool(writer, "bool", true);
    ferrum_gguf_writer_string(writer, "string", "text");
    ferrum_gguf_writer_u64(writer, "u64", 1ull << 40);
    ferrum_gguf_writer_raw(writer, "i64", 11, u64_max, 8);
    ferrum_gguf_writer_raw(writer, "f64", 12, (uint8_t[]){0, 0, 0, 0, 0, 0, 0xf8, 0x3f}, 8);
    ferrum_gguf_writer_raw(writer, "huge", 10, u64_max, 8);
    open_file_t file = open_writer(writer);
    const ferrum_gguf_t *g = file.gguf;

    static const struct {
        const char *key;
        int64_t value;
    } integers[] = {{"u8", 200},         {"i8", -2},          {"u16", 0x1234},    {"i16", -1},
                    {"u32", 4000000000}, {"i32", -7},         {"u64", 1ll << 40}, {"i64", -1},
                    {"bool", 1},         {"huge", INT64_MAX}, {"string", 0},      {"f32", 0}};
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++)
        ck_assert_int_eq(ferrum_gguf_item_i64(ferrum_gguf_find_key(g, integers[i].key), 0),
                         integers[i].value);

    uint32_t u32;
    uint64_t u64;
    double f64;
    bool flag;
    ferrum_string_view_t text;
    EXPECT_OK(ferrum_gguf_get_u32(g, "u8", &u32, &err));
    ck_assert_uint_eq(u32, 200);
    EXPECT_OK(ferrum_gguf_get_u32(g, "u32", &u32, &err));
    ck_assert_uint_eq(u32, 4000000000u);
    EXPECT_OK(ferrum_gguf_get_u64(g, "huge", &u64, &err));
    ck_assert(u64 == UINT64_MAX);
    EXPECT_OK(ferrum_gguf_get_f64(g, "f32", &f64, &err));
    ck_assert(f64 == 0.5);
    EXPECT_OK(ferrum_gguf_get_f64(g, "f64", &f64, &err));
    ck_assert(f64 == 1.5);
    EXPECT_OK(ferrum_gguf_get_f64(g, "i8", &f64, &err));
    ck_assert(f64 == -2.0);
    EXPECT_OK(ferrum_gguf_get_f64(g, "huge", &f64, &err));
    ck_assert(f64 == 18446744073709551616.0);
    EXPECT_OK(ferrum_gguf_get_bool(g, "bool", &flag, &err));
    ck_assert(flag);
    EXPECT_OK(ferrum_gguf_get_string(g, "string", &text, &err));
    ck_assert(ferrum_view_equal(text, ferrum_view("text")));
    close_file(&file);
}
END_TEST

START_TEST(getters_name_what_is_wrong)
{
    ferrum_gguf_writer_t *writer = ferrum_gguf_writer_new();
    ferrum_gguf_writer_i32(writer, "negative", -1);
    ferrum_gguf_writer_u64(writer, "large", 1ull << 32);
    ferrum_gguf_writer_string(writer, "text", "x");
    ferrum_gguf_writer_i32s(writer, "list", (int32_t[]){1, 2}, 2);
    open_file_t file = open_writer(writer);
    const ferrum_gguf_t *g = file.gguf;
    uint32_t u32;
    uint64_t u64;
    double f64;
    bool flag;
    ferrum_string_view_t view;
    const ferrum_gguf_key_t *array;
    EXPECT_FAILS(ferrum_gguf_get_u32(g, "none", &u32, &err), FERRUM_NOT_FOUND, "none is missing");
    EXPECT_FAILS(ferrum_gguf_get_u32(g, "negative", &u32, &err), FERRUM_CORRUPT, "negative (-1)");
    EXPECT_FAILS(ferrum_gguf_get_u64(g, "negative", &u64, &err), FERRUM_CORRUPT, "negative");
    EXPECT_FAILS(ferrum_gguf_get_u32(g, "large", &u32, &err), FERRUM_CORRUPT, "4294967296");
    EXPECT_FAILS(ferrum_gguf_get_u32(g, "text", &u32, &err), FERRUM_CORRUPT, "text at offset");
    EXPECT_FAILS(ferrum_gguf_get_u32(g, "list", &u32, &err), FERRUM_CORRUPT, "an array of i32");
    EXPECT_FAILS(ferrum_gguf_get_f64(g, "text", &f64, &err), FERRUM_CORRUPT, "is string, not");
    EXPECT_FAILS(ferrum_gguf_get_bool(g, "large", &flag, &err), FERRUM_CORRUPT, "not a bool");
    EXPECT_FAILS(ferrum_gguf_get_string(g, "list", &view, &err), FERRUM_CORRUPT, "not a string");
    EXPECT_FAILS(ferrum_gguf_get_array(g, "list", FERRUM_GGUF_STRING, &array, &err), FERRUM_CORRUPT,
                 "not an array of string");
    EXPECT_FAILS(ferrum_gguf_get_array(g, "large", FERRUM_GGUF_U64, &array, &err), FERRUM_CORRUPT,
                 "not an array of u64");
    close_file(&file);
}
END_TEST

START_TEST(arrays_are_not_copied)
{
    static const char *const words[] = {"", "one", "two words"};
    ferrum_gguf_writer_t *writer = ferrum_gguf_writer_new();
    ferrum_gguf_writer_strings(writer, "words", words, 3);
    ferrum_gguf_writer_i32s(writer, "numbers", (int32_t[]){5, -6, 7}, 3);
    ferrum_gguf_writer_strings(writer, "nothing", words, 0);
    open_file_t file = open_writer(writer);
    const ferrum_gguf_key_t *array;
    ferrum_string_view_t views[3];
    EXPECT_OK(ferrum_gguf_get_array(file.gguf, "words", FERRUM_GGUF_STRING, &array, &err));
    ck_assert_uint_eq(array->count, 3);
    ferrum_gguf_array_strings(array, views);
    for (int i = 0; i < 3; i++) {
        ck_assert(ferrum_view_equal(views[i], ferrum_view(words[i])));
        ck_assert((const uint8_t *)views[i].data > file.data);
    }
    EXPECT_OK(ferrum_gguf_get_array(file.gguf, "numbers", FERRUM_GGUF_I32, &array, &err));
    ck_assert_int_eq(ferrum_gguf_item_i64(array, 1), -6);
    ck_assert(ferrum_gguf_item_f64(array, 2) == 7.0);
    ck_assert(array->items == file.data + array->offset);
    EXPECT_OK(ferrum_gguf_get_array(file.gguf, "nothing", FERRUM_GGUF_STRING, &array, &err));
    ck_assert_uint_eq(array->count, 0);
    close_file(&file);
}
END_TEST

START_TEST(finds_tensors_of_every_format)
{
    static const uint32_t formats[] = {0, 1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 20, 23, 30, 39};
    enum {
        FORMATS = sizeof formats / sizeof formats[0]
    };
    uint8_t *block = calloc(1, 4096);
    ck_assert_ptr_nonnull(block);
    ferrum_gguf_writer_t *writer = ferrum_gguf_writer_new();
    for (size_t i = 0; i < FORMATS; i++) {
        char name[32];
        const ferrum_format_traits_t *traits = ferrum_format_traits(formats[i]);
        (void)snprintf(name, sizeof name, "t%zu", i);
        block[0] = (uint8_t)i;
        ferrum_gguf_writer_tensor(writer, name, formats[i], 3,
                                  (uint64_t[]){traits->block_values * 2, 3, 1}, block,
                                  traits->block_bytes * 6);
    }
    open_file_t file = open_writer(writer);
    for (size_t i = 0; i < FORMATS; i++) {
        char name[32];
        const ferrum_gguf_tensor_t *tensor;
        (void)snprintf(name, sizeof name, "t%zu", i);
        EXPECT_OK(ferrum_gguf_require_tensor(file.gguf, name, &tensor, &err));
        ck_assert_uint_eq(tensor->format, formats[i]);
        ck_assert_uint_eq(tensor->dims_count, 3);
        ck_assert_uint_eq(tensor->dims[1], 3);
        ck_assert_uint_eq(tensor->dims[3], 1);
        ck_assert_uint_eq(tensor->elements, tensor->traits->block_values * 6u);
        ck_assert_uint_eq(tensor->bytes, tensor->traits->block_bytes * 6u);
        ck_assert_uint_eq((uintptr_t)tensor->data % 8, 0);
        ck_assert_uint_eq(((const uint8_t *)tensor->data)[0], i);
        ck_assert(tensor == ferrum_gguf_tensor_at(file.gguf, (uint32_t)i));
    }
    const ferrum_gguf_tensor_t *tensor;
    EXPECT_FAILS(ferrum_gguf_require_tensor(file.gguf, "t99", &tensor, &err), FERRUM_NOT_FOUND,
                 "tensor t99 is missing");
    close_file(&file);
    free(block);
}
END_TEST

START_TEST(unknown_formats_are_listed_but_not_used)
{
    ferrum_gguf_writer_t *writer = ferrum_gguf_writer_new();
    float one = 1.0f;
    ferrum_gguf_writer_tensor(writer, "strange", 34, 1, (uint64_t[]){256}, "....", 4);
    ferrum_gguf_writer_tensor(writer, "plain", 0, 1, (uint64_t[]){1}, &one, 4);
    open_file_t file = open_writer(writer);
    const ferrum_gguf_tensor_t *tensor = ferrum_gguf_find_tensor(file.gguf, "strange");
    ck_assert_ptr_nonnull(tensor);
    ck_assert_uint_eq(tensor->format, 34);
    ck_assert_ptr_null(tensor->traits);
    ck_assert_ptr_null(tensor->data);
    EXPECT_FAILS(ferrum_gguf_require_tensor(file.gguf, "strange", &tensor, &err),
                 FERRUM_UNSUPPORTED, "type 34");
    EXPECT_OK(ferrum_gguf_require_tensor(file.gguf, "plain", &tensor, &err));
    close_file(&file);
}
END_TEST

START_TEST(alignment_places_the_data)
{
    static const uint32_t alignments[] = {8, 16, 64, 4096};
    for (size_t i = 0; i < sizeof alignments / sizeof alignments[0]; i++) {
        ferrum_gguf_writer_t *writer = ferrum_gguf_writer_new();
        ferrum_gguf_writer_set_alignment(writer, alignments[i]);
        float values[3] = {1.0f, 2.0f, 3.0f};
        ferrum_gguf_writer_tensor(writer, "a", 0, 1, (uint64_t[]){3}, values, sizeof values);
        ferrum_gguf_writer_tensor(writer, "b", 0, 1, (uint64_t[]){2}, values + 1, 8);
        open_file_t file = open_writer(writer);
        const ferrum_gguf_tensor_t *tensor = ferrum_gguf_find_tensor(file.gguf, "b");
        ck_assert_uint_eq(ferrum_gguf_alignment(file.gguf), alignments[i]);
        ck_assert_uint_eq(tensor->offset % alignments[i], 0);
        ck_assert(((const float *)tensor->data)[1] == 3.0f);
        close_file(&file);
    }
}
END_TEST

START_TEST(many_tensors_open_at_once)
{
    enum {
        TENSORS = 50000
    };
    ferrum_gguf_writer_t *writer = ferrum_gguf_writer_new();
    char name[64];
    for (int i = 0; i < TENSORS; i++) {
        (void)snprintf(name, sizeof name, "blk.%d.ffn_gate_exps.weight", i);
        ferrum_gguf_writer_tensor(writer, name, 0, 1, (uint64_t[]){1}, &i, 4);
    }
    open_file_t file = open_writer(writer);
    for (int i = 0; i < TENSORS; i++) {
        (void)snprintf(name, sizeof name, "blk.%d.ffn_gate_exps.weight", i);
        const ferrum_gguf_tensor_t *tensor = ferrum_gguf_find_tensor(file.gguf, name);
        ck_assert_ptr_nonnull(tensor);
        ck_assert_int_eq(*(const int *)tensor->data, i);
    }
    close_file(&file);
}
END_TEST

START_TEST(maps_files)
{
    ferrum_test_path_t directory, path;
    ferrum_gguf_t *gguf;
    ferrum_test_make_directory(directory);
    ferrum_test_join(directory, "m.gguf", path);
    ferrum_gguf_writer_t *writer = ferrum_gguf_writer_new();
    ferrum_gguf_writer_string(writer, "general.architecture", "qwen3moe");
    ferrum_gguf_writer_save(writer, path);
    ferrum_gguf_writer_free(writer);
    EXPECT_OK(ferrum_gguf_open(path, &gguf, &err));
    ck_assert_str_eq(ferrum_gguf_path(gguf), path);
    ck_assert_uint_gt(ferrum_gguf_bytes(gguf), 24);
    ferrum_gguf_close(gguf);
    ferrum_gguf_close(NULL);
    ferrum_test_write_file(path, "", 0);
    EXPECT_FAILS(ferrum_gguf_open(path, &gguf, &err), FERRUM_CORRUPT, "not a GGUF file");
    EXPECT_FAILS(ferrum_gguf_open(directory, &gguf, &err), FERRUM_IO, "not a regular file");
    ferrum_test_remove_directory(directory);
    EXPECT_FAILS(ferrum_gguf_open(path, &gguf, &err), FERRUM_NOT_FOUND, path);
    EXPECT_FAILS(ferrum_gguf_open("/dev/null", &gguf, &err), FERRUM_IO, "not a regular file");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gguf");
    TCase *tests = tcase_create("reading");
    tcase_add_test(tests, an_empty_file_is_fine);
    tcase_add_test(tests, reads_every_scalar_type);
    tcase_add_test(tests, getters_name_what_is_wrong);
    tcase_add_test(tests, arrays_are_not_copied);
    tcase_add_test(tests, finds_tensors_of_every_format);
    tcase_add_test(tests, unknown_formats_are_listed_but_not_used);
    tcase_add_test(tests, alignment_places_the_data);
    tcase_add_test(tests, many_tensors_open_at_once);
    tcase_add_test(tests, maps_files);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
