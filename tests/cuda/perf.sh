#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `cinch perf --device cuda` with the emulated GPU: every operation, checked against its reference.
#
#   tests/cuda/perf.sh CINCH_EMULATED
set -euo pipefail
program=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# measure OP OPTION...: all lines pass, and say where the buffers were.
measure() {
    echo "perf $*"
    "$program" perf "$@" --device cuda -b 4 -e 70000 -f 130 -w 1 -N 1 --json "$scratch/lines" \
        >/dev/null
    [ "$(grep -c '"device":"cuda"' "$scratch/lines")" -eq 3 ]
    ! grep -q '"wrong":[1-9]' "$scratch/lines"
}

# One hardware queue for all streams of a priority, the narrowest that a GPU can be.
export CUDA_FAKE_QUEUES=1
seed=0
for op in allreduce reducescatter allgather broadcast reduce alltoall gather scatter sendrecv; do
    CUDA_FAKE_SEED=$((seed += 1)) measure "$op" -n 2
done
measure allreduce -n 3 -p 1
measure allreduce -n 2 -d half -o avg
CINCH_CODEC_MIN_BYTES=1 measure allreduce -n 2 --codec int8
CINCH_CODEC_MIN_BYTES=1 measure allreduce -n 3 -p 1 --codec topk:ratio=0.05,select=global

# Beside a product on the GPU: both right, and the figures fit each other.
measure allreduce -n 2 --overlap
[ "$(grep -c '"hidden_frac":-*[0-9].*"overlap_together_us":[0-9]' "$scratch/lines")" -eq 3 ]
