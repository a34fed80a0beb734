/* SPDX-License-Identifier: MIT */
/*
 * Runs a harness over every file of its corpus, without libFuzzer: first the files as they are,
 * then each cut short and with single bytes changed, in a fixed order. Arguments, if there are any,
 * are the files to run instead.
 */
#include "config.h"

#include "tests/fuzz/fuzz.h"
#include "tests/support/files.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Processor time that the changed copies may take, so that a slow build stays bounded. */
#define BUDGET_SECONDS 2.0

static unsigned long runs;

static double seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void run(const uint8_t *data, size_t size)
{
    (void)LLVMFuzzerTestOneInput(data, size);
    runs++;
}

static void run_changed(uint8_t *data, size_t size, uint64_t *random)
{
    if (size == 0)
        return;
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    size_t at = (size_t)(*random >> 33) % size;
    uint8_t kept = data[at];
    run(data, at);
    data[at] = (uint8_t)(kept ^ 1u << (*random >> 30 & 7));
    run(data, size);
    data[at] = kept;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int run_corpus(const char *directory)
{
    struct dirent **entries;
    int count = scandir(directory, &entries, visible, by_name);
    if (count <= 0) {
        fprintf(stderr, "%s: no corpus\n", directory);
        return 1;
    }
    uint8_t **data = calloc((size_t)count, sizeof *data);
    size_t *sizes = calloc((size_t)count, sizeof *sizes);
    if (!data || !sizes)
        abort();
    for (int i = 0; i < count; i++) {
        ferrum_test_path_t path;
        ferrum_test_join(directory, entries[i]->d_name, path);
        data[i] = ferrum_test_read_file(path, &sizes[i]);
        printf("%s\n", entries[i]->d_name);
        (void)fflush(stdout);
        run(data[i], sizes[i]);
    }
    uint64_t random = 1;
    for (double start = seconds(); seconds() - start < BUDGET_SECONDS;)
        for (int i = 0; i < count; i++)
            run_changed(data[i], sizes[i], &random);
    for (int i = 0; i < count; i++) {
        free(data[i]);
        free(entries[i]);
    }
    free(data);
    free(sizes);
    free(entries);
    return 0;
}

int main(int argc, char **argv)
{
    int failed = 0;
    if (argc < 2) {
        ferrum_test_path_t directory;
        ferrum_test_source_path("tests/fuzz/corpus/" FUZZ_NAME, directory);
        failed = run_corpus(directory);
    }
    for (int i = 1; i < argc; i++) {
        size_t size;
        uint8_t *data = ferrum_test_read_file(argv[i], &size);
        if (!data) {
            fprintf(stderr, "%s does not exist\n", argv[i]);
            return 1;
        }
        run(data, size);
        free(data);
    }
    printf("%lu runs\n", runs);
    return failed;
}
