# SPDX-License-Identifier: MIT
# The loader, part of libferrum.so; tests link this library to reach its internals.
pkginclude_HEADERS += plugin/include/ferrum/loader.h

noinst_LTLIBRARIES += plugin/libferrum-plugin.la
plugin_libferrum_plugin_la_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/plugin/include \
	-DFERRUM_PKGLIBDIR='"$(pkglibdir)"' -DFERRUM_PKGLIBEXECDIR='"$(pkglibexecdir)"'
plugin_libferrum_plugin_la_SOURCES = \
	plugin/compose.h \
	plugin/compose_ffn.c \
	plugin/compose_forward.c \
	plugin/elf_check.c \
	plugin/elf_check.h \
	plugin/elf_links.c \
	plugin/elf_view.c \
	plugin/elf_view.h \
	plugin/env.c \
	plugin/image.c \
	plugin/image.h \
	plugin/internal.h \
	plugin/library.c \
	plugin/library.h \
	plugin/loader.c \
	plugin/memory.c \
	plugin/memory.h \
	plugin/module.c \
	plugin/ops.def \
	plugin/options.c \
	plugin/options.h \
	plugin/probe.c \
	plugin/probe.h \
	plugin/probe_stages.h \
	plugin/quarantine.c \
	plugin/quarantine.h \
	plugin/search.c \
	plugin/search.h \
	plugin/select.c \
	plugin/sha256.c \
	plugin/sha256.h \
	plugin/sys.c \
	plugin/sys.h \
	plugin/tables.c \
	plugin/tables.h \
	plugin/text.h \
	plugin/traces.c \
	plugin/traces.h

# The program that the loader lets an unknown plugin loose in.
pkglibexec_PROGRAMS += ferrum-probe
ferrum_probe_SOURCES = plugin/ferrum_probe.c plugin/probe_stages.h
