# SPDX-License-Identifier: MIT
# cuda.so: the host side and, embedded in it, one fatbin per file of kernels/cuda. It needs nvcc to
# build and nothing of CUDA to load: the driver is found at run time.
EXTRA_DIST += backends/cuda/README.md
if FERRUM_CUDA
pkglib_LTLIBRARIES += backends/cuda/cuda.la

# Code for every generation from Ampere on; PTX lets the driver make the code for the others.
NVCCFLAGS = -std=c++17 -O3 -I$(top_srcdir) \
	-gencode arch=compute_80,code=sm_80 \
	-gencode arch=compute_89,code=sm_89 \
	-gencode arch=compute_90,code=sm_90 \
	-gencode arch=compute_120,code=sm_120 \
	-gencode arch=compute_80,code=compute_80
.cu.fatbin:
	$(AM_V_GEN)$(MKDIR_P) $(@D) && $(NVCC) $(NVCCFLAGS) -fatbin -o $@ $<

cuda_images = $(cuda_kernel_sources:.cu=.fatbin)
$(cuda_images): $(cuda_kernel_headers) kernels/cuda/device.cuh kernels/cuda/device_ptx.cuh
CLEANFILES += $(cuda_images)
# Through a variable: automake takes a plain name for a rule that replaces its own.
cuda_images_object = backends/cuda/cuda_la-images.lo
$(cuda_images_object): $(cuda_images)

backends_cuda_cuda_la_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir) \
	-DFERRUM_CUDA_VERSION='"$(PACKAGE_VERSION)"' \
	-DFERRUM_CUDA_IMAGE_DIR='"$(abs_top_builddir)/kernels/cuda"'
backends_cuda_cuda_la_SOURCES = \
	backends/cuda/argmax.c \
	backends/cuda/attention.c \
	backends/cuda/buffer.c \
	backends/cuda/check.c \
	backends/cuda/check.h \
	backends/cuda/context.c \
	backends/cuda/device.c \
	backends/cuda/device.h \
	backends/cuda/driver.c \
	backends/cuda/driver.h \
	backends/cuda/driver_api.h \
	backends/cuda/elementwise.c \
	backends/cuda/embedding.c \
	backends/cuda/entries.h \
	backends/cuda/events.c \
	backends/cuda/expert_ffn.c \
	backends/cuda/expert_ffn.h \
	backends/cuda/expert_ffn_forward.c \
	backends/cuda/gemm.c \
	backends/cuda/graph.c \
	backends/cuda/half.h \
	backends/cuda/images.c \
	backends/cuda/kernel_list.h \
	backends/cuda/kv.c \
	backends/cuda/kv.h \
	backends/cuda/layout.c \
	backends/cuda/linear.c \
	backends/cuda/linear.h \
	backends/cuda/marlin_stack.c \
	backends/cuda/memory.c \
	backends/cuda/moe_combine.c \
	backends/cuda/moe_plan.c \
	backends/cuda/moe_route.c \
	backends/cuda/objects.h \
	backends/cuda/plugin.c \
	backends/cuda/problems.c \
	backends/cuda/problems.h \
	backends/cuda/product.c \
	backends/cuda/product.h \
	backends/cuda/qkv.c \
	backends/cuda/stacked_experts.c \
	backends/cuda/stream.c \
	backends/cuda/supports.c \
	backends/cuda/transfer.c \
	backends/cuda/weights.h \
	backends/cuda/weights_gguf.c \
	backends/cuda/weights_gptq.c
backends_cuda_cuda_la_LDFLAGS = $(plugin_link_flags)
EXTRA_backends_cuda_cuda_la_DEPENDENCIES = backends/plugin.map
endif
