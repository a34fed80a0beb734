# SPDX-License-Identifier: MIT
# cpu.so, and the same objects as a library for the tests that look inside.
pkglib_LTLIBRARIES += backends/cpu/cpu.la
noinst_LTLIBRARIES += backends/cpu/libferrum-cpu.la
EXTRA_DIST += backends/cpu/README.md

backends_cpu_libferrum_cpu_la_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir) \
	-DFERRUM_CPU_VERSION='"$(PACKAGE_VERSION)"'
backends_cpu_libferrum_cpu_la_SOURCES = \
	backends/common/check.c \
	backends/common/check.h \
	backends/common/entries.h \
	backends/common/ffn.c \
	backends/common/ffn.h \
	backends/common/gptq.c \
	backends/common/gptq.h \
	backends/common/problem.c \
	backends/common/problem.h \
	backends/cpu/activation.c \
	backends/cpu/activation.h \
	backends/cpu/argmax.c \
	backends/cpu/attention.c \
	backends/cpu/attention.h \
	backends/cpu/buffer.c \
	backends/cpu/check.c \
	backends/cpu/check.h \
	backends/cpu/combine.c \
	backends/cpu/combine.h \
	backends/cpu/context.c \
	backends/cpu/device.c \
	backends/cpu/device.h \
	backends/cpu/elementwise.c \
	backends/cpu/embedding.c \
	backends/cpu/entries.h \
	backends/cpu/events.c \
	backends/cpu/expert_ffn.c \
	backends/cpu/expert_ffn.h \
	backends/cpu/expert_ffn_forward.c \
	backends/cpu/ffn_packed.c \
	backends/cpu/ffn_packed.h \
	backends/cpu/ffn_plan.c \
	backends/cpu/ffn_plan.h \
	backends/cpu/gate_up.c \
	backends/cpu/gate_up.h \
	backends/cpu/gemm.c \
	backends/cpu/gguf_weights.c \
	backends/cpu/gptq_stack.c \
	backends/cpu/gptq_weights.c \
	backends/cpu/gptq_weights.h \
	backends/cpu/graph.c \
	backends/cpu/grouped.c \
	backends/cpu/grouped.h \
	backends/cpu/grouping.c \
	backends/cpu/grouping.h \
	backends/cpu/half.h \
	backends/cpu/layout.c \
	backends/cpu/linear.c \
	backends/cpu/linear.h \
	backends/cpu/marlin_stack.c \
	backends/cpu/marlin_stack.h \
	backends/cpu/matrix.c \
	backends/cpu/matrix.h \
	backends/cpu/moe_combine.c \
	backends/cpu/moe_plan.c \
	backends/cpu/moe_route.c \
	backends/cpu/objects.h \
	backends/cpu/paged_attention.c \
	backends/cpu/paged_kv.c \
	backends/cpu/paged_kv.h \
	backends/cpu/paged_write.c \
	backends/cpu/parallel.c \
	backends/cpu/parallel.h \
	backends/cpu/plugin.c \
	backends/cpu/qkv.c \
	backends/cpu/rope.c \
	backends/cpu/rope.h \
	backends/cpu/sequences.c \
	backends/cpu/sequences.h \
	backends/cpu/stacked_experts.c \
	backends/cpu/supports.c \
	backends/cpu/tiles.c \
	backends/cpu/transfer.c
backends_cpu_libferrum_cpu_la_LIBADD = kernels/libferrum-kernels.la

backends_cpu_cpu_la_SOURCES =
backends_cpu_cpu_la_LIBADD = backends/cpu/libferrum-cpu.la -lm
backends_cpu_cpu_la_LDFLAGS = $(plugin_link_flags)
EXTRA_backends_cpu_cpu_la_DEPENDENCIES = backends/plugin.map
