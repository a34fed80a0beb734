/* SPDX-License-Identifier: MIT */
/* Merging with a heap against the plain definition, on random merges and words. */
#include <check.h>
#include <stdlib.h>

#include "host/text/bpe.h"
#include "host/text/byte_alphabet.h"
#include "host/text/random.h"
#include "host/text/utf8.h"
#include "tests/support/expect.h"
#include "tests/text/tiny_vocab.h"

enum {
    SYMBOLS = 6,
    MERGES = 40,
    LONGEST = 60
};

typedef struct merge {
    int32_t left, right, merged;
} merge_t;

static uint32_t below(ferrum_random_t *random, uint32_t limit)
{
    return (uint32_t)(ferrum_random_next(random) % limit);
}

/* Distinct pairs over base symbols and earlier results; ranks are the order. */
static uint32_t make_merges(ferrum_random_t *random, merge_t *merges, ferrum_bpe_t *bpe)
{
    uint32_t count = 0;
    EXPECT_OK(ferrum_bpe_reserve(bpe, MERGES, &err));
    for (uint32_t i = 0; i < MERGES; i++) {
        merge_t m = {(int32_t)below(random, SYMBOLS + count),
                     (int32_t)below(random, SYMBOLS + count), (int32_t)(SYMBOLS + count)};
        if (ferrum_bpe_add(bpe, m.left, m.right, count, m.merged))
            merges[count++] = m;
    }
    return count;
}

/* The definition: while some pair has a rank, merge the leftmost pair of least rank. */
static size_t merge_plainly(const merge_t *merges, uint32_t merge_count, int32_t *ids, size_t count)
{
    for (uint32_t rank = 0; rank < merge_count;) {
        size_t i = 0;
        while (i + 1 < count && (ids[i] != merges[rank].left || ids[i + 1] != merges[rank].right))
            i++;
        if (i + 1 >= count) {
            rank++;
            continue;
        }
        ids[i] = merges[rank].merged;
        for (size_t j = i + 1; j + 1 < count; j++)
            ids[j] = ids[j + 1];
        count--;
        rank = 0;
    }
    return count;
}

START_TEST(equals_the_definition)
{
    ferrum_random_t random;
    ferrum_bpe_scratch_t scratch = {0};
    ferrum_random_seed(&random, 7);
    for (int round = 0; round < 300; round++) {
        merge_t merges[MERGES];
        ferrum_bpe_t bpe = {0};
        uint32_t merge_count = make_merges(&random, merges, &bpe);
        for (int word = 0; word < 30; word++) {
            int32_t got[LONGEST], wanted[LONGEST];
            size_t length = below(&random, LONGEST + 1);
            size_t got_count = 99;
            for (size_t i = 0; i < length; i++)
                got[i] = wanted[i] = (int32_t)below(&random, word % 2 ? 2 : SYMBOLS);
            EXPECT_OK(ferrum_bpe_merge(&bpe, &scratch, got, length, &got_count, &err));
            size_t wanted_count = merge_plainly(merges, merge_count, wanted, length);
            ck_assert_uint_eq(got_count, wanted_count);
            ck_assert(got_count == 0 || memcmp(got, wanted, got_count * sizeof *got) == 0);
        }
        ferrum_bpe_clear(&bpe);
    }
    ferrum_bpe_scratch_clear(&scratch);
}
END_TEST

START_TEST(a_pair_has_one_rank)
{
    ferrum_bpe_t bpe = {0};
    EXPECT_OK(ferrum_bpe_reserve(&bpe, 2, &err));
    ck_assert(ferrum_bpe_add(&bpe, 1, 2, 0, 3));
    ck_assert(!ferrum_bpe_add(&bpe, 1, 2, 1, 4));
    ck_assert(ferrum_bpe_add(&bpe, 2, 1, 1, 4));
    ferrum_bpe_clear(&bpe);
    EXPECT_FAILS(ferrum_bpe_reserve(&bpe, SIZE_MAX / 4, &err), FERRUM_OUT_OF_MEMORY, "merges");
}
END_TEST

START_TEST(the_alphabet_spells_every_byte)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[3];
        char decoded[2];
        size_t count = 0;
        tiny_vocab_spell(byte, text);
        ck_assert(ferrum_byte_alphabet_decode(ferrum_view(text), decoded, &count));
        ck_assert_uint_eq(count, 1);
        ck_assert_uint_eq((uint8_t)decoded[0], byte);
    }
    static const char *const outside[] = {
        " ", "\n", "\xc2\xad", "\xc5\x84", "\xc3", "\xe4\xb8\xad", "\xff", "\xc4g", "a b"};
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        char decoded[8];
        size_t count;
        ck_assert(!ferrum_byte_alphabet_decode(ferrum_view(outside[i]), decoded, &count));
    }
}
END_TEST

/* Every code point is valid, everything of up to two bytes is judged as the ranges say. */
START_TEST(utf8_is_judged_right)
{
    for (uint32_t c = 0; c < 0x110000; c++) {
        char text[4];
        size_t bytes = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        static const uint8_t leads[] = {0, 0, 0xc0, 0xe0, 0xf0};
        for (size_t i = bytes; i-- > 1;)
            text[i] = (char)(0x80 | (c >> (6 * (bytes - 1 - i)) & 0x3f));
        text[0] = (char)(leads[bytes] | c >> (6 * (bytes - 1)));
        size_t wanted = c >= 0xd800 && c < 0xe000 ? 0 : bytes;
        ck_assert_uint_eq(ferrum_utf8_valid_prefix(text, bytes), wanted);
        if (bytes > 1)
            ck_assert_uint_eq(ferrum_utf8_valid_prefix(text, bytes - 1), 0);
    }
    for (unsigned pair = 0; pair < 65536; pair++) {
        char text[2] = {(char)(pair >> 8), (char)pair};
        unsigned a = pair >> 8;
        unsigned b = pair & 0xff;
        size_t wanted = a < 0x80                               ? (b < 0x80 ? 2 : 1)
                        : a >= 0xc2 && a < 0xe0 && b >> 6 == 2 ? 2
                                                               : 0;
        ck_assert_uint_eq(ferrum_utf8_valid_prefix(text, 2), wanted);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bpe");
    TCase *tests = tcase_create("merging and text");
    tcase_add_test(tests, equals_the_definition);
    tcase_add_test(tests, a_pair_has_one_rank);
    tcase_add_test(tests, the_alphabet_spells_every_byte);
    tcase_add_test(tests, utf8_is_judged_right);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
