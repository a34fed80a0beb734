/* SPDX-License-Identifier: MIT */
/* Safetensors: single files, shards with an index, and everything that can be wrong with them. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "host/formats/safetensors.h"
#include "tests/support/expect.h"
#include "tests/support/files.h"
#include "tests/support/safetensors_writer.h"

#define DIMS(...)                                                                                  \
    (const uint64_t[])                                                                             \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

static ferrum_test_path_t directory;

static void make_directory(void)
{
    ferrum_test_make_directory(directory);
}

static void remove_directory(void)
{
    ferrum_test_remove_directory(directory);
}

static const char *in_directory(const char *name)
{
    static ferrum_test_path_t path;
    ferrum_test_join(directory, name, path);
    return path;
}

static ferrum_safetensors_writer_t *two_tensors(void)
{
    static const float values[6] = {1, 2, 3, 4, 5, 6};
    ferrum_safetensors_writer_t *writer = ferrum_safetensors_writer_new();
    ferrum_safetensors_writer_add(writer, "a.weight", "F32", 2, DIMS(2, 3), values, 24);
    ferrum_safetensors_writer_add(writer, "b.weight", "I32", 1, DIMS(2), "12345678", 8);
    return writer;
}

static void save(ferrum_safetensors_writer_t *writer, const char *name)
{
    ferrum_safetensors_writer_save(writer, in_directory(name));
    ferrum_safetensors_writer_free(writer);
}

START_TEST(reads_a_file)
{
    ferrum_safetensors_t *st;
    const ferrum_safetensors_tensor_t *tensor;
    save(two_tensors(), "model.safetensors");
    const char *const paths[] = {directory, in_directory("model.safetensors")};
    for (int i = 0; i < 2; i++) {
        EXPECT_OK(ferrum_safetensors_open(paths[i], &st, &err));
        ck_assert_uint_eq(ferrum_safetensors_tensor_count(st), 2);
        ck_assert_uint_eq(ferrum_safetensors_shard_count(st), 1);
        ck_assert_str_eq(ferrum_safetensors_shard_path(st, 0), in_directory("model.safetensors"));
        ck_assert_ptr_null(ferrum_safetensors_shard_path(st, 1));
        EXPECT_OK(ferrum_safetensors_require(st, "a.weight", &tensor, &err));
        ck_assert_int_eq(tensor->dtype, FERRUM_SAFETENSORS_F32);
        ck_assert_uint_eq(tensor->dims_count, 2);
        ck_assert_uint_eq(tensor->dims[0], 2);
        ck_assert_uint_eq(tensor->dims[1], 3);
        ck_assert_uint_eq(tensor->dims[2], 1);
        ck_assert_uint_eq(tensor->bytes, 24);
        ck_assert(((const float *)tensor->data)[5] == 6.0f);
        ck_assert_str_eq(tensor->name.data, "a.weight");
        EXPECT_FAILS(ferrum_safetensors_require(st, "c.weight", &tensor, &err), FERRUM_NOT_FOUND,
                     "tensor c.weight is missing");
        ck_assert_ptr_null(ferrum_safetensors_tensor_at(st, 2));
        ck_assert_uint_gt(ferrum_safetensors_bytes(st), 32);
        ferrum_safetensors_close(st);
    }
    ferrum_safetensors_close(NULL);
}
END_TEST

START_TEST(knows_every_dtype)
{
    static const struct {
        const char *name;
        uint32_t bytes;
        int abi;
    } dtypes[] = {{"F64", 8, -1},
                  {"F32", 4, FERRUM_DTYPE_F32},
                  {"F16", 2, FERRUM_DTYPE_F16},
                  {"BF16", 2, FERRUM_DTYPE_BF16},
                  {"F8_E4M3", 1, -1},
                  {"F8_E5M2", 1, -1},
                  {"I64", 8, -1},
                  {"I32", 4, FERRUM_DTYPE_I32},
                  {"I16", 2, -1},
                  {"I8", 1, FERRUM_DTYPE_I8},
                  {"U64", 8, -1},
                  {"U32", 4, FERRUM_DTYPE_U32},
                  {"U16", 2, -1},
                  {"U8", 1, FERRUM_DTYPE_U8},
                  {"BOOL", 1, -1}};
    static const uint8_t data[16];
    ferrum_safetensors_writer_t *writer = ferrum_safetensors_writer_new();
    ferrum_safetensors_t *st;
    for (size_t i = 0; i < FERRUM_SAFETENSORS_DTYPES; i++)
        ferrum_safetensors_writer_add(writer, dtypes[i].name, dtypes[i].name, 1, DIMS(2), data,
                                      2 * dtypes[i].bytes);
    /* A scalar, and an empty tensor. */
    ferrum_safetensors_writer_add(writer, "scalar", "F32", 0, NULL, data, 4);
    ferrum_safetensors_writer_add(writer, "empty", "F32", 2, DIMS(4, 0), data, 0);
    save(writer, "model.safetensors");
    EXPECT_OK(ferrum_safetensors_open(directory, &st, &err));
    for (size_t i = 0; i < FERRUM_SAFETENSORS_DTYPES; i++) {
        ferrum_dtype_t abi = 99;
        const ferrum_safetensors_tensor_t *tensor = ferrum_safetensors_find(st, dtypes[i].name);
        ck_assert_ptr_nonnull(tensor);
        ck_assert_uint_eq(ferrum_safetensors_dtype_bytes(tensor->dtype), dtypes[i].bytes);
        ck_assert_str_eq(ferrum_safetensors_dtype_name(tensor->dtype), dtypes[i].name);
        ck_assert(ferrum_safetensors_dtype_to_abi(tensor->dtype, &abi) == (dtypes[i].abi >= 0));
        ck_assert_int_eq((int)abi, dtypes[i].abi >= 0 ? dtypes[i].abi : 99);
    }
    ck_assert_uint_eq(ferrum_safetensors_find(st, "scalar")->elements, 1);
    ck_assert_uint_eq(ferrum_safetensors_find(st, "empty")->bytes, 0);
    ferrum_safetensors_close(st);
}
END_TEST

