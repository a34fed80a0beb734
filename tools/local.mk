# SPDX-License-Identifier: MIT
# The `ferrum` program. It calls libferrum.so like anybody else; `inspect` also links the readers
# behind it.
bin_PROGRAMS += ferrum
ferrum_CPPFLAGS = $(AM_CPPFLAGS) -D_POSIX_C_SOURCE=200809L -I$(top_srcdir) -I$(top_srcdir)/plugin/include \
	-I$(top_srcdir)/host/include
ferrum_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS) $(POPT_CFLAGS)
ferrum_SOURCES = \
	tools/ferrum/bench.c \
	tools/ferrum/bench.h \
	tools/ferrum/bench_counters.c \
	tools/ferrum/bench_device.c \
	tools/ferrum/bench_limits.c \
	tools/ferrum/bench_peaks.c \
	tools/ferrum/bench_model.c \
	tools/ferrum/bench_moe.c \
	tools/ferrum/bench_moe.h \
	tools/ferrum/bench_weights.c \
	tools/ferrum/check_plugin.c \
	tools/ferrum/check_report.c \
	tools/ferrum/check_report.h \
	tools/ferrum/cli.h \
	tools/ferrum/common.c \
	tools/ferrum/env.c \
	tools/ferrum/generate.c \
	tools/ferrum/info.c \
	tools/ferrum/inspect.c \
	tools/ferrum/inspect_held.c \
	tools/ferrum/inspect_held.h \
	tools/ferrum/main.c
ferrum_LDADD = libferrum.la tools/kit/libferrum-kit.la host/runtime/libferrum-runtime.la \
	host/formats/libferrum-formats.la $(JANSSON_LIBS) $(POPT_LIBS) -lm

# The conformance suite behind `ferrum check-plugin`.
noinst_LTLIBRARIES += tools/kit/libferrum-kit.la
tools_kit_libferrum_kit_la_CPPFLAGS = $(ferrum_CPPFLAGS)
tools_kit_libferrum_kit_la_SOURCES = \
	tools/kit/attention.c \
	tools/kit/core.c \
	tools/kit/cycles.c \
	tools/kit/experts.c \
	tools/kit/ffn.c \
	tools/kit/growth.c \
	tools/kit/harness.c \
	tools/kit/identity.c \
	tools/kit/kit.h \
	tools/kit/linear.c \
	tools/kit/memory.c \
	tools/kit/misuse.c \
	tools/kit/objects.c \
	tools/kit/ops.c \
	tools/kit/ops.h \
	tools/kit/oracle.c \
	tools/kit/raw.c \
	tools/kit/raw.h \
	tools/kit/routing.c \
	tools/kit/run.c \
	tools/kit/run.h \
	tools/kit/session.c \
	tools/kit/tables.c \
	tools/kit/threads.c \
	tools/kit/watch.c \
	tools/kit/weights.c

dist_man_MANS += \
	tools/man/ferrum.1 \
	tools/man/ferrum-bench.1 \
	tools/man/ferrum-check-plugin.1 \
	tools/man/ferrum-env.1 \
	tools/man/ferrum-generate.1 \
	tools/man/ferrum-info.1 \
	tools/man/ferrum-inspect.1

bashcompletiondir = $(datadir)/bash-completion/completions
dist_bashcompletion_DATA = tools/completion/ferrum
