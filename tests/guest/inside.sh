#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# In the guest: what is tested there, part by part.
#
#   tests/guest/inside.sh BUILD [PART...]
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$1
shift
failed=()

# part NAME COMMAND...: its last lines, and how long it took; slow emulated CPUs make that no measure
# of anything else.
part() {
    local name=$1 start status=0
    shift
    start=$(cut -d. -f1 /proc/uptime)
    timeout -k 5 "${LIMIT:-150}" "$@" >/tmp/said 2>&1 || status=$?
    tail -n "${LINES_SHOWN:-40}" /tmp/said
    [ "$status" = 0 ] || failed+=("$name ($status)")
    echo "guest: $name: status $status, $(($(cut -d. -f1 /proc/uptime) - start)) s"
}
# said WORDS: the part that has just run must have said that.
said() {
    grep -qF "$1" /tmp/said || failed+=("a part that did not say \"$1\"")
}

# line COMMAND...: the same to both ends of the line.
line() {
    local end
    for end in veth0 veth1; do tc qdisc "$1" dev $end root "${@:2}"; done
}

part_transport() {
    CINCH_IB_HCA=rxe0 part transport "$build/tests/test_transport" verbs
}
# What every transport must do, with as much as slow CPUs can.
part_conform() {
    CINCH_TEST_MOST=$((16 << 20)) CINCH_TEST_PART=20 CINCH_IB_HCA=rxe0 part conform \
        "$build/tests/test_conform" verbs
}
part_verbs() {
    CINCH_IB_HCA=rxe0 part verbs "$build/tests/test_verbs" alone
    part limit "$build/tests/test_verbs" limit
    said 'ulimit -l'
}
part_calls() {
    CINCH_IB_HCA=rxe0 part calls "$build/tests/test_verbs_calls"
}
# All operations, and the codecs, between processes; the program judges the results itself.
part_operations() {
    local n op codec
    export CINCH_IB_HCA=rxe0
    for n in 2 4; do
        for op in allreduce reducescatter allgather broadcast reduce alltoall gather scatter \
            sendrecv; do
            LINES_SHOWN=4 part "$op, $n ranks" "$build/perf/cinch" perf $op -n $n \
                --transport verbs -b 8 -e 512K -f 256 -N 2 -w 1 -c 1
        done
        for codec in int8 topk:ratio=0.01; do
            LINES_SHOWN=2 part "$codec, $n ranks" env CINCH_CODEC_MIN_BYTES=1K "$build/perf/cinch" \
                perf allreduce -n $n --transport verbs -b 512K -e 512K -N 2 -w 1 -c 1 --codec $codec
        done
    done
    unset CINCH_IB_HCA
}
part_pair() {
    part pair "$build/tests/test_verbs" pair
    tc qdisc add dev veth1 root netem loss 3%
    CINCH_IB_TIMEOUT=15 part rails "$build/tests/test_verbs" rails
    tc qdisc del dev veth1 root
}
part_loss() {
    line add netem loss 5%
    CINCH_IB_TIMEOUT=15 part loss "$build/tests/test_verbs" loss
    local all=(env CINCH_TEST_MOST=$((4 << 20)) CINCH_TEST_PART=5 CINCH_IB_TIMEOUT=16
        CINCH_IB_HCA='rxa,rxb' "$build/tests/test_conform" verbs)
    part "conform, with loss" "${all[@]}"
    # rxe takes an answer that is late for one that is lost, and gives up after so many: on a machine
    # with other work that happens without a fault of anybody's, once in a while, but not twice.
    if [[ ${failed[*]: -1} == "conform, with loss ("* ]] &&
        grep -qE ':[FE]:.*transport retry counter exceeded' /tmp/said; then
        echo "guest: once more, since rxe has given up a connection while packets were lost"
        unset 'failed[-1]'
        part "conform, with loss, once more" "${all[@]}"
    fi
    line del
}
part_cut() {
    part cut "$build/tests/test_verbs" cut
}


"$here/devices.sh" || exit 1
[ $# -gt 0 ] || set -- transport conform verbs calls operations pair loss cut
for name in "$@"; do "part_$name"; done
[ ${#failed[@]} = 0 ] || echo "guest: failed: ${failed[*]}"
[ ${#failed[@]} = 0 ]
