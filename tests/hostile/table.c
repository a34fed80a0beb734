/* SPDX-License-Identifier: MIT */
#include "config.h"

#include "tests/hostile/hostile.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- what is done to a file ---- */

static void write_bytes(const char *path, size_t offset, const void *bytes, size_t count)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq((int)pwrite(fd, bytes, count, (off_t)offset), (int)count);
    (void)close(fd);
}

static void be_fifo(const char *path)
{
    (void)unlink(path);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
}

static void be_directory(const char *path)
{
    (void)unlink(path);
    ck_assert_int_eq(mkdir(path, 0755), 0);
}

static void be_link(const char *path)
{
    ferrum_test_path_t real;
    (void)snprintf(real, sizeof real, "%.4000s.real", path);
    ck_assert_int_eq(rename(path, real), 0);
    ck_assert_int_eq(symlink(real, path), 0);
}

static void be_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)unlink(path);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%.100s", path);
    ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    (void)close(fd);
}

static void be_absent(const char *path)
{
    ck_assert_int_eq(unlink(path), 0);
}

static void be_empty(const char *path)
{
    ck_assert_int_eq(truncate(path, 0), 0);
}

static void be_enormous(const char *path)
{
    ck_assert_int_eq(truncate(path, (off_t)5 << 30), 0); /* sparse */
}

static void be_text(const char *path)
{
    ferrum_test_write_file(path, "#!/bin/sh\n", 10);
}

static void be_program(const char *path)
{
    copy_file("/proc/self/exe", path);
}

static void be_header_only(const char *path)
{
    ck_assert_int_eq(truncate(path, sizeof(Elf64_Ehdr)), 0);
}

static void be_half(const char *path)
{
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(truncate(path, st.st_size / 2), 0);
}

static void be_foreign(const char *path)
{
    const Elf64_Half machine = EM_SPARC;
    write_bytes(path, offsetof(Elf64_Ehdr, e_machine), &machine, sizeof machine);
}

static void be_narrow(const char *path)
{
    const unsigned char class = ELFCLASS32;
    write_bytes(path, EI_CLASS, &class, 1);
}

static void be_object_file(const char *path)
{
    const Elf64_Half type = ET_REL;
    write_bytes(path, offsetof(Elf64_Ehdr, e_type), &type, sizeof type);
}

static void be_writable(const char *path)
{
    ck_assert_int_eq(chmod(path, 0777), 0);
}

static void be_in_open_directory(const char *path)
{
    (void)path;
    ck_assert_int_eq(chmod(hostile_directory, 0777), 0);
}

static void be_misnamed(const char *path)
{
    ferrum_test_path_t stub;
    plugin_path("metal-stub", stub);
    copy_file(stub, path);
}

/* ---- the table ---- */

#define BY_PATH(plugin, words, status, text)                                                       \
    {                                                                                              \
        MET_BY_PATH, plugin, words, NULL, NULL, FERRUM_##status, text                              \
    }
#define FILE_BY_PATH(spoil, status, text)                                                          \
    {                                                                                              \
        MET_BY_PATH, NULL, "", spoil, NULL, FERRUM_##status, text                                  \
    }
#define FILE_BY_NAME(spoil, status, text)                                                          \
    {                                                                                              \
        MET_BY_NAME, "hostile", "", spoil, NULL, FERRUM_##status, text                             \
    }
#define BY_AUTO(plugin, words, status, text)                                                       \
    {                                                                                              \
        MET_BY_AUTO, plugin, words, NULL, NULL, FERRUM_##status, text                              \
    }
#define BY_CHECK(words, groups, text)                                                              \
    {                                                                                              \
        MET_BY_CHECK, "hostile", words, NULL, groups, FERRUM_OK, text                              \
    }
#define BY_NOTE(plugin, words, text)                                                               \
    {                                                                                              \
        MET_BY_NOTE, plugin, words, NULL, "identity", FERRUM_OK, text                              \
    }

