#!/bin/sh
# SPDX-License-Identifier: MIT
# What the compiler made of every CUDA kernel, compared with cuda-evidence.tsv: registers, spills and
# local memory as ptxas reported them, and the instructions of the main loop on sm_90a as cuda_mix
# counts them in the image. A kernel that is not in the table, more registers than there, or another
# main loop is an error: look at it, then `make update-cuda-evidence` and commit the table.
# Usage: cuda-evidence.sh [--table]     --table: print the table of this build instead
#
# Registers may not grow. In the main loop matrix instructions, packed products and copies are to be
# the same, the rest within 10 % or 4. What another version of nvcc makes is not comparable: then only
# names, spills, local and shared memory are.
set -eu
image=$FERRUM_TEST_BUILDDIR/kernels/cuda/image.fatbin
mix=$FERRUM_TEST_BUILDDIR/tests/checks/cuda_mix
table=$FERRUM_TEST_SRCDIR/tests/checks/cuda-evidence.tsv
if [ ! -e "$image" ] || [ ! -x "$mix" ]; then
    echo "skipped: this build has no cuda backend (nvcc)"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
nvcc=$(sed -n 's/^NVCC = *//p' "$FERRUM_TEST_BUILDDIR/Makefile")
version=$("$nvcc" --version | sed -n 's/.*release [^,]*, V\(.*\)/\1/p')

# Kernels that one generation has: for the others the table has no number.
only=$(sed -n 's/^    X([a-z0-9_]*, \([a-z0-9_]*\), ACT_SM90A).*/ ferrum_\1 /p' \
    "$FERRUM_TEST_SRCDIR/backends/cuda/kernel_list.h" | tr -d '\n')
"$mix" "$image" >"$work/mix"
# Weights of a warp's matrix instructions: 16 outputs by k, for every 8 rows once more but with
# wgmma, whose rows are of one instruction. Kernels for int8 take a tile of 16 by 64 of each matrix.
awk -v version="$version" -v only="$only" '
    BEGIN { FS = OFS = "\t" }
    FILENAME ~ /\.log$/ {
        n = split($0, w, " ")
        if (/Compiling entry function/) {
            gsub("\047", "")
            split($0, w, " ")
            for (i = 1; i < n; i++) {
                if (w[i] == "function") kernel = w[i + 1]
                if (w[i] == "for") arch = w[i + 1]
            }
        } else if (/bytes stack frame/) {
            local_bytes[kernel] += w[1]
            spill[kernel] += w[5] + w[9]
        } else if (/ Used [0-9]+ registers/) {
            match($0, /Used [0-9]+/)
            registers[kernel, arch] = substr($0, RSTART + 5, RLENGTH - 5)
            if (match($0, /[0-9]+ bytes smem/))
                shared[kernel] += substr($0, RSTART, RLENGTH) + 0
        }
        next
    }
    FNR == 1 {
        print "# nvcc " version
        print "# Made by `make update-cuda-evidence`. Registers; bytes that are spilled or local, of static shared"
        print "# memory (all GPUs), of dynamic shared memory where it is fixed. Then of sm_90a: instructions in all,"
        print "# in the main loop, on the shortest and the longest way around it, in the loop by class; weights of a"
        print "# warp on that way; issue slots per 256 weights."
        head = $1 OFS "sm_80" OFS "sm_89" OFS "sm_90a" OFS "sm_120" OFS "spill" OFS "local" OFS "static"
        for (i = 2; i <= NF; i++) {
            head = head OFS $i
            column[$i] = i
        }
        print head, "weights", "slots_least", "slots_most"
        next
    }
    {
        line = family = $1
        sub(/_b?f16$/, "", family)
        split("sm_80 sm_89 sm_90a sm_120", archs, " ")
        for (i = 1; i <= 4; i++) {
            if (archs[i] != "sm_90a" && index(only, " " family " ")) {
                line = line OFS "-"
                continue
            }
            if (!(($1, archs[i]) in registers)) {
                print "ptxas says nothing about " $1 " for " archs[i] >"/dev/stderr"
                exit 1
            }
            line = line OFS registers[$1, archs[i]] + 0
        }
        line = line OFS spill[$1] + 0 OFS local_bytes[$1] + 0 OFS shared[$1] + 0
        for (i = 2; i <= NF; i++)
            line = line OFS $i
        weights = 0
        if ($1 ~ /^ferrum_(w4|gguf)_(.*_)?[0-9]+_b?f16$/) {
            rows = $1
            sub(/_b?f16$/, "", rows)
            sub(/.*_/, "", rows)
            rows += 0
            blocks = rows < 8 ? 1 : rows / 8
            weights = $column["hgmma"] * 256 + \
                $column["hmma"] * 256 / blocks
        }
        if ($1 ~ /^ferrum_int8_(.*_)?[0-9]+$/)
            weights = $1 ~ /gate_up/ ? 2048 : 1024
        if (weights > 0)
            print line, weights, sprintf("%.1f", $column["least"] * 256 / weights), \
                sprintf("%.1f", $column["most"] * 256 / weights)
        else
            print line, "-", "-", "-"
    }' "$image.log" "$work/mix" >"$work/all"
