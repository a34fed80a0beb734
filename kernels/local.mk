# SPDX-License-Identifier: MIT
# One convenience library per ISA, each with only its own flags, so that no instruction of a wider ISA
# can end up in code that runs before the processor is known. libferrum-kernels.la is what users link.
noinst_LTLIBRARIES += kernels/libferrum-kernels-scalar.la kernels/libferrum-kernels.la

kernels_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir)

kernels_libferrum_kernels_scalar_la_CPPFLAGS = $(kernels_cppflags)
kernels_libferrum_kernels_scalar_la_SOURCES = \
	kernels/kernels.h \
	kernels/set.h \
	kernels/scalar/convert.h \
	kernels/scalar/scalar.h \
	kernels/scalar/dequant_float_scalar.c \
	kernels/scalar/dequant_iq4_scalar.c \
	kernels/scalar/dequant_k_scalar.c \
	kernels/scalar/dequant_legacy_scalar.c \
	kernels/scalar/matmul_blocks_scalar.c \
	kernels/scalar/matmul_gptq_scalar.c \
	kernels/packed.h \
	kernels/packed_scales.h \
	kernels/packed_template.h \
	kernels/packed_tile.h \
	kernels/packed_unpack.h \
	kernels/scalar/packed_kinds.c \
	kernels/scalar/packed_scalar.c \
	kernels/scalar/packed_scalar.h \
	kernels/scalar/packed_unpack_scalar.c \
	kernels/scalar/set_scalar.c \
	kernels/scalar/vector_scalar.c

kernels_libferrum_kernels_la_CPPFLAGS = $(kernels_cppflags)
kernels_libferrum_kernels_la_SOURCES = kernels/select.c
kernels_libferrum_kernels_la_LIBADD = kernels/libferrum-kernels-scalar.la -lm
EXTRA_DIST += kernels/README.md

if FERRUM_X86
noinst_LTLIBRARIES += kernels/libferrum-kernels-avx2.la kernels/libferrum-kernels-avxvnni.la \
	kernels/libferrum-kernels-avx512.la kernels/libferrum-kernels-avx512vnni.la \
	kernels/libferrum-kernels-amx.la

kernels_libferrum_kernels_avx2_la_CPPFLAGS = $(kernels_cppflags)
kernels_libferrum_kernels_avx2_la_CFLAGS = $(AM_CFLAGS) -mavx2 -mfma -mf16c
kernels_libferrum_kernels_avx2_la_SOURCES = \
	kernels/x86/avx2.h \
	kernels/x86/dequant_float_avx2.c \
	kernels/x86/dequant_k_avx2.c \
	kernels/x86/dequant_legacy_avx2.c \
	kernels/x86/matmul_blocks_avx2.c \
	kernels/x86/lanes_avx2.h \
	kernels/x86/matmul_gptq_avx2.c \
	kernels/x86/packed_avx2.c \
	kernels/x86/packed_avx2.h \
	kernels/x86/quantise_avx2.c \
	kernels/x86/set_avx2.c \
	kernels/x86/vector_avx2.c

kernels_libferrum_kernels_avxvnni_la_CPPFLAGS = $(kernels_cppflags)
kernels_libferrum_kernels_avxvnni_la_CFLAGS = $(AM_CFLAGS) -mavx2 -mfma -mf16c -mavxvnni
kernels_libferrum_kernels_avxvnni_la_SOURCES = \
	kernels/x86/packed_avxvnni.c \
	kernels/x86/set_avxvnni.c

kernels_libferrum_kernels_avx512_la_CPPFLAGS = $(kernels_cppflags)
kernels_libferrum_kernels_avx512_la_CFLAGS = $(AM_CFLAGS) \
	-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c
kernels_libferrum_kernels_avx512_la_SOURCES = \
	kernels/x86/avx512.h \
	kernels/x86/dequant_float_avx512.c \
	kernels/x86/dequant_k_avx512.c \
	kernels/x86/dequant_legacy_avx512.c \
	kernels/x86/matmul_blocks_avx512.c \
	kernels/x86/matmul_gptq_avx512.c \
	kernels/x86/set_avx512.c \
	kernels/x86/vector_avx512.c

