#!/bin/sh
# SPDX-License-Identifier: MIT
# Run `ferrum bench moe` beside a peer's program, in turns, and print the ratio pair by pair.
#
#   beside.sh [-f FORMAT] [-n TOKENS,...] [-t THREADS] [-r ROUNDS] [-s SECONDS] [-o OPTIONS]
#             PEER [ARGUMENT...]
#
# The peer is a program that does the work of the bench (routed experts of one layer, shapes and
# routing alike, weights rotated over as many layers). It prints "ready", then for each token count
# that it reads from its standard input one line with "us=NUMBER", its median time of one layer.
# In its arguments {format}, {threads} and {layers} are replaced. Both programs keep their weights
# for the whole run, so that a pair of measurements is about a second apart: shared machines change
# their speed, ratios within a pair hardly do.
#
# FERRUM names the program to run (default: ferrum); OPTIONS go to its `bench moe`.
set -eu

format=q4_k tokens=1,8,32,128,512 threads=2 rounds=5 seconds=0.4 layers=8 options=
usage() {
    sed -n 's/^# \{0,1\}//; 3,7p' "$0" >&2
    exit 2
}
while getopts f:n:t:r:s:l:o: flag; do
    case $flag in
    f) format=$OPTARG ;;
    n) tokens=$OPTARG ;;
    t) threads=$OPTARG ;;
    r) rounds=$OPTARG ;;
    s) seconds=$OPTARG ;;
    l) layers=$OPTARG ;;
    o) options=$OPTARG ;;
    *) usage ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || usage

dir=$(mktemp -d)
ours= theirs=
cleanup() {
    for program in $ours $theirs; do
        kill "$program" 2>/dev/null || :
        kill -CONT "$program" 2>/dev/null || :
    done
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
mkfifo "$dir/a.in" "$dir/a.out" "$dir/b.in" "$dir/b.out"

for argument; do
    shift
    set -- "$@" "$(printf '%s\n' "$argument" |
        sed "s/{format}/$format/g; s/{threads}/$threads/g; s/{layers}/$layers/g")"
done
# shellcheck disable=SC2086 # options are words
"${FERRUM:-ferrum}" bench moe --requests --format "$format" --tokens "$tokens" -t "$threads" \
    --layers "$layers" --seconds "$seconds" $options <"$dir/a.in" >"$dir/a.out" 2>"$dir/a.log" &
ours=$!
"$@" <"$dir/b.in" >"$dir/b.out" 2>"$dir/b.log" &
theirs=$!
exec 3>"$dir/a.in" 4<"$dir/a.out" 5>"$dir/b.in" 6<"$dir/b.out"

# ask WHO TO FROM [REQUEST]: one line of WHO's answers.
answer=
ask() {
    if [ "$1" = ferrum ]; then asked=$ours; else asked=$theirs; fi
    kill -CONT "$asked" 2>/dev/null || :
    if [ $# -eq 4 ]; then echo "$4" >&"$2"; fi
    if ! read -r answer <&"$3"; then
        echo "beside.sh: $1 stopped:" >&2
        tail -n 3 "$dir/$([ "$1" = ferrum ] && echo a || echo b).log" >&2
        exit 1
    fi
    kill -STOP "$asked" 2>/dev/null || :
}
ask ferrum 3 4
ask peer 5 6
cat "$dir/a.log"

field() { printf '%s\n' "$answer" | sed -n "s/.*\\b$1=\\([0-9.e+-]*\\).*/\\1/p"; }
echo "| format | tokens | threads | limit us | ours us | x limit | peer us | x limit | peer/ours: min | median | max |"
echo "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
for n in $(echo "$tokens" | tr , ' '); do
    : >"$dir/pairs"
    round=0
    while [ "$round" -lt "$rounds" ]; do
        ask ferrum 3 4 "$n"
        us=$(field us) limit=$(field limit)
        ask peer 5 6 "$n"
        echo "$us $limit $(field us)" >>"$dir/pairs"
        round=$((round + 1))
    done
    awk -v format="$format" -v n="$n" -v threads="$threads" '
        function median(v, count,    i, j, t) {
            for (i = 1; i <= count; i++)
                for (j = i + 1; j <= count; j++)
                    if (v[j] < v[i]) { t = v[i]; v[i] = v[j]; v[j] = t }
            return count % 2 ? v[(count + 1) / 2] : (v[count / 2] + v[count / 2 + 1]) / 2
        }
        { a[NR] = $1; l[NR] = $2; b[NR] = $3; r[NR] = $3 / $1; x[NR] = $1 / $2; y[NR] = $3 / $2 }
        END {
            m = median(r, NR)
            printf "| %s | %d | %d | %.0f | %.0f | %.2f | %.0f | %.2f | %.2f | %.2f | %.2f |\n",
                format, n, threads, median(l, NR), median(a, NR), median(x, NR), median(b, NR),
                median(y, NR), r[1], m, r[NR]
        }' "$dir/pairs"
done
