#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Real launchers: the cinch program under mpirun of Open MPI and MPICH and under torchrun, on one
# machine with no other setting; a user's own MPI program; and mpirun over two hosts, which are
# network namespaces of this script's own and gone at its end.
#
#   tests/mpirun.sh KIND CINCH LIBRARY INCLUDE [hosts]      KIND: openmpi, mpich or torchrun
set -uo pipefail

kind=$1 cinch=$2 library=$3 include=$4 where=${5:-here}
folder=$(mktemp -d)
one='' two=''
bad=0
quick=(perf allreduce -b 1K -e 1K -N 1 -w 0)

leave() {
    rm -rf "$folder"
    [ -z "$one" ] || ip netns del "$one" 2>"/dev/null"
    [ -z "$two" ] || ip netns del "$two" 2>"/dev/null"
}
trap leave EXIT

skip() {
    echo "skipped: $*"
    exit 77
}

fail() {
    echo "mpirun: $kind: $*"
    bad=$((bad + 1))
}

# start N COMMAND...: as a user would; at most 60 s.
start() {
    local n=$1
    shift
    case $kind in
    openmpi)
        timeout -k 5 60 mpirun.openmpi --allow-run-as-root --oversubscribe "${hosts[@]}" -n "$n" "$@"
        ;;
    mpich) timeout -k 5 60 mpirun.mpich "${hosts[@]}" -n "$n" "$@" ;;
    torchrun)
        timeout -k 5 60 /usr/bin/python3 -c "$torchrun" --no_python --nproc_per_node "$n" \
            --master_port "$port" --monitor_interval 0.1 "$@"
        ;;
    esac
}

# gives STATUS TIMES WORDS COMMAND...: start's COMMAND ends with that status and, so often, the words.
gives() {
    local want=$1 times=$2 words=$3 out status=0 got
    shift 3
    out=$(start "$@" 2>&1) || status=$?
    [ "$status" = "$want" ] || fail "'$*' ended with status $status, not $want: ${out:0:999}"
    got=$(grep -cF -- "$words" <<<"$out")
    [ "$got" = "$times" ] || fail "'$*' said '$words' $got times, not $times: ${out:0:999}"
}

own_program() {
    "mpicc.$kind" -I"$include" -o "$folder/own" "$(dirname "$0")/mpi_own.c" \
        -L"$library" -lcinch "-Wl,-rpath,$library" || fail "the user's program does not compile"
    gives 0 1 "own program: 3 ranks, sum 6" 3 "$folder/own"
}

# It takes a second to start: a part is enough.
under_torchrun() {
    gives 0 1 "all 1 lines passed" 3 "$cinch" "${quick[@]}"
    gives 0 1 "rank 1 of 2" 2 "$cinch" run sh -c "echo rank \$CINCH_RANK of \$CINCH_SIZE"
    gives 1 0 "passed" 2 sh -c "[ \$LOCAL_RANK != 1 ] || exit 5; exec '$cinch' ${quick[*]}"
}

here() {
    gives 0 1 " 4 ranks" 4 "$cinch" "${quick[@]}"
    gives 0 1 "all 1 lines passed" 4 "$cinch" "${quick[@]}"
    gives 0 1 " 2 ranks" 1 "$cinch" "${quick[@]}" # a single rank starts two here
    gives 0 3 " 2 ranks" 3 "$cinch" "${quick[@]}" -n 2
    gives 0 1 "loss_first" 2 "$cinch" train --steps 2 --codecs none --json -
    # Ranks that find each other again and again, and over sockets.
    gives 0 3 "all 1 lines passed" 3 \
        sh -c "for i in 1 2 3; do '$cinch' ${quick[*]} --transport tcp || exit 1; done"
    gives 0 1 "rank 1 of 2" 2 "$cinch" run sh -c "echo rank \$CINCH_RANK of \$CINCH_SIZE"

    # Two jobs at once; then one whose rank dies, and one right after it.
    start 2 "$cinch" "${quick[@]}" >"$folder/first" 2>&1 &
    local first=$!
    gives 0 1 "all 1 lines passed" 3 "$cinch" "${quick[@]}"
    wait "$first" || fail "two jobs at once: $(cat "$folder/first")"
    if start 2 sh -c "[ \"\$PMI_RANK\$OMPI_COMM_WORLD_RANK\" != 1 ] || kill -9 \$\$
        exec '$cinch' ${quick[*]}" >"/dev/null" 2>&1; then
        fail "a killed rank went unnoticed"
    fi
    gives 0 1 "all 1 lines passed" 2 "$cinch" "${quick[@]}"
    own_program
}

# Two hosts, each a namespace with a name of its own; mpirun reaches the second by an agent in place
# of ssh.
two_hosts() {
    one=cn$$a two=cn$$b
    command -v ip >"/dev/null" || skip "no ip here (package iproute2)"
    if ! { ip netns add "$one" && ip netns add "$two" &&
        ip link add eth0 netns "$one" type veth peer name eth0 netns "$two"; } 2>"$folder/why"; then
        skip "no network namespaces here: $(head -n 1 "$folder/why")"
    fi
    ip -n "$one" addr add 10.77.1.1/24 dev eth0
    ip -n "$two" addr add 10.77.1.2/24 dev eth0
    for name in "$one" "$two"; do
        ip -n "$name" link set eth0 up
        ip -n "$name" link set lo up
    done
    cat >"$folder/agent" <<AGENT
#!/bin/sh
while [ "\${1#-}" != "\$1" ]; do shift; done
name=$one
[ "\$1" = 10.77.1.2 ] && name=$two
shift
exec ip netns exec \$name unshare --uts sh -c "hostname \$name; \$*"
AGENT
    chmod +x "$folder/agent"
    ip netns exec "$one" unshare --uts sh -c \
        "hostname $one; '$0' $kind '$cinch' '$library' '$include' '$folder/agent'" || bad=1
}

over_hosts() {
    if [ "$kind" = openmpi ]; then
        hosts=(-x CINCH_COMM_ID --mca plm_rsh_agent "$where" --host "10.77.1.1:2,10.77.1.2:2")
    else
        hosts=(-launcher ssh -launcher-exec "$where" -hosts "10.77.1.1:2,10.77.1.2:2")
    fi
    gives 2 1 "not all on one machine: set CINCH_COMM_ID=" 4 "$cinch" "${quick[@]}"
    CINCH_COMM_ID=10.77.1.1:4711#$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    export CINCH_COMM_ID
    gives 0 1 "all 1 lines passed" 4 "$cinch" "${quick[@]}"
    gives 0 1 " shm,tcp " 4 "$cinch" "${quick[@]}"
}

# torchrun's own main. Debian 12's PyTorch cannot start anything with its Python, for which 0 is no
# member of a set of flags; so that is put right first.
torchrun="
from torch.distributed.elastic.multiprocessing import api
api.Std.from_str = classmethod(lambda c, v: c(int(v)))
from torch.distributed.run import main
main()"
hosts=()
port=$((20000 + $$ % 20000))
if [ "$kind" = torchrun ]; then
    /usr/bin/python3 -c "import torch.distributed.run" 2>"/dev/null" || skip "no PyTorch here"
else
    command -v "mpirun.$kind" >"/dev/null" || skip "no mpirun.$kind here"
fi
unset CINCH_COMM_ID NCCL_COMM_ID CINCH_RANK CINCH_SIZE
case $where in
here) if [ "$kind" = torchrun ]; then under_torchrun; else here; fi ;;
hosts) two_hosts ;;
*) over_hosts ;;
esac
[ "$bad" = 0 ] || exit 1
