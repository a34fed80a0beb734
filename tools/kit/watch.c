/* SPDX-License-Identifier: MIT */
/*
 * One group in a child process. The child writes its events into a pipe, one line each:
 * event number, tab, label, tab, text. The parent reads them until the pipe ends or falls silent
 * for too long. fork() is safe here because the parent has one thread and no plugin.
 */
#define _GNU_SOURCE
#include "tools/kit/run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- the child ---- */

static void clean(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < ' ')
            *text = ' ';
}

static void send_event(void *arg, cf_event_t event, const char *label, const char *text)
{
    const int *fd = arg;
    char safe_label[160], safe_text[512], line[700];
    snprintf(safe_label, sizeof safe_label, "%s", label);
    snprintf(safe_text, sizeof safe_text, "%s", text);
    clean(safe_label);
    clean(safe_text);
    int length = snprintf(line, sizeof line, "%d\t%s\t%s\n", (int)event, safe_label, safe_text);
    for (int at = 0; at < length;) {
        ssize_t n = write(*fd, line + at, (size_t)(length - at));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            _exit(1);
        at += (int)n;
    }
}

/* Standard output goes into a memory file: a plugin that prints is found out, and cannot garble
 * the report. */
static void judge_output(int fd, int captured)
{
    struct stat st;
    char text[80] = "";
    fflush(stdout);
    if (captured < 0 || fstat(captured, &st) != 0 || st.st_size == 0)
        return;
    ssize_t n = pread(captured, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    send_event(&fd, CF_FAILED, "standard output", "a plugin may not print; it wrote:");
    send_event(&fd, CF_FAILED, "standard output", text);
}

static _Noreturn void child(const cf_plan_t *plan, const cf_group_t *group, int fd)
{
    const struct rlimit no_core = {0, 0};
    int captured = memfd_create("stdout", MFD_CLOEXEC);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)setrlimit(RLIMIT_CORE, &no_core);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    if (captured >= 0)
        (void)dup2(captured, STDOUT_FILENO);
    cf_run_group(group, plan->path, &plan->settings, send_event, &fd);
    judge_output(fd, captured);
    send_event(&fd, CF_EVENT_COUNT, "", ""); /* the end, and not somebody's exit() */
    _exit(0);
}

/* ---- the parent ---- */

typedef struct reader {
    cf_collector_t *collector;
    char buffer[2048];
    size_t used;
    bool finished;
} reader_t;

/* Hand over the complete lines of the buffer. */
static void take_lines(reader_t *reader)
{
    char *line = reader->buffer, *end = NULL;
    while ((end = memchr(line, '\n', reader->used - (size_t)(line - reader->buffer))) != NULL) {
        *end = '\0';
        char *label = strchr(line, '\t'), *text = label ? strchr(label + 1, '\t') : NULL;
        int event = atoi(line);
        reader->finished = reader->finished || event == CF_EVENT_COUNT;
        if (text != NULL && event >= 0 && event < CF_EVENT_COUNT) {
            *text++ = '\0';
            cf_collect(reader->collector, (cf_event_t)event, label + 1, text);
        }
        line = end + 1;
    }
    reader->used -= (size_t)(line - reader->buffer);
    memmove(reader->buffer, line, reader->used);
    if (reader->used == sizeof reader->buffer)
        reader->used = 0; /* no line of ours is that long */
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Read until the child closes the pipe; false when it was silent for too long. */
static bool read_events(const cf_plan_t *plan, int fd, reader_t *reader)
{
    double last = now_s();
    for (;;) {
        struct pollfd waiting = {fd, POLLIN, 0};
        int ready = poll(&waiting, 1, 250);
        if (plan->interrupted != NULL && *plan->interrupted)
            return true;
        if (ready > 0) {
            ssize_t n =
                read(fd, reader->buffer + reader->used, sizeof reader->buffer - reader->used);
            if (n == 0)
                return true;
            if (n > 0) {
                reader->used += (size_t)n;
                take_lines(reader);
                last = now_s();
            }
        } else if (now_s() - last > (double)plan->timeout_s) {
            return false;
        }
    }
}

static void fail_child(cf_collector_t *collector, const char *how)
{
    char text[400];
    collector->died = true;
    snprintf(text, sizeof text, "%s; the rest of the group was not run", how);
    cf_collect(collector, CF_FAILED, collector->running, text);
}

static void judge_end(const cf_plan_t *plan, cf_collector_t *collector, int state, bool hung,
                      bool finished)
{
    char how[160];
    if (plan->interrupted != NULL && *plan->interrupted)
        return;
    if (hung) {
        snprintf(how, sizeof how, "hangs: nothing happened for %u seconds", plan->timeout_s);
        fail_child(collector, how);
    } else if (WIFSIGNALED(state)) {
        snprintf(how, sizeof how, "crashes with signal %d (%s)", WTERMSIG(state),
                 strsignal(WTERMSIG(state)));
        fail_child(collector, how);
    } else if (!finished) {
        snprintf(how, sizeof how, "ends the process with status %d", WEXITSTATUS(state));
        fail_child(collector, how);
    }
}

void cf_run_child(const cf_plan_t *plan, const cf_group_t *group, cf_collector_t *collector)
{
    int ends[2], state = 0;
    snprintf(collector->running, sizeof collector->running, "start");
    if (pipe2(ends, O_CLOEXEC) != 0) {
        fail_child(collector, "no pipe for a child process");
        return;
    }
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        child(plan, group, ends[1]);
    }
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        fail_child(collector, "no child process could be started");
        return;
    }
    reader_t reader = {.collector = collector};
    bool hung = !read_events(plan, ends[0], &reader);
    if (hung || (plan->interrupted != NULL && *plan->interrupted))
        kill(pid, SIGKILL);
    while (waitpid(pid, &state, 0) < 0 && errno == EINTR)
        ;
    close(ends[0]);
    judge_end(plan, collector, state, hung, reader.finished);
}