sed '/^kernel/q' "$work/all" >"$work/now"
sed '1,/^kernel/d' "$work/all" | LC_ALL=C sort >>"$work/now"
if [ "${1-}" = --table ]; then
    cat "$work/now"
    exit
fi

bad=0
awk '
    BEGIN { FS = "\t" }
    FNR == 1 {
        file++
        sub(/^# nvcc /, "")
        version[file] = $0
        next
    }
    /^#/ { next }
    $1 == "kernel" {
        for (i = 1; i <= NF; i++)
            name[file, i] = $i
        for (i = 1; i <= NF; i++)
            if (file == 2 && name[1, i] != $i)
                layout = 1
        same = version[1] == version[2] && !layout
        next
    }
    layout { next }
    file == 1 {
        row[$1] = $0
        next
    }
    !($1 in row) {
        print $1 " is not in tests/checks/cuda-evidence.tsv: run `make update-cuda-evidence`"
        bad = 1
        next
    }
    {
        seen[$1] = 1
        complaints = ""
        split(row[$1], old, FS)
        for (i = 2; i <= NF; i++) {
            what = name[2, i]
            if (what ~ /^(spill|local|static|dynamic)$/) {
                if ($i > old[i] + 0)
                    complaints = complaints ", " what " bytes " old[i] " -> " $i
            } else if (!same || what ~ /^(all|loop|weights|slots_.*)$/) {
                continue
            } else if (what ~ /^sm_/) {
                if ($i + 0 > old[i] + 0)
                    complaints = complaints ", registers on " what " " old[i] " -> " $i
                fewer += $i + 0 < old[i] + 0
            } else {
                by = $i > old[i] + 0 ? $i - old[i] : old[i] - $i
                allowed = what ~ /^(hgmma|hmma|imma|idp|copy)$/ ? 0 : old[i] * 0.1 > 4 ? old[i] * 0.1 : 4
                if (by > allowed)
                    complaints = complaints ", " what " in the main loop " old[i] " -> " $i
            }
        }
        if (complaints != "") {
            print $1 ": " substr(complaints, 3)
            bad = 1
        }
    }
    END {
        for (kernel in row)
            if (!layout && !(kernel in seen)) {
                printf "%s is in tests/checks/cuda-evidence.tsv only: run `make update-cuda-evidence`\n", kernel
                bad = 1
            }
        if (layout)
            print "the columns of the table are not those of this check: run `make update-cuda-evidence`"
        else if (!same)
            printf "not compared: registers and main loops, of nvcc %s in the table, %s here\n", version[1], version[2]
        if (fewer > 0)
            printf "fewer registers than in the table in %d places: `make update-cuda-evidence` keeps it so\n", fewer
        exit bad || layout
    }' "$table" "$work/now" || bad=1

# What cuda_mix takes for an instruction, by the word of a disassembler.
disassembler=$(command -v cuobjdump || echo "${nvcc%/*}/cuobjdump")
for kernel in ferrum_combine_f16 ferrum_attention_decode_64_bf16 ferrum_w4_8_f16; do
    if [ ! -x "$disassembler" ]; then
        echo "not compared with a disassembler: there is no cuobjdump here"
        break
    fi
    "$mix" "$image" $kernel | awk '{ n[$1] += $2 } END { for (o in n) print o, n[o] }' |
        LC_ALL=C sort >"$work/ours"
    "$disassembler" -sass -arch sm_90a -fun $kernel "$image" | awk '
        NR == FNR { known[$1]; next }
        /^[ \t]*\/\*[0-9a-f]+\*\/ / {
            sub(/^[ \t]*\/\*[0-9a-f]+\*\/[ \t]*(@!?U?P[0-9T]+[ \t]+)?/, "")
            sub(/[^A-Z0-9_].*/, "")
            if ($0 in known)
                n[$0]++
        }
        END { for (o in n) print o, n[o] }' "$work/ours" - | LC_ALL=C sort >"$work/theirs"
    if ! diff "$work/ours" "$work/theirs"; then
        echo "cuda_mix and cuobjdump read $kernel differently"
        bad=1
    fi
done
exit $bad
