/* SPDX-License-Identifier: MIT */
/* Layers loaded by several threads: each once, one account, one report at a time; pages that were
 * read are given back. */
#include <check.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/formats/mapped_file.h"
#include "host/model/load_crew.h"
#include "tests/support/expect.h"
#include "tests/support/files.h"

#include <ferrum/util.h>

enum {
    ITEMS = 40,
    ITEM_BYTES = 10,
    TOTAL = ITEMS * ITEM_BYTES
};

/* What the crew does, and what it reports. */
typedef struct seen {
    atomic_int loads[ITEMS];
    atomic_int inside; /* reports at this moment */
    uint64_t done;
    uint32_t reports;
    uint32_t cancel_at; /* report that cancels; 0: none */
    int failing;        /* items from here on fail; negative: none */
} seen_t;

static int report(void *arg, uint64_t done, uint64_t total)
{
    seen_t *seen = arg;
    ck_assert_int_eq(atomic_fetch_add(&seen->inside, 1), 0);
    ck_assert_uint_gt(done, seen->done);
    ck_assert_uint_eq(total, TOTAL);
    seen->done = done;
    seen->reports++;
    atomic_fetch_sub(&seen->inside, 1);
    return seen->reports == seen->cancel_at;
}

static ferrum_status_t load_item(void *arg, ferrum_weights_t *weights, uint32_t index,
                                 ferrum_error_t *err)
{
    seen_t *seen = arg;
    atomic_fetch_add(&seen->loads[index], 1);
    if (seen->failing >= 0 && index >= (uint32_t)seen->failing)
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_OTHER, "item %u is bad", index);
    weights->held_bytes += index;
    return ferrum_weights_advance(weights, ITEM_BYTES, err);
}

static ferrum_weights_t account(seen_t *seen)
{
    return (ferrum_weights_t){
        .total_bytes = TOTAL, .held_bytes = 5, .progress = report, .progress_arg = seen};
}

static const uint32_t thread_counts[] = {1, 2, 7, ITEMS + 3};

START_TEST(every_item_once)
{
    seen_t seen = {.failing = -1};
    ferrum_weights_t weights = account(&seen);
    EXPECT_OK(ferrum_load_crew_run(&weights, thread_counts[_i], ITEMS, load_item, &seen, &err));
    for (int i = 0; i < ITEMS; i++)
        ck_assert_int_eq(atomic_load(&seen.loads[i]), 1);
    ck_assert_uint_eq(seen.reports, ITEMS);
    ck_assert_uint_eq(seen.done, TOTAL);
    ck_assert_uint_eq(weights.loaded_bytes, TOTAL);
    ck_assert_uint_eq(weights.held_bytes, 5 + ITEMS * (ITEMS - 1) / 2);
    EXPECT_OK(ferrum_load_crew_run(&weights, 3, 0, load_item, &seen, &err));
}
END_TEST

START_TEST(first_failure_is_told)
{
    seen_t seen = {.failing = 9};
    ferrum_weights_t weights = account(&seen);
    EXPECT_FAILS(ferrum_load_crew_run(&weights, thread_counts[_i], ITEMS, load_item, &seen, &err),
                 FERRUM_CORRUPT, "item 9 is bad");
    int begun = 0;
    for (int i = 0; i < ITEMS; i++)
        begun += atomic_load(&seen.loads[i]);
    ck_assert_int_le(begun, 9 + (int)thread_counts[_i]); /* nothing is begun after it */
}
END_TEST

START_TEST(cancelling_stops)
{
    seen_t seen = {.failing = -1, .cancel_at = 3};
    ferrum_weights_t weights = account(&seen);
    EXPECT_FAILS(ferrum_load_crew_run(&weights, thread_counts[_i], ITEMS, load_item, &seen, &err),
                 FERRUM_CANCELLED, "cancelled");
}
END_TEST

/* Kilobytes of a mapping that are in this process's memory. */
static long resident_kb(const void *address)
{
    char line[512], wanted[32];
    long kb = -1;
    bool inside = false;
    FILE *maps = fopen("/proc/self/smaps", "r");
    if (!maps)
        return -1;
    (void)snprintf(wanted, sizeof wanted, "%lx-", (unsigned long)(uintptr_t)address);
    while (kb < 0 && fgets(line, sizeof line, maps)) {
        inside = inside || strncmp(line, wanted, strlen(wanted)) == 0;
        if (inside)
            (void)sscanf(line, "Rss: %ld", &kb);
    }
    (void)fclose(maps);
    return kb;
}

START_TEST(pages_are_given_back)
{
    enum {
        BYTES = 4 << 20
    };
    ferrum_test_path_t folder, path;
    ferrum_mapped_file_t file;
    unsigned char *data = malloc(BYTES);
    for (int i = 0; i < BYTES; i++)
        data[i] = (unsigned char)(i * 7 + i / 4096);
    ferrum_test_make_directory(folder);
    ferrum_test_join(folder, "weights", path);
    ferrum_test_write_file(path, data, BYTES);
    EXPECT_OK(ferrum_mapped_file_open(path, FERRUM_MAP_WILL_NEED, &file, &err));
    ck_assert_mem_eq(file.data, data, BYTES);
    const long before = resident_kb(file.data);
    ferrum_mapped_file_release_pages(&file);
    if (before > 0) /* the system tells */
        ck_assert_int_lt(resident_kb(file.data), before / 8);
    ck_assert_mem_eq(file.data, data, BYTES);
    ferrum_mapped_file_close(&file);
    ferrum_mapped_file_release_pages(&file);
    ferrum_test_remove_directory(folder);
    free(data);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("load_crew");
    TCase *tcase = tcase_create("all");
    const int cases = sizeof thread_counts / sizeof thread_counts[0];
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, every_item_once, 0, cases);
    tcase_add_loop_test(tcase, first_failure_is_told, 0, cases);
    tcase_add_loop_test(tcase, cancelling_stops, 0, cases);
    tcase_add_test(tcase, pages_are_given_back);
    suite_add_tcase(suite, tcase);
    return expect_run(suite);
}
