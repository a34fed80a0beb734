# SPDX-License-Identifier: MIT
# Threads, opened backends, runtimes and sessions.
noinst_LTLIBRARIES += host/runtime/libferrum-runtime.la
host_runtime_libferrum_runtime_la_CPPFLAGS = $(host_cppflags)
host_runtime_libferrum_runtime_la_CFLAGS = $(AM_CFLAGS) $(HWLOC_CFLAGS)
host_runtime_libferrum_runtime_la_LIBADD = $(HWLOC_LIBS)
host_runtime_libferrum_runtime_la_SOURCES = \
	host/runtime/arrays.c host/runtime/arrays.h \
	host/runtime/executor.c host/runtime/executor.h \
	host/runtime/generation.c host/runtime/generation.h \
	host/runtime/memory.c host/runtime/memory.h \
	host/runtime/ops.c host/runtime/ops.h \
	host/runtime/registry.c host/runtime/registry.h \
	host/runtime/runtime.c host/runtime/runtime_internal.h \
	host/runtime/session.c host/runtime/session_internal.h \
	host/runtime/spread.c host/runtime/spread.h \
	host/runtime/topology.c host/runtime/topology.h
