#!/bin/sh
# SPDX-License-Identifier: MIT
# Draw the roofline of `ferrum bench moe` as an SVG picture (needs gnuplot).
#
#   ferrum bench moe -o csv >bench.csv; roofline.sh bench.csv [PEER.csv] >roofline.svg
#
# x: operations per byte of weights that a call reads; y: operations per second. The roof is what
# the machine reaches: its read bandwidth times x, and its int8 peak (medians over the rows). A
# row's label is its token count. PEER.csv holds lines "tokens,microseconds" of another program on
# the same work.
set -eu
[ $# -ge 1 ] || { sed -n '3,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
points=$(mktemp) peer=$(mktemp)
trap 'rm -f "$points" "$peer"' EXIT
# tokens, operations per byte, Gop/s, roof at that intensity
awk -F, -v peers="${2:-}" -v peer_out="$peer" '
    BEGIN { while (peers != "" && (getline line < peers) > 0) { split(line, p, ","); us[p[1]] = p[2] } }
    NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
    {
        gops = $at["gops"]; gbps = $at["weight_gbps"]; n = $at["tokens"]
        roof = gops * $at["times_limit"]
        print n, gops / gbps, gops, roof
        if (n in us) print n, gops / gbps, gops * $at["us_median"] / us[n] > peer_out
    }' "$1" >"$points"
gnuplot <<GNUPLOT
set terminal svg size 760,460 font "sans-serif,13" background "white"
set logscale xy
set xlabel "operations per byte of weights"
set ylabel "Gop/s"
set key bottom right
set grid
plot "$points" using 2:4 with lines lw 2 lc "#888888" title "limit of the machine", \
     "$points" using 2:3 with linespoints pt 7 lc "#0060ad" title "ferrum", \
     "$points" using 2:3:(sprintf("%d", \$1)) with labels offset 0,1 notitle\
$([ -s "$peer" ] && printf ', "%s" using 2:3 with linespoints pt 5 lc "#dd6622" title "fastest peer"' "$peer")
GNUPLOT
