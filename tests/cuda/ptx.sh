#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What nvcc makes of the CUDA kernels: every operation on floats is rounded by itself, to nearest, with
# denormals; no kernel keeps registers in local memory; every kernel that streams through memory reads
# and writes 16 bytes at once, as many times without a branch between as it is meant to.
# ptx.sh NVCC ROOT FLAGS...
set -euo pipefail

nvcc=$1
root=$2
shift 2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
wrong=0
operations=0
kernels=0
looked=0
known=$("$(dirname "$nvcc")/ptxas" --help)

# Kernel, and how many 16-byte loads at least one piece of straight code must have. One-byte types have
# one load for each of two sources, others two; the rest reads rows of four elements, four at a time, or
# two for small blocks. start and measure read next to nothing; topk_sum is bound by shared memory.
wanted() {
    case $1 in
    *start_kernel* | *measure_kernel* | *topk_sum_kernel*) echo 0 ;;
    *reduce_kernel*f8e* | *reduce_kernel*integerIa* | *reduce_kernel*integerIh*) echo 1 ;;
    *reduce_kernel* | *encode_kernelILi*Li1ELi2E*) echo 2 ;;
    *) echo 4 ;;
    esac
}

# Of every kernel in a PTX file: its name, the longest run of 16-byte loads, 16-byte stores.
count_wide() {
    awk '
        /\.entry/ { sub(/.*\.entry /, ""); sub(/\(.*/, ""); name = $0; most = run = stores = 0 }
        /^\$L|^\t@?.*bra/ { run = 0 }
        /ld\.(global\.)?(nc\.)?(v4\.[bfus]32|v2\.[bfus]64)/ { if (++run > most) most = run }
        /st\.(global\.)?(v4\.[bfus]32|v2\.[bfus]64)/ { stores++ }
        /^}/ { if (name) print name, most, stores; name = "" }' "$1"
}

# Of every kernel, what ptxas says for a GPU: its name, registers, bytes of spills.
resources() {
    "$(dirname "$nvcc")/ptxas" -v -arch="$1" "$2" -o /dev/null 2>&1 | awk '
        /Compiling entry/ { split($0, part, "\047"); name = part[2] }
        /bytes spill/ { match($0, /[0-9]+ bytes spill stores/); spill += substr($0, RSTART) + 0 }
        /Used [0-9]+ registers/ { match($0, /Used [0-9]+/); print name, substr($0, RSTART + 5) + 0, spill + 0; spill = 0 }'
}

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
    while read -r name loads stores; do
        kernels=$((kernels + 1))
        least=$(wanted "$name")
        if [ "$loads" -lt "$least" ] || { [ "$least" -gt 0 ] && [ "$stores" = 0 ] &&
            [[ $name == *reduce* || $name == *sum* || $name == *encode* ]]; }; then
            echo "$name: $loads loads of 16 bytes in a row, $least wanted; $stores stores"
            wrong=1
        fi
    done < <(count_wide "$ptx")
    for gpu in sm_90 sm_100; do
        [[ $known == *"$gpu"* ]] || continue
        resources "$gpu" "$ptx" >"$folder/resources"
        while read -r name registers spill; do
            looked=$((looked + 1))
            [ -z "${PTX_TABLE:-}" ] || echo "$gpu $registers registers, $spill bytes spilled: $name"
            [ "$spill" = 0 ] || { echo "$name spills $spill bytes on $gpu"; wrong=1; }
        done <"$folder/resources"
    done
done
echo "$operations operations on floats, $kernels kernels"
[ "$wrong" = 0 ] && [ "$operations" -gt 100 ] && [ "$kernels" -gt 60 ] && [ "$looked" -ge "$kernels" ]
