# SPDX-License-Identifier: MIT
# libferrum: the loader and the host side of MoE models, made of one convenience library per area.
host_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir) -I$(top_srcdir)/plugin/include \
	-I$(top_srcdir)/host/include

include host/formats/local.mk
include host/text/local.mk
include host/runtime/local.mk
include host/moe/local.mk
include host/model/local.mk
include host/reference/local.mk
include host/swap/local.mk

pkginclude_HEADERS += \
	host/include/ferrum/model.h \
	host/include/ferrum/moe.h \
	host/include/ferrum/swap.h

lib_LTLIBRARIES += libferrum.la
libferrum_la_SOURCES =
libferrum_la_LDFLAGS = -version-info $(FERRUM_LT_VERSION) $(FERRUM_LINK_FLAGS)
libferrum_la_LIBADD = \
	host/swap/libferrum-swap.la \
	host/model/libferrum-model.la \
	host/moe/libferrum-moe.la \
	host/runtime/libferrum-runtime.la \
	host/reference/libferrum-reference.la \
	host/text/libferrum-text.la \
	host/formats/libferrum-formats.la \
	plugin/libferrum-plugin.la
