# SPDX-License-Identifier: MIT
# cuda.so: the host side and, embedded in it, the kernels as one fatbin. It needs nvcc to build and
# nothing of CUDA to load: the driver is found at run time.
EXTRA_DIST += backends/cuda/README.md
if FERRUM_CUDA
pkglib_LTLIBRARIES += backends/cuda/cuda.la

# Code for every generation from Ampere on, and PTX from which a driver makes it for later ones. One
# pass over the sources serves all but sm_90a, whose own instructions need a pass of their own.
NVCCFLAGS = -std=c++17 -O3 --threads 2
cuda_code = \
	-gencode 'arch=compute_80,code=[sm_80,sm_89,sm_120,compute_80]' \
	-gencode arch=compute_90a,code=sm_90a

# All kernels are one module: one file that includes them, each in a namespace of its own. A sanitized
# build runs on the emulated driver only, which has its own kernels: there the image is empty.
if FERRUM_SANITIZED
cuda_image_sources =
else
cuda_image_sources = $(cuda_kernel_sources)
endif
cuda_image = kernels/cuda/image.fatbin
kernels/cuda/image.cu: kernels/cuda/local.mk $(cuda_kernel_sources)
	$(AM_V_GEN)$(MKDIR_P) $(@D) && { \
		for f in $(cuda_kernel_headers); do echo "#include \"$$f\""; done; \
		for f in $(cuda_image_sources); do \
			echo "namespace $$(basename $$f .cu)" && echo "{" && echo "#include \"$$f\"" && \
			echo "}" && sed -n 's/^#define \([A-Za-z_0-9]*\).*/#undef \1/p' $(srcdir)/$$f; \
		done; } >$@-t && mv $@-t $@

# The log has what ptxas says about each kernel; tests/checks/cuda-kernels.sh reads it.
$(cuda_image): kernels/cuda/image.cu $(cuda_kernel_sources) $(cuda_kernel_headers) \
		kernels/cuda/device.cuh kernels/cuda/device_ptx.cuh kernels/cuda/device_ptx_sm90.cuh
	$(AM_V_GEN)$(NVCC) $(NVCCFLAGS) $(cuda_code) -I$(top_srcdir) -Xptxas -v -fatbin -o $@-t \
		kernels/cuda/image.cu 2>$@.log || { cat $@.log >&2; exit 1; }; \
	grep -v '^ptxas info\|bytes stack frame' $@.log >&2; mv $@-t $@
CLEANFILES += $(cuda_image) $(cuda_image).log kernels/cuda/image.cu
# Through a variable: automake takes a plain name for a rule that replaces its own.
cuda_image_object = backends/cuda/cuda_la-image.lo
$(cuda_image_object): $(cuda_image)

backends_cuda_cuda_la_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir) \
	-DFERRUM_CUDA_VERSION='"$(PACKAGE_VERSION)"' \
	-DFERRUM_CUDA_IMAGE_FILE='"$(abs_top_builddir)/$(cuda_image)"'
backends_cuda_cuda_la_SOURCES = \
	backends/common/check.c \
	backends/common/check.h \
	backends/common/entries.h \
	backends/common/ffn.c \
	backends/common/ffn.h \
	backends/common/gptq.c \
	backends/common/gptq.h \
	backends/common/problem.c \
	backends/common/problem.h \
	backends/cuda/argmax.c \
	backends/cuda/attention.c \
	backends/cuda/attention_run.c \
	backends/cuda/buffer.c \
	backends/cuda/check.c \
	backends/cuda/check.h \
	backends/cuda/context.c \
	backends/cuda/cublaslt.c \
	backends/cuda/cublaslt.h \
	backends/cuda/cublaslt_api.h \
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
	backends/cuda/image.c \
	backends/cuda/kernel_list.h \
	backends/cuda/kv.c \
	backends/cuda/kv.h \
	backends/cuda/layout.c \
	backends/cuda/limits.c \
	backends/cuda/limits.h \
	backends/cuda/linear.c \
	backends/cuda/linear.h \
	backends/cuda/marlin_stack.c \
	backends/cuda/memory.c \
	backends/cuda/moe_combine.c \
	backends/cuda/moe_plan.c \
	backends/cuda/moe_route.c \
	backends/cuda/objects.h \
	backends/cuda/plan_ahead.c \
	backends/cuda/plan_ahead.h \
	backends/cuda/plugin.c \
	backends/cuda/problems.c \
	backends/cuda/problems.h \
	backends/cuda/product.c \
	backends/cuda/product.h \
	backends/cuda/product_gguf.c \
	backends/cuda/qkv.c \
	backends/cuda/stacked_experts.c \
	backends/cuda/stream.c \
	backends/cuda/supports.c \
	backends/cuda/tile_choice.c \
	backends/cuda/tile_choice.h \
	backends/cuda/transfer.c \
	backends/cuda/w4_order.c \
	backends/cuda/w4_order.h \
	backends/cuda/weights.h \
	backends/cuda/weights_gguf.c \
	backends/cuda/weights_gguf_tiles.c \
	backends/cuda/weights_gptq.c \
	backends/cuda/weights_w4.c
backends_cuda_cuda_la_LDFLAGS = $(plugin_link_flags)
EXTRA_backends_cuda_cuda_la_DEPENDENCIES = backends/plugin.map
endif
