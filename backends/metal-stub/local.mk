# SPDX-License-Identifier: MIT
pkglib_LTLIBRARIES += backends/metal-stub/metal-stub.la

backends_metal_stub_metal_stub_la_SOURCES = backends/metal-stub/metal_stub.c
backends_metal_stub_metal_stub_la_LDFLAGS = $(plugin_link_flags)
EXTRA_backends_metal_stub_metal_stub_la_DEPENDENCIES = backends/plugin.map
