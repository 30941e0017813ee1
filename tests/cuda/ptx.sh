#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What nvcc makes of the CUDA kernels keeps to the law: every operation on floats is rounded by itself,
# to nearest, with denormals. ptx.sh NVCC ROOT FLAGS...
set -euo pipefail

nvcc=$1
root=$2
shift 2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
wrong=0
operations=0

for source in "$root"/compress/cuda/*.cu; do
    ptx=$folder/$(basename "$source" .cu).ptx
    "$nvcc" -std=c++17 "$@" -I"$root" -I"$root/include" -arch=compute_80 -ptx "$source" \
        -o "$ptx"
    if grep -nE '\b(fma|mad)\.[a-z.]*f(32|64)|\.ftz|\.approx|\b(add|sub|mul|div)\.(full\.|r[zmp]\.|sat\.)?f(32|64)' \
        "$ptx" | head -n 5 | grep .; then
        echo "$(basename "$source"): the lines above round otherwise"
        wrong=1
    fi
    operations=$((operations + $(grep -cE '\b(add|sub|mul|div)\.rn\.f(32|64)' "$ptx" || true)))
done
echo "$operations operations on floats"
[ "$wrong" = 0 ] && [ "$operations" -gt 100 ]
