#!/bin/sh
# SPDX-License-Identifier: MIT
# What ptxas said about every kernel, for every GPU that has code in the image: nothing spilled, no
# local memory, no static shared memory, few registers, no products of warpgroups one after the other;
# and every kernel is there for all of them, or for the one generation that it is made for.
# The image is small. And PTX is written in one header only.
set -eu
image=$FERRUM_TEST_BUILDDIR/kernels/cuda/image.fatbin
[ -e "$image" ] || { echo "skipped: this build has no cuda backend (nvcc)"; exit 77; }
bad=0

for file in "$FERRUM_TEST_SRCDIR"/kernels/cuda/*; do
    case ${file##*/} in device_ptx*.cuh) continue ;; esac
    if sed 's|//.*||; s|/\*.*\*/||; /\/\*/,/\*\//d' "$file" | grep -nE '\basm\b|__asm'; then
        echo "$file has PTX; it belongs in kernels/cuda/device_ptx*.cuh"
        bad=1
    fi
done

bytes=$(wc -c <"$image")
if [ "$bytes" -gt 16777216 ]; then
    echo "the image has $bytes bytes, 16 MiB are the limit"
    bad=1
fi

# So many registers leave room for three blocks of 128 threads on a multiprocessor. A kernel that
# needs more, or local memory, is listed here: name without its dtype, registers, local bytes, reason.
exceptions='
ferrum_w4_gate_up_64 240 0 sums of 64 rows for two matrices stay in registers; two blocks fit
'
list=$(sed -n 's/^    X([a-z0-9_]*, \([a-z0-9_]*\), \([A-Z0-9_]*\)).*/\1 \2/p' \
    "$FERRUM_TEST_SRCDIR/backends/cuda/kernel_list.h" |
    awk '{ archs = $2 ~ /_SM90A$/ ? "sm_90a" : "sm_80 sm_89 sm_90a sm_120"
        if ($2 == "ANY") print "ferrum_" $1, archs
        else print "ferrum_" $1 "_f16", archs "\nferrum_" $1 "_bf16", archs }')
awk -v exceptions="$exceptions" -v list="$list" '
    function complain(what)
    {
        printf "%s for %s %s\n", kernel, arch, what
        bad = 1
    }
    BEGIN {
        for (n = split(exceptions, line, "\n"); n > 0; n--)
            if (split(line[n], w, " ") > 3) {
                registers[w[1]] = w[2]
                local_bytes[w[1]] = w[3]
            }
        for (i = split(list, names, "\n"); i > 0; i--)
            for (n = split(names[i], archs, " "); n > 1; n--)
                wanted[archs[1], archs[n]] = 1
    }
    /Potential Performance Loss/ {
        print
        bad = 1
        next
    }
    /Compiling entry function/ {
        gsub("\047", "")
        for (i = 1; i < NF; i++) {
            if ($i == "function")
                kernel = $(i + 1)
            if ($i == "for")
                arch = $(i + 1)
        }
        family = kernel
        sub(/_b?f16$/, "", family)
        delete wanted[kernel, arch]
        kernels += arch == "sm_90a"
        seen++
        next
    }
    /Function properties for/ {
        if ($NF != kernel) { # two compilers wrote at once, or a function was not inlined
            kernel = $NF
            complain("has lines out of order: is it a function that was not inlined?")
        }
        next
    }
    /bytes stack frame/ {
        checked++
        if ($1 > local_bytes[family] + 0)
            complain("uses " $1 " bytes of local memory")
        if ($5 + $9 > 0)
            complain("spills: " $0)
    }
    / Used [0-9]+ registers/ {
        match($0, /Used [0-9]+/)
        used = substr($0, RSTART + 5, RLENGTH - 5) + 0
        most = family in registers ? registers[family] : 168
        if (used > most)
            complain("uses " used " registers, " most " are the limit")
        if (match($0, /[0-9]+ bytes smem/))
            complain("has static shared memory: " substr($0, RSTART, RLENGTH))
    }
    / bytes gmem/ && !/ 0 bytes gmem/ { complain("or another kernel has global variables: " $0) }
    END {
        for (key in wanted) {
            split(key, w, SUBSEP)
            printf "%s is not compiled for %s\n", w[1], w[2]
            bad = 1
        }
        if (checked != seen) {
            printf "%d kernels, %d of them with a line about spills: is this script right?\n", seen, checked
            bad = 1
        }
        printf "%d kernels, compiled %d times for 4 generations of GPUs\n", kernels, seen
        exit bad
    }' "$image.log" || bad=1
exit $bad
