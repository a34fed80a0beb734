# SPDX-License-Identifier: MIT
# Routing, planning and the ways through a MoE layer.
noinst_LTLIBRARIES += host/moe/libferrum-moe.la
host_moe_libferrum_moe_la_CPPFLAGS = $(host_cppflags)
host_moe_libferrum_moe_la_LIBADD = -lm
host_moe_libferrum_moe_la_SOURCES = \
	host/moe/align.c host/moe/align.h \
	host/moe/bucket_plan.c host/moe/bucket_plan.h \
	host/moe/expert_stack.c host/moe/expert_stack.h host/moe/expert_stack_internal.h \
	host/moe/expert_stack_files.c \
	host/moe/expert_stack_gptq.c \
	host/moe/expert_stack_ops.c \
	host/moe/layer.c \
	host/moe/layer_weights.c host/moe/layer_weights.h \
	host/moe/moe_env.c host/moe/moe_env.h \
	host/moe/moe_forward.c host/moe/moe_forward.h \
	host/moe/moe_forward_bucketed.c host/moe/moe_forward_bucketed.h \
	host/moe/moe_plan.c host/moe/moe_plan.h \
	host/moe/moe_profile.c host/moe/moe_profile.h \
	host/moe/moe_run.c host/moe/moe_run.h \
	host/moe/route_scratch.c host/moe/route_scratch.h \
	host/moe/router.c host/moe/router.h \
	host/moe/stacked.c host/moe/stacked.h
