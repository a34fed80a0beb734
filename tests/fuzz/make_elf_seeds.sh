#!/bin/sh
# SPDX-License-Identifier: MIT
# Writes the corpus of the ELF checks: shared objects as small as the linker makes them.
# Usage: make_elf_seeds.sh CORPUS_DIRECTORY
set -eu
out=$1/elf
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/plain.c" <<'END'
int ferrum_plugin_query_v1(void);
int ferrum_plugin_query_v1(void) { return 0; }
END
cat >"$work/rich.c" <<'END'
void *malloc(unsigned long);
int pthread_create(void *, void *, void *, void *);
extern int pthread_key_create(void *, void *);
_Thread_local int per_thread = 3;
static int zero;
static int *table[] = {&zero, &zero};
__attribute__((constructor)) static void start(void) { zero = 1; }
__attribute__((destructor)) static void stop(void) { zero = 2; }
int ferrum_plugin_query_v1(void);
int ferrum_plugin_query_v1(void)
{
    return malloc(1) != 0 && table[zero] && !pthread_create(0, 0, 0, 0) && per_thread &&
           pthread_key_create(0, 0);
}
END
sed 's/query_v1/query_v2/' "$work/plain.c" >"$work/other.c"
printf 'V1 { global: ferrum_plugin_query_v1; local: *; };\n' >"$work/map"

# NAME SOURCE LINKER_FLAGS...
make_one()
{
    name=$1 source=$2
    shift 2
    ${CC:-cc} -shared -fPIC -Os -fno-asynchronous-unwind-tables -nostartfiles \
        -Wl,-z,max-page-size=4096,-z,noseparate-code,--build-id=none "$@" \
        -o "$work/$name" "$work/$source"
    strip "$work/$name"
    cp "$work/$name" "$out/$name"
    chmod 644 "$out/$name"
}

make_one plain plain.c -nostdlib
make_one other-major other.c -nostdlib
make_one rich rich.c -Wl,-z,now,-z,relro,--version-script="$work/map"
make_one lazy rich.c -Wl,-z,lazy,-z,norelro,-z,nodelete
make_one sysv-hash rich.c -Wl,--hash-style=sysv,-soname,x.so,-rpath,/nowhere
make_one packed-relocations rich.c -Wl,-z,pack-relative-relocs
# Without section headers: what is left when somebody strips harder.
head -c "$(od -An -t u8 -j 40 -N 8 "$out/rich" | tr -d ' ')" "$out/rich" >"$out/no-sections"
printf '\000\000\000\000\000\000\000\000' | dd of="$out/no-sections" bs=1 seek=40 conv=notrunc status=none
printf '\000\000\000\000\000\000' | dd of="$out/no-sections" bs=1 seek=58 conv=notrunc status=none
