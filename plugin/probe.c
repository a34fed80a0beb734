/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "probe.h"
#include "options.h"
#include "probe_stages.h"
#include "quarantine.h"
#include "sys.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- the child ---- */

/* What became of it. */
typedef struct outcome {
    enum {
        SURVIVED,
        DIED,
        HUNG,
        NOT_STARTED
    } kind;
    ferrum_status_t status; /* what to report when there is to be no other way */
    char text[160];
} outcome_t;

/* argv: program, fd of the image, fd of the answer, the options that are set, NULL. */
typedef struct arguments {
    char *list[64];
    char fds[2][12];
    char *text; /* "NAME=VALUE" after another */
} arguments_t;

static bool fill_arguments(arguments_t *a, const char *program, int image, int answer,
                           const ferrum_options_t *options)
{
    size_t count, bytes = 0, used = 3;
    const ferrum_option_info_t *table = ferrum_option_table(&count);
    for (size_t i = 0; i < count; i++) {
        const char *value = ferrum_options_get(options, table[i].name);
        bytes += value ? strlen(table[i].name) + strlen(value) + 2 : 0;
    }
    a->text = ferrum_sys->alloc(bytes);
    if (!a->text)
        return false;
    a->list[0] = (char *)(uintptr_t)program;
    a->list[1] = a->fds[0];
    a->list[2] = a->fds[1];
    (void)snprintf(a->fds[0], sizeof a->fds[0], "%d", image);
    (void)snprintf(a->fds[1], sizeof a->fds[1], "%d", answer);
    char *at = a->text;
    for (size_t i = 0; i < count && used + 1 < sizeof a->list / sizeof *a->list; i++) {
        const char *value = ferrum_options_get(options, table[i].name);
        if (!value)
            continue;
        a->list[used++] = at;
        at += snprintf(at, bytes - (size_t)(at - a->text), "%s=%s", table[i].name, value) + 1;
    }
    a->list[used] = NULL;
    return true;
}

/* Signals as a new program expects them, standard streams to nowhere, the two fds inherited. */
static int spawn(pid_t *out_pid, arguments_t *a, int image, int answer)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    int error = posix_spawn_file_actions_init(&files);
    if (error)
        return error;
    error = posix_spawnattr_init(&attributes);
    if (error)
        goto destroy_files;
    for (int fd = 0; fd < 3 && !error; fd++)
        if (fd != image && fd != answer)
            error = posix_spawn_file_actions_addopen(&files, fd, "/dev/null", O_RDWR, 0);
    /* Onto itself: the child's copy loses close-on-exec. */
    error = error ? error : posix_spawn_file_actions_adddup2(&files, image, image);
    error = error ? error : posix_spawn_file_actions_adddup2(&files, answer, answer);
    error = error ? error : posix_spawnattr_setsigmask(&attributes, &none);
    error = error ? error : posix_spawnattr_setsigdefault(&attributes, &all);
    error = error ? error
                  : posix_spawnattr_setflags(&attributes,
                                             POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    if (!error)
        error = posix_spawn(out_pid, a->list[0], &files, &attributes, a->list, ferrum_env_all());
    (void)posix_spawnattr_destroy(&attributes);
destroy_files:
    (void)posix_spawn_file_actions_destroy(&files);
    return error;
}

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Read stages until the last one or the end; false when time runs out. */
static bool follow(int fd, int64_t deadline_ms, char *out_stage)
{
    for (;;) {
        int64_t left = deadline_ms - now_ms();
        struct pollfd waiting = {fd, POLLIN, 0};
        char stage;
        if (left <= 0)
            return false;
        if (poll(&waiting, 1, left > 1000 ? 1000 : (int)left) <= 0)
            continue;
        ssize_t n = ferrum_sys->read(fd, &stage, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return true;
        *out_stage = stage;
        if (stage == FERRUM_STAGE_DONE)
            return true;
    }
}

static const char *stage_name(char stage)
{
    switch (stage) {
    case FERRUM_STAGE_QUERY:
        return "in its query";
    case FERRUM_STAGE_INTERFACES:
        return "in its get_interface";
    case FERRUM_STAGE_PROBE:
        return "in its probe";
    default:
        return "while it was loaded";
    }
}

/* The host may reap children itself; then nobody knows how it ended, only that it did. */
static void judge(outcome_t *outcome, pid_t pid, bool ended, char stage)
{
    int state = 0;
    pid_t reaped = 0;
    if (!ended && waitpid(pid, &state, WNOHANG) == 0)
        (void)kill(pid, SIGKILL); /* still ours: the number cannot be another's */
    do
        reaped = waitpid(pid, &state, 0);
    while (reaped < 0 && errno == EINTR);
    if (stage == FERRUM_STAGE_DONE) {
        outcome->kind = SURVIVED;
    } else if (!stage) {
        outcome->kind = NOT_STARTED; /* not the plugin's fault: it was not even mapped */
        (void)snprintf(outcome->text, sizeof outcome->text, "it %s",
                       ended ? "ended at once" : "said nothing in time");
    } else if (!ended) {
        outcome->kind = HUNG;
        (void)snprintf(outcome->text, sizeof outcome->text, "did not come back %s",
                       stage_name(stage));
    } else if (reaped == pid && WIFSIGNALED(state)) {
        outcome->kind = DIED;
        (void)snprintf(outcome->text, sizeof outcome->text, "crashed with signal %d %s",
                       WTERMSIG(state), stage_name(stage));
    } else {
        outcome->kind = DIED;
        (void)snprintf(outcome->text, sizeof outcome->text, "ended its process %s",
                       stage_name(stage));
    }
}

static outcome_t run_child(const ferrum_image_t *image, const char *program,
                           const ferrum_options_t *options)
{
    outcome_t outcome = {NOT_STARTED, FERRUM_IO, ""};
    arguments_t arguments = {.text = NULL};
    int ends[2], error = 0;
    pid_t pid = 0;
    char stage = 0;
    if (pipe2(ends, O_CLOEXEC) != 0) {
        (void)snprintf(outcome.text, sizeof outcome.text, "no pipe: %s", strerror(errno));
        return outcome;
    }
    if (!fill_arguments(&arguments, program, image->fd, ends[1], options))
        error = ENOMEM;
    else
        error = spawn(&pid, &arguments, image->fd, ends[1]);
    (void)close(ends[1]);
    ferrum_sys->release(arguments.text);
    if (error) {
        outcome.status = error == ENOMEM ? FERRUM_OUT_OF_MEMORY : FERRUM_IO;
        (void)snprintf(outcome.text, sizeof outcome.text, "%s", strerror(error));
    } else {
        uint64_t seconds = ferrum_options_uint(options, "FERRUM_PROBE_SECONDS");
        int64_t limit = (int64_t)(seconds < 3600 ? seconds : 3600) * 1000;
        bool ended = follow(ends[0], now_ms() + limit, &stage);
        judge(&outcome, pid, ended, stage);
    }
    (void)close(ends[0]);
    return outcome;
}

/* ---- the policy ---- */

typedef enum policy {
    POLICY_AUTO,
    POLICY_CHILD,
    POLICY_NONE
} policy_t;

static ferrum_status_t read_policy(const ferrum_options_t *options, policy_t *out_policy,
                                   ferrum_error_t *err)
{
    static const char *const names[] = {"auto", "child", "none"};
    const char *text = ferrum_options_get(options, "FERRUM_PROBE");
    for (int i = 0; i < 3; i++)
        if (strcmp(text ? text : "auto", names[i]) == 0) {
            *out_policy = (policy_t)i;
            return FERRUM_OK;
        }
    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OTHER,
                       "FERRUM_PROBE is auto, child or none, not '%.64s'", text);
}

