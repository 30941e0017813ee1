#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# cinch.h says what NCCL 2.28's nccl.h says. nccl.sh ROOT recorded: nccl_values.c, its names changed,
# compiles with cinch.h and prints nccl_values.txt, which NCCL's header gave. nccl.sh ROOT installed:
# an nccl.h that is here gives the same, and has no constant that nccl_values.c leaves out.
# shellcheck source=files.sh
. "$(dirname "${BASH_SOURCE[0]}")/files.sh"

kind=${2:-recorded}
program=$root/tests/lint/nccl_values.c
recorded=$root/tests/lint/nccl_values.txt
strict=(-std=c11 -Wall -Wextra -Werror)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

ours() { sed 's/nccl/cinch/g; s/NCCL/CINCH/g' "$1"; }
# differ A B: what the second prints and the first does not, and the other way round.
differ() {
    lint_found "$(diff "$1" "$2" | sed -n "s|^< |$3: |p; s|^> |$4: |p")"
}

if [ "$kind" = recorded ]; then
    ours "$program" >"$work/ours.c"
    ours "$recorded" >"$work/wanted"
    if said=$("${CC:-gcc}" "${strict[@]}" -pedantic -DSTREAM_IS_OURS -I"$root/include/cinch" \
        -o "$work/ours" "$work/ours.c" 2>&1); then
        "$work/ours" >"$work/got"
        differ "$work/wanted" "$work/got" "NCCL has" "cinch.h has"
    else
        lint_found "cinch.h: a program for NCCL does not compile: $(grep error <<<"$said")"
    fi
    lint_end "$(wc -l <"$recorded") values"
fi

# Only for the include path: this project builds nothing with CUDA.
for folder in ${CUDA_HOME:+"$CUDA_HOME/include"} /usr/include /usr/local/cuda/include; do
    [ -f "$folder/nccl.h" ] && [ -f "$folder/cuda_runtime.h" ] && break
    folder=
done
[ -n "$folder" ] || lint_skip "no nccl.h with a cuda_runtime.h beside it; set CUDA_HOME"
version=$(sed -n 's/^#define NCCL_VERSION_CODE *//p' "$folder/nccl.h")
[ "${version%??}" = 228 ] || lint_skip "$folder/nccl.h is of version $version, not of 2.28"

"${CC:-gcc}" "${strict[@]}" -isystem "$folder" -o "$work/theirs" "$program"
"$work/theirs" >"$work/got"
differ "$recorded" "$work/got" "recorded" "nccl.h has"

# Every enumerator, macro and field of a public struct.
{
    grep -oE '^#define NCCL_[A-Z0-9_]+' "$folder/nccl.h" | sed 's/#define //' |
        grep -vxE 'NCCL_H_|NCCL_(CONFIG|SIM_INFO)_INITIALIZER'
    grep -oE '\bnccl[A-Za-z0-9_]+ *= *[0-9]' "$folder/nccl.h" | sed 's/ *=.*//'
    awk '/^typedef struct nccl.*\{/, /^ *\}/' "$folder/nccl.h" | grep -oE '[ *][A-Za-z]+;' |
        tr -d ' *;'
} | sort -u >"$work/names"
while IFS= read -r name; do
    grep -qE "(^|[^A-Za-z_])$name([^A-Za-z_]|\$)" "$recorded" ||
        lint_found "nccl_values.c: $name of nccl.h is left out"
done <"$work/names"
lint_end "$folder/nccl.h"
