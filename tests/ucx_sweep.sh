#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All nine operations, and the codecs int8 and topk, over ucx on 2, 4 and 8 ranks: no element wrong,
# the same bits again, and on all ranks where all get the same.
#
#   tests/ucx_sweep.sh CINCH
set -uo pipefail

cinch=$1
bad=0
lines=0

# measure LINES OPERATION RANKS ARGUMENTS...: so many lines are expected, and nothing is wrong in them.
measure() {
    local expected=$1 operation=$2 ranks=$3 out count wrong part same=null
    case $operation in allreduce | allgather | broadcast) same=true ;; esac
    shift 3
    if ! out=$("$cinch" perf "$operation" -n "$ranks" -c 1 -w 0 -N 1 --json - --transport ucx "$@" 2>&1); then
        echo "$operation, $ranks ranks, $*: cinch perf failed"
        bad=$((bad + 1))
    fi
    count=$(grep -c '^{' <<<"$out")
    wrong=$(for part in '"transport":"ucx"' '"repeatable":true' '"wrong":\(0\|null\)[,}]' \
        "\"ranks_identical\":$same" "\"ranks\":${ranks}[,}]"; do
        grep '^{' <<<"$out" | grep -v "$part"
    done)
    if [ -n "$wrong" ] || [ "$count" -ne "$expected" ]; then
        echo "$operation, $ranks ranks, $*: $count lines of $expected, of which bad:"
        head -5 <<<"$wrong"
        grep -v '^{' <<<"$out" | grep cinch | head -5
        bad=$((bad + 1))
    fi
    lines=$((lines + count))
}

for ranks in 2 4 8; do
    for operation in allreduce reducescatter allgather broadcast reduce alltoall gather scatter sendrecv; do
        measure 4 $operation $ranks -b 4 -e 1M -f 64
    done
    for codec in int8 topk:ratio=0.01; do
        for operation in allreduce reducescatter; do
            measure 1 $operation $ranks -b 1M -e 1M --codec $codec
        done
    done
done
echo "$lines measurements, $bad with something wrong"
[ "$bad" -eq 0 ]
