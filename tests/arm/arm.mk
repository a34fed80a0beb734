# SPDX-License-Identifier: MIT
# The kernels and their tests as static AArch64 programs. Run it in the directory that gets them, with
# src= and CC=; GNU make.
CFLAGS = -std=c11 -O2 -ffp-contract=off -fno-strict-aliasing -Wall -Wextra -Wno-unused-parameter -Werror
CPPFLAGS = -DFERRUM_HAVE_ARM -I$(src)/tests/arm -I$(src)/abi -I$(src)
tests = dequant gptq matmul packed select vector

# The flags of an ISA's library, as kernels/local.mk has them.
isa_flags = $(shell sed -n 's/^kernels_libferrum_kernels_$(1)_la_CFLAGS = $$(AM_CFLAGS) //p' \
	$(src)/kernels/local.mk)

sources = $(src)/kernels/select.c $(wildcard $(src)/kernels/scalar/*.c $(src)/kernels/arm/*.c) \
	$(src)/tests/kernels/fixture.c
objects = $(patsubst $(src)/%.c,%.o,$(sources))
programs = $(tests:%=test_%)
mains = $(programs:%=tests/kernels/%.o)

all: $(programs)
$(programs): %: tests/kernels/%.o $(objects)
	$(CC) -static -o $@ $^ -lm
%_dotprod.o: isa = $(call isa_flags,dotprod)
%_i8mm.o: isa = $(call isa_flags,i8mm)
$(objects) $(mains): %.o: $(src)/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(isa) -MMD -c $< -o $@
-include $(objects:.o=.d) $(mains:.o=.d)
