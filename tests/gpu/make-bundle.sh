#!/bin/sh
# SPDX-License-Identifier: MIT
# Put together what a machine with an NVIDIA GPU needs to test and measure the cuda backend, and
# nothing else: no compiler, no toolkit, no libraries beyond the system's C library.
# Usage: make-bundle.sh BUILD_DIR TARGET_DIR   (TARGET_DIR is made; a tar file appears beside it)
set -eu
build=$(cd "$1" && pwd)
target=$2
source=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
most_bytes=52428800

fail()
{
    echo "make-bundle: $*" >&2
    exit 1
}

for file in .libs/ferrum .libs/libferrum.so.0 backends/cpu/.libs/cpu.so backends/cuda/.libs/cuda.so; do
    [ -e "$build/$file" ] || fail "$build/$file is missing: build with nvcc first"
done
rm -rf "$target" "$target.tar.gz"
mkdir -p "$target/bin" "$target/lib" "$target/libc" "$target/plugins" "$target/models"
cp "$build/.libs/ferrum" "$target/bin/"
cp "$build/backends/cpu/.libs/cpu.so" "$build/backends/cuda/.libs/cuda.so" "$target/plugins/"
cp "$source"/models/*.gguf "$target/models/"
cp -R "$source/models/tiny-qwen3moe-gptq" "$target/models/"
mkdir "$target/peers"
cp "$source"/tests/gpu/peers/*.py "$target/peers/"
cp "$source/LICENSE" "$source/tests/gpu/README.md" "$source/tests/gpu/run.sh" \
    "$source/tests/gpu/ferrum" "$target/"
chmod +x "$target/run.sh" "$target/ferrum"

# Every library that the programs are linked with. Those of the C library go apart: ./ferrum uses
# them only where the system's are too old.
export LD_LIBRARY_PATH="$build/.libs"
for file in "$target"/bin/* "$target"/plugins/*.so; do
    ldd "$file"
done | sed -n 's/.*=> *\(not found\).*/\1/p; s/.*=> *\(\/[^ ]*\) .*/\1/p; s/^[ \t]*\(\/[^ ]*\) .*/\1/p' |
    sort -u >"$target/libraries"
! grep -q 'not found' "$target/libraries" || fail "a library is missing here"
while read -r library; do
    case ${library##*/} in
    ld-linux* | libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.*)
        cp -L "$library" "$target/libc/"
        ;;
    *) cp -L "$library" "$target/lib/" ;;
    esac
done <"$target/libraries"
rm "$target/libraries"
# What a driver may ask for besides.
for library in "$target"/libc/libc.so.*; do
    real=$(ldd "$build/.libs/ferrum" | sed -n 's/.*=> *\(\/[^ ]*\)\/libc\.so\..*/\1/p')
    cp -L "$real"/libdl.so.2 "$real"/libpthread.so.0 "$real"/librt.so.1 "$target/libc/"
done
strip --strip-unneeded "$target"/bin/* "$target"/lib/*.so* "$target"/plugins/*.so

{
    echo "version $(sed -n 's/^AC_INIT(\[ferrum\], \[\(.*\)\])/\1/p' "$source/configure.ac")"
    echo "commit $(git -C "$source" rev-parse HEAD 2>/dev/null || echo unknown)"
    echo "nvcc $("$(sed -n 's/^NVCC = *//p' "$build/Makefile")" --version | sed -n 's/.*release \([^,]*\),.*/\1/p')"
    echo "libc $(ldd --version | sed -n '1s/.* //p')"
} >"$target/BUILD"

tar -C "$(dirname "$target")" -czf "$target.tar.gz" "$(basename "$target")"
bytes=$(wc -c <"$target.tar.gz")
[ "$bytes" -le "$most_bytes" ] || fail "$target.tar.gz has $bytes bytes, $most_bytes are the limit"
echo "$target.tar.gz: $((bytes / 1048576)) MiB; unpack it on the machine with the GPU, run ./run.sh OUTDIR"
