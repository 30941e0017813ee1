#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every operation on every datatype, and every operator where it reduces, on 2, 3, 4 and 8 ranks over
# shm and tcp, apart and in place: no element wrong, nothing written around the result, the same
# bits again, and on all ranks where all get the same.
#
#   tests/sweep.sh CINCH [LARGEST]     LARGEST: 1M; 64M for the whole sweep
#
# Up to 1M it takes fewer sizes than the whole sweep does, and says which: from 4 bytes on by 4 for
# all-reduce, by 8 for the others, by 64 in place. The root is rank 0, in place the last.
set -uo pipefail

cinch=$1
largest=${2:-1M}
last=$(numfmt --from=iec "$largest")
bad=0
lines=0

# sweep OPERATION SAME OPERATORS IN-PLACE FACTOR: over both transports. SAME: true where all ranks get
# the same result, else null.
sweep() {
    local operation=$1 same=$2 operators=$3 in_place=$4 factor=$5
    local sizes=0 size expected transport ranks out count wrong begun=$SECONDS
    local -a unless root
    [ "$last" -le $((1 << 20)) ] || factor=4
    for ((size = 4; size <= last; size *= factor)); do sizes=$((sizes + 1)); done
    expected=$((12 * operators * sizes)) # 12 datatypes
    for transport in shm tcp; do
        for ranks in 2 3 4 8; do
            local name="$operation, $ranks ranks over $transport, in place $in_place"
            root=()
            case $operation in
                broadcast | reduce | gather | scatter) root=(-r $((in_place * (ranks - 1)))) ;;
            esac
            if ! out=$("$cinch" perf "$operation" -n "$ranks" -b 4 -e "$largest" -f "$factor" \
                -c 1 -p "$in_place" -w 0 -N 1 -d all -o all "${root[@]}" --json - \
                --transport "$transport" 2>&1); then
                echo "$name: cinch perf failed"
                bad=$((bad + 1))
            fi
            count=$(grep -c '^{' <<<"$out")
            unless=('"wrong":0[,}]' "\"ranks_identical\":$same" '"repeatable":true'
                "\"ranks\":${ranks}[,}]" "\"op\":\"$operation\"" "\"transport\":\"$transport\"")
            wrong=$(for part in "${unless[@]}"; do grep '^{' <<<"$out" | grep -v "$part"; done)
            if [ -n "$wrong" ] || [ "$count" -ne "$expected" ]; then
                echo "$name: $count lines of $expected, of which bad:"
                head -5 <<<"$wrong"
                grep -v '^{' <<<"$out" | grep -v '^#' | grep -E 'cinch' | head -5
                bad=$((bad + 1))
            fi
            lines=$((lines + count))
        done
    done
    echo "$operation, in place $in_place: $sizes sizes from 4 to $largest by $factor," \
        "$((SECONDS - begun)) s"
}

sweep allreduce true 6 0 4
sweep allreduce true 6 1 64
for operation in reducescatter reduce; do
    sweep $operation null 6 0 8
    sweep $operation null 6 1 64
done
for operation in allgather broadcast; do
    sweep $operation true 1 0 8
    sweep $operation true 1 1 64
done
for operation in gather scatter; do
    sweep $operation null 1 0 8
    sweep $operation null 1 1 64
done
for operation in alltoall sendrecv; do
    sweep $operation null 1 0 8
done
echo "$lines measurements, $bad sweeps with something wrong"
[ "$bad" -eq 0 ]
