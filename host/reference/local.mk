# SPDX-License-Identifier: MIT
# The f64 reference of a routed-expert FFN; needs the scalar decoders and nothing else.
noinst_LTLIBRARIES += host/reference/libferrum-reference.la
host_reference_libferrum_reference_la_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir) \
	-I$(top_srcdir)/plugin/include -I$(top_srcdir)/host/include
host_reference_libferrum_reference_la_SOURCES = host/reference/reference.c
host_reference_libferrum_reference_la_LIBADD = kernels/libferrum-kernels.la
