# SPDX-License-Identifier: MIT
# Exchanging the backend under traffic: the protocol and its self-test.
noinst_LTLIBRARIES += host/swap/libferrum-swap.la
host_swap_libferrum_swap_la_CPPFLAGS = $(host_cppflags)
host_swap_libferrum_swap_la_LIBADD = -lm
host_swap_libferrum_swap_la_SOURCES = \
	host/swap/swap.c \
	host/swap/swap_steps.c host/swap/swap_steps.h \
	host/swap/self_test.c host/swap/self_test.h