START_TEST(reads_shards)
{
    ferrum_safetensors_t *st;
    ferrum_safetensors_writer_t *other = ferrum_safetensors_writer_new();
    ferrum_safetensors_writer_add(other, "c.weight", "U8", 1, DIMS(3), "xyz", 3);
    save(two_tensors(), "model-1.safetensors");
    save(other, "model-2.safetensors");
    ferrum_safetensors_index_t *index = ferrum_safetensors_index_new();
    ferrum_safetensors_index_add(index, "a.weight", "model-1.safetensors");
    ferrum_safetensors_index_add(index, "c.weight", "model-2.safetensors");
    ferrum_safetensors_index_add(index, "b.weight", "model-1.safetensors");
    ferrum_safetensors_index_save(index, in_directory("model.safetensors.index.json"));
    ferrum_safetensors_index_free(index);
    const char *const paths[] = {directory, in_directory("model.safetensors.index.json")};
    for (int i = 0; i < 2; i++) {
        EXPECT_OK(ferrum_safetensors_open(paths[i], &st, &err));
        ck_assert_uint_eq(ferrum_safetensors_shard_count(st), 2);
        ck_assert_uint_eq(ferrum_safetensors_tensor_count(st), 3);
        const ferrum_safetensors_tensor_t *tensor = ferrum_safetensors_find(st, "c.weight");
        ck_assert_ptr_nonnull(strstr(ferrum_safetensors_shard_path(st, tensor->shard), "model-2"));
        ck_assert_int_eq(memcmp(tensor->data, "xyz", 3), 0);
        ferrum_safetensors_close(st);
    }
}
END_TEST

