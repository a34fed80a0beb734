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
	tools/ferrum/bench_limits.c \
	tools/ferrum/bench_peaks.c \
	tools/ferrum/bench_model.c \
	tools/ferrum/bench_moe.c \
	tools/ferrum/bench_weights.c \
	tools/ferrum/cli.h \
	tools/ferrum/common.c \
	tools/ferrum/env.c \
	tools/ferrum/generate.c \
	tools/ferrum/info.c \
	tools/ferrum/inspect.c \
	tools/ferrum/main.c
ferrum_LDADD = libferrum.la host/formats/libferrum-formats.la $(JANSSON_LIBS) $(POPT_LIBS) -lm

dist_man_MANS += \
	tools/man/ferrum.1 \
	tools/man/ferrum-bench.1 \
	tools/man/ferrum-env.1 \
	tools/man/ferrum-generate.1 \
	tools/man/ferrum-info.1 \
	tools/man/ferrum-inspect.1

bashcompletiondir = $(datadir)/bash-completion/completions
dist_bashcompletion_DATA = tools/completion/ferrum
