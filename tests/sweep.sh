#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every datatype and operator at every size, on 2, 3, 4 and 8 ranks over shm and tcp: no element
# wrong, all ranks the same bits, the same bits again.
#
#   tests/sweep.sh CINCH [LARGEST]     LARGEST: 1M; 64M for the whole sweep
set -uo pipefail

cinch=$1
largest=${2:-1M}
bad=0
lines=0
last=$(numfmt --from=iec "$largest")
sizes=0
for ((size = 4; size <= last; size *= 4)); do sizes=$((sizes + 1)); done
expected=$((72 * sizes)) # 12 datatypes, 6 operators
for transport in shm tcp; do
    for ranks in 2 3 4 8; do
        if ! out=$("$cinch" perf allreduce -n "$ranks" -b 4 -e "$largest" -f 4 -c 1 -w 0 -N 2 \
            -d all -o all --transport "$transport" --json - 2>&1); then
            echo "$ranks ranks over $transport: cinch perf failed"
            bad=$((bad + 1))
        fi
        count=$(grep -c '^{' <<<"$out")
        wrong=$(grep '^{' <<<"$out" | grep -v '"wrong":0[,}]')
        wrong+=$(grep '^{' <<<"$out" | grep -v '"ranks_identical":true')
        wrong+=$(grep '^{' <<<"$out" | grep -v '"repeatable":true')
        wrong+=$(grep '^{' <<<"$out" | grep -v "\"ranks\":${ranks}[,}]")
        wrong+=$(grep '^{' <<<"$out" | grep -v "\"transport\":\"$transport\"")
        if [ -n "$wrong" ] || [ "$count" -ne "$expected" ]; then
            echo "$ranks ranks over $transport: $count lines of $expected, of which bad:"
            head -5 <<<"$wrong"
            grep -v '^{' <<<"$out" | grep -v '^#' | grep -E 'cinch' | head -5
            bad=$((bad + 1))
        fi
        lines=$((lines + count))
    done
done
echo "$lines measurements, $bad sweeps with something wrong"
[ "$bad" -eq 0 ]
