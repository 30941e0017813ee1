#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the fuzz targets with Clang, and runs each for so many seconds, two at a time:
# run.sh SECONDS [NAME...]. Inputs that fail, and what was said of them, stay in the build's folder
# "crashes"; what was found to be new in "corpus". CINCH_FUZZ_BUILD names the build's folder.
set -euo pipefail
root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd)
seconds=${1:?run.sh SECONDS [NAME...]}
shift
build=${CINCH_FUZZ_BUILD:-$root/build/fuzz}
for variable in "${!CINCH_@}" "${!NCCL_@}"; do unset "$variable"; done
mkdir -p "$build/crashes" "$build/corpus"

targets=(fuzzers test_readers)
if pkg-config --exists jansson; then targets+=(test_planfile); fi
if ! {
    cmake -S "$root" -B "$build" -DCINCH_FUZZ=ON -DCINCH_CUDA=OFF -DCMAKE_BUILD_TYPE=Fuzz \
        -DCMAKE_C_COMPILER="${CLANG:-clang-14}" -DCMAKE_C_FLAGS="-O1 -gline-tables-only" &&
        cmake --build "$build" --parallel "$(nproc)" --target "${targets[@]}"
} >"$build/build.log" 2>&1; then
    tail -n 30 "$build/build.log"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi

names=("$@")
if [ ${#names[@]} = 0 ]; then
    for target in "$build"/tests/fuzz/fuzz_*; do
        if [ -x "$target" ] && [ -f "$target" ]; then names+=("${target##*/fuzz_}"); fi
    done
fi

# seeds NAME FOLDER: what the target begins with.
seeds() {
    case $1 in
    auto | nccl | hwloc | nvsmi | graph) "$build/tests/test_readers" --corpus "$2" ;;
    planfile) "$build/tests/test_planfile" --corpus "$2" ;;
    *) "$build/tests/fuzz/replay_$1" --corpus "$2" ;;
    esac
}

export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1
one() {
    local name=$1 corpus=$build/corpus/$1 log=$build/crashes/$1.log dict=()
    mkdir -p "$corpus"
    seeds "$name" "$corpus" >"$log" 2>&1 || return 1
    if [ -e "$root/tests/fuzz/$name.dict" ]; then dict=("-dict=$root/tests/fuzz/$name.dict"); fi
    # -timeout: what takes longer than that counts as hanging.
    "$build/tests/fuzz/fuzz_$name" "$corpus" "${dict[@]}" -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=2048 -max_len=8192 -artifact_prefix="$build/crashes/$name-" \
        -print_final_stats=1 >"$log" 2>&1
}

passed=0
failed=0
finish() {
    local name=$1 status=0
    wait "$2" || status=$?
    if [ "$status" = 0 ]; then
        passed=$((passed + 1))
        echo "$name: $(grep -E 'number_of_executed_units' "$build/crashes/$name.log" |
            grep -oE '[0-9]+$') inputs, $(grep -oE 'cov: [0-9]+' "$build/crashes/$name.log" |
            tail -n 1 | grep -oE '[0-9]+$') branches"
        rm -f "$build/crashes/$name.log"
    else
        failed=$((failed + 1))
        echo "failed: $name"
        grep -E -A 12 'ERROR|runtime error|^[a-z].*$' "$build/crashes/$name.log" | tail -n 40
    fi
}

before='' before_pid=''
for name in "${names[@]}"; do
    one "$name" </dev/null &
    pid=$!
    if [ -n "$before" ]; then finish "$before" "$before_pid"; fi
    before=$name before_pid=$pid
done
if [ -n "$before" ]; then finish "$before" "$before_pid"; fi
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
