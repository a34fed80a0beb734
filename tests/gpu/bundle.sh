#!/bin/sh
# SPDX-License-Identifier: MIT
# The bundle for machines with a GPU: it is complete, and its script works in an empty environment,
# tried on the emulated driver.
set -eu
build=$FERRUM_TEST_BUILDDIR
emulator=$build/tests/cuda_emu/.libs/libcuda-emu.so
if [ ! -e "$build/backends/cuda/.libs/cuda.so" ] || [ ! -e "$emulator" ]; then
    echo "skipped: this build has no cuda backend (nvcc) or no emulated driver (g++)"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sh "$FERRUM_TEST_SRCDIR/tests/gpu/make-bundle.sh" "$build" "$work/ferrum-gpu"

# From here on only what the tar file has.
rm -rf "$work/ferrum-gpu"
tar -C "$work" -xzf "$work/ferrum-gpu.tar.gz"
cd "$work/ferrum-gpu"
bad=0
for file in bin/* lib/* plugins/*; do
    for needed in $(objdump -p "$file" | awk '$1 == "NEEDED" { print $2 }'); do
        [ -e "lib/$needed" ] || [ -e "libc/$needed" ] || {
            echo "$file needs $needed, which is not in the bundle"
            bad=1
        }
    done
done
[ $bad = 0 ] || exit 1

run()
{
    env -i PATH="$PATH" sh ./run.sh --emulator "$1" "$work/results" || {
        cat "$work/results"/*.err
        return 1
    }
}

run "$emulator"
for file in summary info conformance bench-gptq4 bench-q4_k bench-q4_k-fast bench-q6_k bench-q6_k-fast tokens-gptq; do
    [ -s "$work/results/$file.json" ] || { echo "$file.json is missing or empty"; bad=1; }
done
grep -q '"passed": true' "$work/results/summary.json" || bad=1
grep -q '"step": "peers", "status": "failed"' "$work/results/summary.json" && {
    cat "$work/results/peers.err"
    bad=1
}
if run /nonexistent/libcuda.so >"$work/out" 2>&1; then
    echo "run.sh is content without a driver:"
    cat "$work/out"
    bad=1
fi

# With the bundle's own C library, as on an older system.
env -i PATH="$PATH" libc/ld-linux-*.so.? --library-path libc:lib bin/ferrum --version || bad=1
exit $bad