const hostile_t hostile_table[] = {
    /* Struct sizes and NULLs. */
    BY_PATH("hostile", "short-plugin", BAD_PLUGIN, "71 bytes, at least 72"),
    BY_PATH("hostile", "lazy null-name", BAD_PLUGIN, "lacks its name"),
    BY_PATH("hostile", "huge-plugin", OK, "unloaded"),
    BY_PATH("hostile", "null-name", BAD_PLUGIN, "lacks its name"),
    BY_PATH("hostile", "null-version", BAD_PLUGIN, "lacks its name, version"),
    BY_PATH("hostile", "null-license", BAD_PLUGIN, "lacks its name, version, description"),
    BY_PATH("hostile", "empty-name", BAD_PLUGIN, "calls itself ''"),
    BY_PATH("hostile", "path-name", BAD_PLUGIN, "calls itself '../cpu'"),
    BY_PATH("hostile", "long-name", BAD_PLUGIN, "a name consists of"),
    BY_PATH("hostile", "null-probe", BAD_PLUGIN, "plugin.probe"),
    BY_PATH("hostile", "null-interface", BAD_PLUGIN, "plugin.get_interface"),
    BY_PATH("hostile", "no-backend", BAD_PLUGIN, "backend.device_open"),
    BY_PATH("hostile", "null-slot", BAD_PLUGIN, "lacks mandatory entries: backend.context_new"),
    BY_PATH("hostile", "null-slots", BAD_PLUGIN, "backend.device_open, backend.device_retain"),
    BY_PATH("hostile", "short-backend", BAD_PLUGIN, "smaller than ABI 1.0 allows: backend"),
    BY_PATH("hostile", "empty-backend", BAD_PLUGIN, "smaller than ABI 1.0 allows: backend"),
    BY_PATH("hostile", "huge-backend", OK, "unloaded"),
    BY_PATH("hostile", "short-quant", BAD_PLUGIN, "allows: quant_llm"),
    BY_PATH("hostile", "empty-moe", BAD_PLUGIN, "allows: moe_fused"),
    BY_PATH("hostile", "huge-quant huge-moe", OK, "unloaded"),
    /* Versions. */
    BY_PATH("hostile", "needs-newer", VERSION_MISMATCH, "needs 1.900 or later"),
    BY_PATH("hostile", "contradicts", VERSION_MISMATCH, "needs 1.1 or later"),
    BY_PATH("hostile", "mismatch", VERSION_MISMATCH, "this libferrum has 1.0"),
    BY_PATH("hostile", "future", OK, "unloaded"),
    BY_PATH("hostile-symbol", "", BAD_PLUGIN, "does not export ferrum_plugin_query_v1"),
    BY_PATH("hostile-v7", "", VERSION_MISMATCH, "exports ferrum_plugin_query_v7"),
    /* Answers that no contract knows. */
    BY_PATH("hostile", "odd-query", BAD_PLUGIN, "its query failed with status 12345"),
    BY_PATH("hostile", "silent-probe", OK, "gave no reason"),
    BY_PATH("hostile", "odd-probe", OK, "failed with status 4711"),
    BY_PATH("hostile", "unterminated", OK, "unloaded"),
    BY_PATH("hostile", "promise", OK, "unloaded"),
    /* What would be left behind. */
    BY_PATH("hostile", "leak-probe", OK, "kept: 1 blocks with 100 bytes"),
    BY_PATH("hostile-thread", "thread-stays", OK, "1 started since it was opened"),
    BY_PATH("fixture-gomp", "", OK, "pinned: it links libgomp"),
    BY_PATH("hostile-nodelete", "", OK, "pinned: it is linked with -z nodelete"),
    BY_PATH("hostile-imports", "", OK, "pinned: it uses thread-exit handlers"),
    BY_PATH("fixture-unique", "", OK, "pinned: its symbol fixture_unique is unique"),
    /* What the dynamic linker must not, or cannot, do. */
    BY_PATH("hostile-execstack", "", BAD_PLUGIN, "stack"),
    BY_PATH("hostile-undefined", "", BAD_PLUGIN, "hostile_function_that_nobody_has"),
    /* Files. */
    FILE_BY_PATH(be_fifo, BAD_PLUGIN, "is a FIFO"),
    FILE_BY_PATH(be_directory, BAD_PLUGIN, "is a directory"),
    FILE_BY_PATH(be_link, PERMISSION, "is a symbolic link"),
    FILE_BY_PATH(be_socket, IO, "cannot open"),
    FILE_BY_PATH(be_absent, NOT_FOUND, "does not exist"),
    FILE_BY_PATH(be_empty, CORRUPT, "is empty"),
    FILE_BY_PATH(be_enormous, CORRUPT, "too large for a plugin"),
    FILE_BY_PATH(be_text, CORRUPT, "is not an ELF shared object"),
    FILE_BY_PATH(be_program, BAD_PLUGIN, "is a program"),
    FILE_BY_PATH(be_header_only, CORRUPT, "table"),
    FILE_BY_PATH(be_half, CORRUPT, "hostile.so"),
    FILE_BY_PATH(be_foreign, UNSUPPORTED, "is for another machine"),
    FILE_BY_PATH(be_narrow, UNSUPPORTED, "is for another machine"),
    FILE_BY_PATH(be_object_file, BAD_PLUGIN, "link it with -shared"),
    FILE_BY_NAME(be_writable, PERMISSION, "is writable by everybody"),
    FILE_BY_NAME(be_in_open_directory, NOT_FOUND, "is writable by everybody"),
    FILE_BY_NAME(be_misnamed, UNSUPPORTED, "cannot be used here"),
    /* What no host survives: met in a child process, and put in quarantine. */
    BY_AUTO("hostile-constructor", "", BAD_PLUGIN, "crashed with signal 11 while it was loaded"),
    BY_AUTO("hostile", "crash-query", BAD_PLUGIN, "crashed with signal 11 in its query"),
    BY_AUTO("hostile", "abort-query", BAD_PLUGIN, "crashed with signal 6 in its query"),
    BY_AUTO("hostile", "exit-query", BAD_PLUGIN, "ended its process in its query"),
    BY_AUTO("hostile", "hang-query", TIMEOUT, "did not come back in its query"),
    BY_AUTO("hostile", "crash-interface", BAD_PLUGIN, "signal 11 in its get_interface"),
    BY_AUTO("hostile", "hang-interface", TIMEOUT, "did not come back in its get_interface"),
    BY_AUTO("hostile", "crash-probe", BAD_PLUGIN, "crashed with signal 11 in its probe"),
    BY_AUTO("hostile", "abort-probe", BAD_PLUGIN, "crashed with signal 6 in its probe"),
    BY_AUTO("hostile", "exit-probe", BAD_PLUGIN, "ended its process in its probe"),
    BY_AUTO("hostile", "hang-probe", TIMEOUT, "did not come back in its probe"),
    BY_AUTO("hostile", "deaf-probe", TIMEOUT, "did not come back in its probe"),
    /* What shows only when it is used: found by check-plugin. */
    BY_CHECK("crash-query", "identity", "opening the plugin: crashes with signal 11"),
    BY_CHECK("hang-probe", "identity", "opening the plugin: hangs"),
    BY_CHECK("exit-probe", "identity", "opening the plugin: ends the process"),
    BY_CHECK("crash-create", "objects", "device and context for the group: crashes"),
    BY_CHECK("hang-create", "objects", "device and context for the group: hangs"),
    BY_CHECK("null-device", "objects", "device and context for the group: "),
    BY_CHECK("silent-create", "objects", "status -12"),
    BY_CHECK("crash-null", "objects", "releasing NULL: crashes"),
    BY_CHECK("crash-forward", "core", "add_inplace 0: crashes with signal 11"),
    BY_CHECK("abort-forward", "core", "add_inplace 0: crashes with signal 6"),
    BY_CHECK("exit-forward", "core", "add_inplace 0: ends the process"),
    BY_CHECK("hang-forward", "core", "add_inplace 0: hangs"),
    BY_CHECK("deaf-forward", "core", "add_inplace 0: hangs"),
    BY_CHECK("print-forward", "core", "a plugin may not print"),
    BY_CHECK("wrong-forward", "core", "add_inplace 1000: row 0 is off by 1"),
    BY_CHECK("beyond-forward", "core", "wrote 0 behind its output"),
    BY_CHECK("refuse-forward", "core", "refused, but the error struct is not right"),
    BY_CHECK("random-forward", "determinism", "add_inplace again, and with teams of 1 to 4: bits"),
    BY_CHECK("unchecked-forward", "misuse",
             "add_inplace: valid arguments, no error struct: crashes"),
    BY_CHECK("half-forward", "misuse", "a failing call wrote to its output"),
    BY_CHECK("leak-forward", "core", "of host memory were not freed"),
    BY_CHECK("leak-probe", "identity", "1 blocks (100 bytes) of host memory were not freed"),
    BY_CHECK("scribble-info", "growth", "writes behind the caller's struct"),
    BY_CHECK("overflow", "identity", "has room for"),
    BY_CHECK("lines", "identity", "they are not one line of UTF-8 each"),
    BY_CHECK("promise", "identity", "an unknown id gets a table"),
    BY_CHECK("half-events", "tables", "lacks event_record, event_wait, event_sync, event_free"),
    BY_NOTE("hostile-nodelete", "", "it is never unloaded: it is linked with -z nodelete"),
    BY_NOTE("hostile", "", " more than ferrum_plugin_query_v1: "),
};
const int hostile_count = sizeof hostile_table / sizeof hostile_table[0];