/* One index entry beside a good shard; it must be refused. */
static void check_index(const char *tensor, const char *file, ferrum_status_t status,
                        const char *text)
{
    ferrum_safetensors_t *st;
    ferrum_safetensors_index_t *index = ferrum_safetensors_index_new();
    ferrum_safetensors_index_add(index, "a.weight", "one.safetensors");
    ferrum_safetensors_index_add(index, tensor, file);
    ferrum_safetensors_index_save(index, in_directory("model.safetensors.index.json"));
    ferrum_safetensors_index_free(index);
    EXPECT_FAILS(ferrum_safetensors_open(directory, &st, &err), status, text);
}

START_TEST(refuses_bad_indexes)
{
    save(two_tensors(), "one.safetensors");
    save(two_tensors(), "twin.safetensors");
    check_index("b.weight", "../one.safetensors", FERRUM_PERMISSION, "../one.safetensors");
    check_index("b.weight", "/etc/passwd", FERRUM_PERMISSION, "/etc/passwd");
    check_index("b.weight", "sub/one.safetensors", FERRUM_PERMISSION, "own directory");
    check_index("b.weight", "..", FERRUM_PERMISSION, "..");
    check_index("b.weight", "", FERRUM_PERMISSION, "own directory");
    check_index("b.weight", "missing.safetensors", FERRUM_NOT_FOUND, "missing.safetensors");
    check_index("z.weight", "one.safetensors", FERRUM_NOT_FOUND, "tensor z.weight");
    check_index("b.weight", "twin.safetensors", FERRUM_CORRUPT, "is both in");
    /* Both shards exist, but the tensor is in the other one. */
    ferrum_safetensors_writer_t *other = ferrum_safetensors_writer_new();
    ferrum_safetensors_writer_add(other, "c.weight", "U8", 1, DIMS(3), "xyz", 3);
    save(other, "other.safetensors");
    ferrum_safetensors_t *swapped;
    ferrum_safetensors_index_t *index = ferrum_safetensors_index_new();
    ferrum_safetensors_index_add(index, "a.weight", "one.safetensors");
    ferrum_safetensors_index_add(index, "b.weight", "other.safetensors");
    ferrum_safetensors_index_save(index, in_directory("model.safetensors.index.json"));
    ferrum_safetensors_index_free(index);
    EXPECT_FAILS(ferrum_safetensors_open(directory, &swapped, &err), FERRUM_NOT_FOUND,
                 "tensor b.weight is not in other.safetensors");

    static const char *const texts[] = {"{",
                                        "[]",
                                        "{}",
                                        "{\"weight_map\":[]}",
                                        "{\"weight_map\":{\"a.weight\":7}}",
                                        "{\"weight_map\":{\"a\":\"x\",\"a\":\"x\"}}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        ferrum_safetensors_t *st;
        ferrum_test_write_file(in_directory("model.safetensors.index.json"), texts[i],
                               strlen(texts[i]));
        EXPECT_FAILS(ferrum_safetensors_open(directory, &st, &err), FERRUM_CORRUPT, "index.json");
    }
}
END_TEST

START_TEST(refuses_what_is_not_there)
{
    ferrum_safetensors_t *st;
    EXPECT_FAILS(ferrum_safetensors_open(directory, &st, &err), FERRUM_NOT_FOUND,
                 "neither model.safetensors nor");
    EXPECT_FAILS(ferrum_safetensors_open(in_directory("no.safetensors"), &st, &err),
                 FERRUM_NOT_FOUND, "no.safetensors");
    EXPECT_FAILS(ferrum_safetensors_open("/dev/null", &st, &err), FERRUM_IO, "regular file");
    ferrum_test_write_file(in_directory("model.safetensors"), "", 0);
    EXPECT_FAILS(ferrum_safetensors_open(directory, &st, &err), FERRUM_CORRUPT, "0 bytes");
}
END_TEST

