# SPDX-License-Identifier: MIT
# What tests of several areas share: synthesised model files and scratch directories.
check_LTLIBRARIES += tests/support/libferrum-test-support.la
tests_support_libferrum_test_support_la_SOURCES = \
	tests/support/byte_buffer.c tests/support/byte_buffer.h \
	tests/support/expect.h \
	tests/support/files.c tests/support/files.h \
	tests/support/gguf_writer.c tests/support/gguf_writer.h \
	tests/support/safetensors_writer.c tests/support/safetensors_writer.h \
	tests/support/test_executor.c tests/support/test_executor.h \
	tests/support/test_host.c tests/support/test_host.h
