#!/bin/sh
# SPDX-License-Identifier: MIT
# Build Ferrum with sanitizers beside the main build and run its tests there.
# Kind fuzz builds the fuzz harnesses with clang's libFuzzer and runs them.
# Usage: sanitize.sh asan|tsan|fuzz BUILD_DIR [CONFIGURE_ARGUMENT]...
# The top of the source tree is FERRUM_TEST_SRCDIR, make is MAKE.
set -eu
kind=$1
dir=$2
shift 2
src=$FERRUM_TEST_SRCDIR

case $kind in
asan) list=address,undefined ;;
tsan) list=thread ;;
fuzz)
    list=fuzzer-no-link,address,undefined
    CC=${FUZZ_CC:-clang}
    CXX=${FUZZ_CXX:-clang++}
    export CC CXX
    ;;
esac

mkdir -p "$dir"
cd "$dir"

# Some kernels and containers cannot run a sanitized program at all; that is a skip, not a failure.
cat >sanitizer-works.c <<'EOF'
int main(void)
{
    return 0;
}
EOF
probe=$list
if [ "$kind" = fuzz ]; then
    probe=fuzzer,address,undefined
    echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return 0; }' >sanitizer-works.c
    arguments=-runs=1
fi
if ! "$src/build-aux/test-driver" --test-name "sanitizer-works ($kind)" \
    --log-file sanitizer-works.log --trs-file sanitizer-works.trs -- \
    sh -c "${CC:-gcc} -fsanitize=$probe sanitizer-works.c -o sanitizer-works && ./sanitizer-works ${arguments-} || exit 77"; then
    exit 1
fi
if grep -q '^:test-result: SKIP' sanitizer-works.trs; then
    cat sanitizer-works.log
    exit 0
fi

if [ ! -f config.status ] || [ "$(cat configured-with 2>/dev/null)" != "$*" ]; then
    "$src/configure" --quiet --enable-sanitizers="$list" "$@" CFLAGS='-O1 -g'
    printf '%s\n' "$*" >configured-with
fi

case $kind in
asan) exec $MAKE check ;;
tsan) exec $MAKE check-threaded ;;
fuzz) exec $MAKE run-fuzz FUZZ="$FUZZ" FUZZ_SECONDS="$FUZZ_SECONDS" ;;
esac