START_TEST(refuses_bad_headers)
{
    static const struct {
        const char *header;
        ferrum_status_t status;
        const char *text;
    } cases[] = {
        {"", FERRUM_CORRUPT, "bad JSON"},
        {"[]", FERRUM_CORRUPT, "not an object"},
        {"{\"t\":7}", FERRUM_CORRUPT, "tensor t"},
        {"{\"t\":{\"shape\":[1],\"data_offsets\":[0,4]}}", FERRUM_CORRUPT, "no dtype"},
        {"{\"t\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", FERRUM_CORRUPT, "no dtype"},
        {"{\"t\":{\"dtype\":\"F4\",\"shape\":[1],\"data_offsets\":[0,4]}}", FERRUM_UNSUPPORTED,
         "dtype F4"},
        {"{\"t\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", FERRUM_CORRUPT, "no shape"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", FERRUM_CORRUPT,
         "non-negative"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", FERRUM_CORRUPT,
         "non-negative"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}",
         FERRUM_UNSUPPORTED, "8 dimensions"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}",
         FERRUM_CORRUPT, "overflows"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[9223372036854775807],\"data_offsets\":[0,4]}}",
         FERRUM_CORRUPT, "overflows"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1]}}", FERRUM_CORRUPT, "data_offsets"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", FERRUM_CORRUPT,
         "data_offsets"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", FERRUM_CORRUPT,
         "data_offsets"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,4]}}", FERRUM_CORRUPT,
         "not inside"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,-4]}}", FERRUM_CORRUPT,
         "not inside"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[16,20]}}", FERRUM_CORRUPT,
         "not inside"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", FERRUM_CORRUPT,
         "needs 8 bytes"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,99999999999999999999]}}",
         FERRUM_CORRUPT, "bad JSON"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"u\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         FERRUM_CORRUPT, "overlap"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         FERRUM_CORRUPT, "duplicate"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t *data;
        size_t bytes;
        ferrum_safetensors_t *st = NULL;
        ferrum_safetensors_assemble(cases[i].header, "0123456789abcdef", 16, &data, &bytes);
        EXPECT_FAILS(ferrum_safetensors_open_memory(data, bytes, "bad", &st, &err), cases[i].status,
                     cases[i].text);
        ck_assert_ptr_null(st);
        free(data);
    }
}
END_TEST

/* Gaps, an unordered header and metadata are no faults. */
START_TEST(accepts_harmless_oddities)
{
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[12,16]},"
        "\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4],\"note\":1},"
        "\"none\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[14,14]}}   ";
    uint8_t *data;
    size_t bytes;
    ferrum_safetensors_t *st;
    ferrum_safetensors_assemble(header, "0123456789abcdef", 16, &data, &bytes);
    EXPECT_OK(ferrum_safetensors_open_memory(data, bytes, "odd", &st, &err));
    ck_assert_uint_eq(ferrum_safetensors_tensor_count(st), 3);
    ck_assert_int_eq(memcmp(ferrum_safetensors_find(st, "b")->data, "cdef", 4), 0);
    ferrum_safetensors_close(st);
    free(data);
}
END_TEST

static volatile uint64_t sink;

/* Damaged in any way, a file is refused or consistent. */
static void try_open(const uint8_t *data, size_t bytes, bool must_fail)
{
    ferrum_safetensors_t *st = NULL;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint8_t *copy = malloc(bytes ? bytes : 1);
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, data, bytes);
    ferrum_status_t status = ferrum_safetensors_open_memory(copy, bytes, "bad", &st, &err);
    ck_assert(!must_fail || status != FERRUM_OK);
    for (uint32_t i = 0; status == FERRUM_OK && i < ferrum_safetensors_tensor_count(st); i++) {
        const ferrum_safetensors_tensor_t *tensor = ferrum_safetensors_tensor_at(st, i);
        for (uint64_t b = 0; b < tensor->bytes; b++)
            sink += ((const uint8_t *)tensor->data)[b];
    }
    ferrum_safetensors_close(st);
    free(copy);
}