avx512vnni_cflags = -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mfma -mf16c
kernels_libferrum_kernels_avx512vnni_la_CPPFLAGS = $(kernels_cppflags)
kernels_libferrum_kernels_avx512vnni_la_CFLAGS = $(AM_CFLAGS) $(avx512vnni_cflags)
kernels_libferrum_kernels_avx512vnni_la_SOURCES = \
	kernels/x86/packed_avx512vnni.c \
	kernels/x86/packed_direct_avx512vnni.c \
	kernels/x86/packed_avx512vnni.h \
	kernels/x86/quantise_avx512vnni.c \
	kernels/x86/set_avx512vnni.c \
	kernels/x86/unpack_avx512vnni.c \
	kernels/x86/unpack_codes_avx512.h \
	kernels/x86/unpack_scales_avx512.h

kernels_libferrum_kernels_amx_la_CPPFLAGS = $(kernels_cppflags)
kernels_libferrum_kernels_amx_la_CFLAGS = $(AM_CFLAGS) $(avx512vnni_cflags) \
	-mamx-tile -mamx-int8
kernels_libferrum_kernels_amx_la_SOURCES = \
	kernels/x86/amx_tiles.h \
	kernels/x86/packed_amx.c \
	kernels/x86/packed_amx.h \
	kernels/x86/set_amx.c

kernels_libferrum_kernels_la_CPPFLAGS += -DFERRUM_HAVE_X86
kernels_libferrum_kernels_la_SOURCES += kernels/x86/cpu_features_x86.c
kernels_libferrum_kernels_la_LIBADD += kernels/libferrum-kernels-amx.la \
	kernels/libferrum-kernels-avx512vnni.la kernels/libferrum-kernels-avx512.la \
	kernels/libferrum-kernels-avxvnni.la kernels/libferrum-kernels-avx2.la
endif

if FERRUM_ARM
noinst_LTLIBRARIES += kernels/libferrum-kernels-neon.la kernels/libferrum-kernels-dotprod.la \
	kernels/libferrum-kernels-i8mm.la

kernels_libferrum_kernels_neon_la_CPPFLAGS = $(kernels_cppflags)
kernels_libferrum_kernels_neon_la_SOURCES = \
	kernels/arm/dequant_float_neon.c \
	kernels/arm/lanes_neon.h \
	kernels/arm/matmul_blocks_neon.c \
	kernels/arm/neon.h \
	kernels/arm/packed_neon.c \
	kernels/arm/packed_neon.h \
	kernels/arm/quantise_neon.c \
	kernels/arm/set_neon.c \
	kernels/arm/vector_neon.c

kernels_libferrum_kernels_dotprod_la_CPPFLAGS = $(kernels_cppflags)
kernels_libferrum_kernels_dotprod_la_CFLAGS = $(AM_CFLAGS) -march=armv8.2-a+dotprod
kernels_libferrum_kernels_dotprod_la_SOURCES = kernels/arm/packed_dotprod.c

kernels_libferrum_kernels_i8mm_la_CPPFLAGS = $(kernels_cppflags)
kernels_libferrum_kernels_i8mm_la_CFLAGS = $(AM_CFLAGS) -march=armv8.2-a+dotprod+i8mm
kernels_libferrum_kernels_i8mm_la_SOURCES = kernels/arm/packed_i8mm.c

kernels_libferrum_kernels_la_CPPFLAGS += -DFERRUM_HAVE_ARM
kernels_libferrum_kernels_la_SOURCES += kernels/arm/cpu_features_arm.c
kernels_libferrum_kernels_la_LIBADD += kernels/libferrum-kernels-i8mm.la \
	kernels/libferrum-kernels-dotprod.la kernels/libferrum-kernels-neon.la
endif
