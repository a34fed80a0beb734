#!/bin/sh
# SPDX-License-Identifier: MIT
# Hosts and plugins of this minor and of the next one, in all combinations. The next minor is made
# from this one's headers by next-minor.awk: every struct and every table is longer.
set -eu
src=$FERRUM_TEST_SRCDIR
build=$FERRUM_TEST_BUILDDIR
cc=${CC:-cc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0

mkdir -p "$work/abi/ferrum" "$work/plugin"
for header in "$src"/abi/ferrum/*.h; do
    awk -f "$src/tests/abi/next-minor.awk" "$header" >"$work/abi/ferrum/${header##*/}"
done
cp -R "$src"/plugin/*.[ch] "$src/plugin/include" "$work/plugin"
rm "$work/plugin/ferrum_probe.c"
# The loader's one list of entries learns the new ones, as it would by hand.
awk '/^#undef FERRUM_OP$/ {
        n = split("backend quant_llm linear stacked_experts marlin_stack moe_fused", table, " ")
        for (i = 1; i <= n; i++)
            printf "FERRUM_OP(%s, added_in_next_minor, OPTIONAL, (ferrum_context_t * ctx, ferrum_error_t *err))\n", table[i]
    }
    { print }' "$src/plugin/ops.def" >"$work/plugin/ops.def"

common="-std=c11 -O0 -fPIC -fvisibility=hidden"
$cc $common -I"$work/abi" -I"$work/plugin/include" -DFERRUM_PKGLIBDIR='"/nowhere"' \
    -DFERRUM_PKGLIBEXECDIR='"/nowhere"' "$work"/plugin/*.c "$src/tests/abi/host.c" -o "$work/next-host" \
    -lm -ldl -lpthread
plugin() # name, flags, source
{
    # shellcheck disable=SC2086 # flags
    $cc $common -shared $2 "$3" -o "$work/$1.so" -Wl,-z,now
}
plugin this "-I$src/abi" "$src/backends/metal-stub/metal_stub.c"
plugin next "-I$work/abi" "$src/backends/metal-stub/metal_stub.c"
# One that uses the new entry, and one that cannot do without a new host.
sed 's/^static const ferrum_backend_ops_t backend_ops = {/static ferrum_status_t added(ferrum_context_t *ctx, ferrum_error_t *err)\
{\
    return ctx \&\& err ? FERRUM_OK : FERRUM_INVALID_ARGUMENT;\
}\
\
&\
    .added_in_next_minor = added,/' "$src/backends/metal-stub/metal_stub.c" >"$work/newer.c"
plugin newer "-I$work/abi" "$work/newer.c"
sed 's/\.abi_minor_min = 0/.abi_minor_min = FERRUM_ABI_MINOR/' "$src/backends/metal-stub/metal_stub.c" >"$work/needs.c"
plugin needs "-I$work/abi" "$work/needs.c"

expect() # exit status, text, host, plugin
{
    rc=0
    "$3" "$4" >"$work/out" 2>&1 || rc=$?
    if [ $rc -ne "$1" ] || ! grep -q "$2" "$work/out"; then
        echo "FAIL ${3##*/} ${4##*/}: exit $rc, expected $1 and \"$2\""
        sed 's/^/    /' "$work/out"
        bad=1
    fi
}
host=$build/tests/abi/host
cpu=$build/backends/cpu/.libs/cpu.so
expect 0 "host minor 0, plugin metal-stub minor 0" "$host" "$work/this.so"
expect 0 "host minor 0, plugin metal-stub minor 1" "$host" "$work/next.so"
expect 0 "host minor 1, plugin metal-stub minor 0" "$work/next-host" "$work/this.so"
expect 0 "host minor 1, plugin metal-stub minor 1" "$work/next-host" "$work/next.so"
expect 0 "added_in_next_minor is stub" "$work/next-host" "$work/this.so"
expect 0 "added_in_next_minor is native" "$work/next-host" "$work/newer.so"
expect 0 "unloaded: no mapping" "$host" "$work/newer.so"
expect 1 "needs 1.1 or later; this libferrum has 1.0" "$host" "$work/needs.so"
expect 0 "unloaded: no mapping" "$work/next-host" "$work/needs.so"

# A plugin that computes: the same bits in either host.
expect 0 "rms_norm status 0" "$host" "$cpu"
grep bits "$work/out" >"$work/bits"
expect 0 "rms_norm status 0" "$work/next-host" "$cpu"
grep bits "$work/out" | cmp - "$work/bits" || bad=1

# And the suite of this minor holds a plugin of the next one to the contract.
"$build/ferrum" check-plugin --cycles 5 --timeout 250 "$work/newer.so" >"$work/out" 2>&1 || {
    cat "$work/out"
    bad=1
}
[ $bad -eq 0 ] && echo "hosts and plugins of two minors work together"
exit $bad
