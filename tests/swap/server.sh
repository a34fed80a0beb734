#!/bin/sh
# SPDX-License-Identifier: MIT
# The example server, and `ferrum generate --swap-at`: cpu for a copy of itself, and cuda on the
# emulated driver where it was built.
set -u
build=$FERRUM_TEST_BUILDDIR
model=$FERRUM_TEST_SRCDIR/models/tiny-qwen3moe-q4_k.gguf
server=$build/docs/examples/server_swap
ferrum=$build/ferrum
cpu=$build/backends/cpu/.libs/cpu.so
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset FERRUM_BACKEND FERRUM_LOG_LEVEL
FERRUM_THREADS=1
export FERRUM_THREADS
bad=0

complain()
{
    echo "FAIL $*"
    sed 's/^/  /' "$work/out" "$work/err" | head -8
    bad=1
}

[ -e "$cpu" ] || { echo "skipped: $cpu was not built"; exit 77; }
cp "$cpu" "$work/copy.so"
echo "not a plugin" >"$work/text.so"

# Two swaps and one that fails, which the clients do not notice.
FERRUM_BACKEND=cpu "$server" "$model" "$work/copy.so" "$work/text.so" cpu >"$work/out" 2>"$work/err" ||
    complain "the server"
[ "$(grep -c '^cpu -> cpu .*unloaded' "$work/out")" -eq 2 ] || complain "the server: not two swaps"
grep -q '^still cpu: .*open step.*text.so' "$work/out" || complain "the server: no failed swap"
grep -q ' 0 failed, 0 with other tokens' "$work/out" || complain "the server: requests differ"
sed 's/^/server: /' "$work/out"

# The text is the same with and without.
generate()
{
    "$ferrum" generate -b cpu -m "$model" -p "In the beginning" -n 16 --temperature 0 "$@" \
        >"$work/out" 2>"$work/err"
}
generate || complain "generate"
cp "$work/out" "$work/plain"
generate --swap-at 4 "$work/copy.so" --swap-at 9 cpu || complain "generate --swap-at"
cmp -s "$work/out" "$work/plain" || complain "the text changes with the backend"
[ "$(grep -c '^ferrum: swapped cpu for cpu after [49] tokens: paused .* ms' "$work/err")" -eq 2 ] ||
    complain "--swap-at is not reported"
generate --json --swap-at 4 cpu || complain "generate --json --swap-at"
grep -q '"swaps": ' "$work/out" && grep -q '"pause_ms"' "$work/out" || complain "--json has no swaps"
generate --swap-at 99 cpu || complain "--swap-at beyond the end"
grep -q 'swap-at 99: only 16 tokens' "$work/err" || complain "a missed swap is not mentioned"

# Errors are one line.
expect()
{
    want=$1 word=$2
    shift 2
    generate "$@"
    got=$?
    [ "$got" -eq "$want" ] || complain "$*: exit $got, expected $want"
    [ "$(wc -l <"$work/err")" -eq 1 ] && grep -q "^ferrum: .*$word" "$work/err" ||
        complain "$*: no line that says \"$word\""
}
expect 2 "name the backend" --swap-at 3
expect 2 "1 or more" --swap-at 0 cpu
expect 2 "1 or more" --swap-at x cpu
expect 2 "unexpected" --swap-at 3 cpu extra
expect 3 "open step.*nosuch" --swap-at 3 nosuch
expect 3 "open step.*text.so" --swap-at 3 "$work/text.so"

# To cuda and back.
cuda=$build/backends/cuda/.libs/cuda.so
FERRUM_CUDA_DRIVER=$build/tests/cuda_emu/.libs/libcuda-emu.so
if [ -e "$cuda" ] && [ -e "$FERRUM_CUDA_DRIVER" ]; then
    export FERRUM_CUDA_DRIVER
    generate --swap-at 5 "$cuda" --swap-at 7 "$cpu" || complain "generate: cpu, cuda, cpu"
    cmp -s "$work/out" "$work/plain" || complain "the text changes with cuda"
    grep -q 'swapped cpu for cuda' "$work/err" && grep -q 'swapped cuda for cpu' "$work/err" ||
        complain "the swaps to cuda and back are not reported"
    sed 's/^/generate: /' "$work/err"
else
    echo "without cuda: this build has no cuda backend or no emulated driver"
fi
exit $bad