START_TEST(survives_damage)
{
    ferrum_safetensors_writer_t *writer = two_tensors();
    uint8_t *data;
    size_t bytes;
    ferrum_safetensors_writer_bytes(writer, &data, &bytes);
    ferrum_safetensors_writer_free(writer);
    for (size_t cut = 0; cut < bytes; cut++)
        try_open(data, cut, true);
    for (size_t at = 0; at < bytes; at++) {
        uint8_t original = data[at];
        for (unsigned value = 0; value < 256; value += at < 8 ? 1 : 5) {
            data[at] = (uint8_t)value;
            try_open(data, bytes, false);
        }
        data[at] = original;
    }
    free(data);
}
END_TEST

/* The size of a GPTQ checkpoint of a 128-expert, 48-layer model. */
START_TEST(opens_74000_tensors)
{
    enum {
        LAYERS = 48,
        EXPERTS = 128,
        PARTS = 12
    };
    static const char *const parts[PARTS] = {
        "gate_proj.qweight", "gate_proj.qzeros", "gate_proj.scales", "gate_proj.g_idx",
        "up_proj.qweight",   "up_proj.qzeros",   "up_proj.scales",   "up_proj.g_idx",
        "down_proj.qweight", "down_proj.qzeros", "down_proj.scales", "down_proj.g_idx"};
    char name[128];
    ferrum_safetensors_t *st;
    ferrum_safetensors_index_t *index = ferrum_safetensors_index_new();
    for (int half = 0; half < 2; half++) {
        const char *file = half ? "m-2.safetensors" : "m-1.safetensors";
        ferrum_safetensors_writer_t *writer = ferrum_safetensors_writer_new();
        for (int i = half * LAYERS / 2; i < (half + 1) * LAYERS / 2; i++)
            for (int e = 0; e < EXPERTS; e++)
                for (int p = 0; p < PARTS; p++) {
                    int number = (i * EXPERTS + e) * PARTS + p;
                    (void)snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.%s", i, e,
                                   parts[p]);
                    ferrum_safetensors_writer_add(writer, name, "I32", 1, DIMS(1), &number, 4);
                    ferrum_safetensors_index_add(index, name, file);
                }
        save(writer, file);
    }
    ferrum_safetensors_index_save(index, in_directory("model.safetensors.index.json"));
    ferrum_safetensors_index_free(index);
    EXPECT_OK(ferrum_safetensors_open(directory, &st, &err));
    ck_assert_uint_eq(ferrum_safetensors_tensor_count(st), LAYERS * EXPERTS * PARTS);
    for (int number = 0; number < LAYERS * EXPERTS * PARTS; number++) {
        (void)snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.%s",
                       number / PARTS / EXPERTS, number / PARTS % EXPERTS, parts[number % PARTS]);
        const ferrum_safetensors_tensor_t *tensor = ferrum_safetensors_find(st, name);
        ck_assert_ptr_nonnull(tensor);
        ck_assert_int_eq(*(const int *)tensor->data, number);
    }
    ferrum_safetensors_close(st);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("safetensors");
    TCase *tests = tcase_create("safetensors");
    tcase_add_checked_fixture(tests, make_directory, remove_directory);
    tcase_add_test(tests, reads_a_file);
    tcase_add_test(tests, knows_every_dtype);
    tcase_add_test(tests, reads_shards);
    tcase_add_test(tests, refuses_bad_indexes);
    tcase_add_test(tests, refuses_what_is_not_there);
    tcase_add_test(tests, refuses_bad_headers);
    tcase_add_test(tests, accepts_harmless_oddities);
    tcase_add_test(tests, survives_damage);
    tcase_add_test(tests, opens_74000_tensors);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