static bool is_installed(const char *path)
{
    static const char directory[] = FERRUM_PKGLIBDIR "/";
    size_t n = sizeof directory - 1;
    return strncmp(path, directory, n) == 0 && !strchr(path + n, '/');
}

static ferrum_status_t fail_record(const char *path, const ferrum_record_t *record, bool again,
                                   ferrum_status_t status, ferrum_error_t *err)
{
    return ferrum_fail(
        err, status, FERRUM_REASON_OTHER, "%s %s%s%s; %s%s", ferrum_path_tail(path),
        again ? "is in quarantine: it " : "", record->why, again ? "" : " and is in quarantine",
        record->path[0] ? "to try it again, delete " : "this process will not try it again",
        record->path);
}

/* Its name in quarantine. */
static ferrum_content_t content_of(const ferrum_image_t *image)
{
    ferrum_content_t content = {.size = image->size};
    ferrum_sha256_hex(image->bytes, image->size, content.hex);
    return content;
}

static ferrum_status_t probe_in_child(const ferrum_image_t *image, const char *path,
                                      policy_t policy, const ferrum_options_t *options,
                                      const ferrum_logger_t *logger, ferrum_error_t *err)
{
    const char *program = ferrum_options_get(options, "FERRUM_PROBE_PROGRAM");
    ferrum_content_t content;
    ferrum_record_t record;
    if (!program)
        program = FERRUM_PKGLIBEXECDIR "/ferrum-probe";
    outcome_t outcome = run_child(image, program, options);
    switch (outcome.kind) {
    case SURVIVED:
        ferrum_quarantine_note_good(image->size, image->hash);
        return FERRUM_OK;
    case NOT_STARTED:
        if (policy == POLICY_CHILD)
            return ferrum_fail(err, outcome.status, FERRUM_REASON_OTHER,
                               "cannot probe %s in a process of its own: %.100s: %s",
                               ferrum_path_tail(path), program, outcome.text);
        ferrum_log(logger, FERRUM_LOG_INFO,
                   "%s is opened without a probe in a process of its own: %s: %s", path, program,
                   outcome.text);
        return FERRUM_OK;
    default:
        content = content_of(image);
        ferrum_quarantine_add(options, &content, path, outcome.text, &record);
        return fail_record(path, &record, false,
                           outcome.kind == HUNG ? FERRUM_TIMEOUT : FERRUM_BAD_PLUGIN, err);
    }
}

ferrum_status_t ferrum_probe_image(const ferrum_image_t *image, const char *path,
                                   ferrum_asked_t asked, const ferrum_options_t *options,
                                   const ferrum_logger_t *logger, ferrum_error_t *err)
{
    policy_t policy = POLICY_AUTO;
    ferrum_record_t record;
    FERRUM_TRY(read_policy(options, &policy, err));
    bool probe = policy == POLICY_CHILD || (asked == FERRUM_ASKED_ANY && !is_installed(path));
    if (policy == POLICY_NONE || (policy == POLICY_AUTO && asked == FERRUM_ASKED_PATH))
        return FERRUM_OK;
    if (ferrum_quarantine_may_have(options, image->size)) {
        ferrum_content_t content = content_of(image);
        if (ferrum_quarantine_find(options, &content, &record))
            return fail_record(path, &record, true, FERRUM_BAD_PLUGIN, err);
    }
    if (!probe || ferrum_quarantine_is_known_good(image->size, image->hash))
        return FERRUM_OK;
    return probe_in_child(image, path, policy, options, logger, err);
}
