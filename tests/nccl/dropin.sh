#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The NCCL drop-in from outside. dropin.sh KIND FOLDER DROPIN LIBCINCH CINCH: FOLDER holds the
# callers and the imitations of libraries (CMakeLists.txt), DROPIN is our libnccl.so.2. KIND is one
# of the functions test_KIND below. CC and CFLAGS are those of the build.
set -euo pipefail
export LC_ALL=C

kind=${1:?the kind of test}
built=${2:?the folder of the callers}
dropin=${3:?our libnccl.so.2}
libcinch=${4:?libcinch.so}
cinch=${5:?the cinch program}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
CC=${CC:-cc}
CFLAGS=${CFLAGS:-}
for variable in $(compgen -e | grep -E '^(CINCH|NCCL)_' || true); do unset "$variable"; done
unset LD_LIBRARY_PATH LD_PRELOAD

[ -x "$built/nccl_opener" ] || {
    echo "skipped: the callers are not built (they are with the other tests, where Check is found)"
    exit 77
}

cases=0
fail() {
    echo "nccl_$kind: $*"
    exit 1
}
skip() {
    echo "skipped: $*"
    exit 77
}
sanitized() { [[ $CFLAGS == *-fsanitize=$1* ]]; }

# A sanitizer's library comes before all others.
runtime=
if sanitized address; then
    runtime=$("$CC" -print-file-name=libasan.so)
    [ -e "$runtime" ] || runtime=
fi
preload=${runtime:+$runtime:}$dropin

# before VAR=VALUE... PROGRAM ARGUMENTS...: runs it with the drop-in before everything else; what it
# says is in $work/out and $work/err.
before() {
    cases=$((cases + 1))
    local status=0
    timeout 60 env LD_PRELOAD="$preload" "$@" >"$work/out" 2>"$work/err" || status=$?
    [ "$status" = 0 ] || { cat "$work/out" "$work/err"; fail "status $status of: $*"; }
}
# says FILE TEXT / silent FILE: what is there after the last run.
says() { grep -qF -- "$2" "$work/$1" || { cat "$work/out" "$work/err"; fail "not said: $2"; }; }
silent() { [ ! -s "$work/$1" ] || { cat "$work/$1"; fail "nothing was to be said"; }; }
# is TEXT: the whole of what was printed.
is() { diff <(printf '%s\n' "$1") "$work/out" || fail "other lines than wanted (<) are there (>)"; }

forward=CINCH_NCCL_MODE=forward
native=CINCH_NCCL_MODE=native
exports() { nm -D --defined-only "$1" | awk '$2 != "A" { sub("@.*", "", $3); print $3 }' | sort; }

# The real library, where one is at hand.
real_library() {
    local folder
    for folder in ${CUDA_HOME:+"$CUDA_HOME/lib" "$CUDA_HOME/lib64"} /usr/local/cuda/lib \
        /usr/local/cuda/lib64 /usr/lib/x86_64-linux-gnu /usr/lib/aarch64-linux-gnu; do
        if [ -f "$folder/libnccl.so.2" ]; then
            echo "$folder/libnccl.so.2"
            return
        fi
    done
}

# Every name of the list is exported, and nothing else but the mark; every name of the real library is.
test_names() {
    local list=$root/coll/nccl/names.inc real
    {
        sed -nE 's/^(OURS|LACKS)\(([A-Za-z0-9]+),.*/nccl\2\npnccl\2/p' "$list"
        sed -nE 's/^ONLY\(([A-Za-z0-9]+),.*/nccl\1/p' "$list"
        echo cinchNcclDropin
    } | sort >"$work/wanted"
    [ "$(wc -l <"$work/wanted")" -gt 150 ] || fail "the list is not read"
    exports "$dropin" >"$work/ours"
    diff "$work/wanted" "$work/ours" || fail "other names than listed (<) are exported (>)"
    readelf -dW "$dropin" >"$work/dynamic"
    grep -q 'SONAME.*\[libnccl.so.2\]' "$work/dynamic" || fail "the SONAME is not libnccl.so.2"
    ! grep -E 'TEXTREL|R(UN)?PATH' "$work/dynamic" || fail "that is not for a library like this"
    readelf -lW "$dropin" | grep -q 'GNU_STACK.* RW ' || fail "its stack can be executed"
    ! nm -D --undefined-only "$dropin" | grep cinch || fail "it looks outside for what it has"
    cases=5
    real=$(real_library)
    [ -n "$real" ] || skip "the list and the SONAME are right; no real libnccl.so.2 to compare with"
    exports "$real" | grep -E '^p?nccl' >"$work/real"
    lacking=$(comm -13 "$work/ours" "$work/real")
    [ -z "$lacking" ] || fail "exported by $real and not by us:" "$lacking"
    cases=$((cases + $(wc -l <"$work/real")))
}

# What is called reaches the real library as it is, the first time too, and so does what comes back.
test_calls() {
    local caller=$built/nccl_caller_runpath
    before "$forward" "$caller" registers
    is 'fake: 1 2 3 4 5 6 0.5 1.5 2.5 3.5 4.5 5.5 6.5 7.5 7 8.5 id whole
0.5'
    before "$forward" "$caller" variadic
    is '14: 1 2.5 3.5 four'
    before "$forward" "$caller" init
    is 'fake: init 5 of 7, id whole
0, comm 0x1234
fake: init 1 of 2, id whole'
    before "$forward" "$caller" group
    is 'fake: {
fake: all-reduce 0x10 0x20 1099511627776 7 2 0x1234 0x99
fake: {
fake: p all-reduce (nil) 0x30 3 1 4 0x5678 (nil)
fake: }
fake: }
0'
    before "$forward" "$caller" async
    is 'fake: state of 0x1234
0, state 6'
    before "$forward" "$caller" team
    is 'team: 8 3 1
rank: 8317
fake: reset'
    if ! sanitized address && ! sanitized thread; then
        before "$forward" "$caller" itself
        is 'fake: calls itself, and got 0 when it was loaded'
    fi
    # With another malloc that would part what malloc and free know. A call that comes back before
    # the library is there is refused.
    preload=$preload:$built/libnccl_malloc.so before "$forward" "$caller" itself
    is 'fake: calls another library, and got 5 when it was loaded'
    before LD_BIND_NOW=1 "$forward" "$caller" version
    is 'version: 0 23456
error string: fake: an error
last error: '
    silent err
}

finds() { # finds VERSION VAR=VALUE... PROGRAM: that version is called
    local version=$1
    shift
    before "$forward" "$@" version
    says out "version: 0 $version"
    silent err
}

# Which library is the real one.
test_search() {
    local other=$built/other/libnccl.so.2 cached
    local runpath=$built/nccl_caller_runpath rpath=$built/nccl_caller_rpath
    local pathless=$built/nccl_caller_pathless
    finds 23456 "$runpath"
    finds 23456 "$rpath"
    finds 23456 "$built/nccl_opener" "$built/libnccl_caller_module.so"
    # LD_LIBRARY_PATH comes between RPATH and RUNPATH, as the loader has it.
    finds 23456 LD_LIBRARY_PATH="$built/other" "$rpath"
    finds 23901 LD_LIBRARY_PATH="$built/other" "$runpath"
    finds 23901 LD_LIBRARY_PATH="/nowhere::$built/other" "$pathless"
    finds 23901 CINCH_NCCL_PATH="$other" "$rpath"
    finds 23901 CINCH_NCCL_PATH="$built/other" LD_LIBRARY_PATH="$built/private" "$runpath"
    # One that is loaded already goes before others.
    preload=$preload:$other finds 23901 "$rpath"
    # What is no library of this kind is passed by, and so is the drop-in, on the library path too.
    mkdir "$work/text" "$work/copy"
    echo 'no library' >"$work/text/libnccl.so.2"
    cp "$dropin" "$work/copy/libnccl.so.2"
    finds 23456 LD_LIBRARY_PATH="$work/text:$(dirname "$dropin"):$work/copy" "$runpath"
    finds 23901 LD_LIBRARY_PATH="$work/copy:$built/other" "$pathless"
    # Without preloading: the drop-in is on the library path itself.
    preload=$runtime finds 23456 LD_LIBRARY_PATH="$(dirname "$dropin")" "$runpath"

    # bad PATH TEXT: every call says why not.
    bad() {
        before "$forward" CINCH_NCCL_PATH="$1" "$runpath" version
        says out "version: 5 -1"
        says out "last error: ncclGetVersion: CINCH_NCCL_PATH=$1: $2"
        says out "error string: invalid usage"
    }
    bad "$dropin" 'the drop-in itself; the real library or its folder is accepted'
    bad "$work/copy/libnccl.so.2" 'another drop-in of cinch'
    bad "$work/text/libnccl.so.2" 'no library for this processor'
    bad "$work" 'no libnccl.so.2 in it'
    bad /nowhere/libnccl.so.2 'no such file'

    # Nobody says where it is: the loader's cache does, or nothing.
    before "$forward" "$pathless" version
    cached=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep -o 'libnccl.so.2 .*=> .*' || true)
    [ -n "$cached" ] || says out "last error: ncclGetVersion: no real libnccl.so.2"
    [ -z "$cached" ] || says out "version: 0 2"
}

# Forward and native, by the setting or by what is there.
test_modes() {
    local caller=$built/nccl_caller_runpath
    # Auto: where a CUDA device is.
    before LD_LIBRARY_PATH="$built/gpu" "$caller" version
    says out 'version: 0 23456'
    for driver in no_gpu no_start; do
        before LD_LIBRARY_PATH="$built/$driver" "$caller" version
        is 'version: 0 22809
error string: invalid usage
last error: '
    done
    before LD_LIBRARY_PATH="$built/gpu" CINCH_NCCL_MODE=auto "$caller" version
    says out 'version: 0 23456'
    before LD_LIBRARY_PATH="$built/gpu" CINCH_NCCL_PATH=/nowhere "$caller" version
    says out 'last error: ncclGetVersion: CINCH_NCCL_PATH=/nowhere: no such file'
    before LD_LIBRARY_PATH="$built/no_gpu" CINCH_NCCL_PATH=/nowhere "$caller" version
    says out 'version: 0 22809'
    before LD_LIBRARY_PATH="$built/gpu" "$native" "$caller" version
    says out 'version: 0 22809'
    silent err
    before CINCH_NCCL_MODE=forwards "$caller" version
    says out 'version: 5 -1'
    says out 'CINCH_NCCL_MODE=forwards: auto|forward|native is accepted'
    # Settings that only cinch heeds.
    before "$forward" CINCH_CODEC=int8 "$caller" group
    says err 'CINCH_CODEC=int8 has no effect'
    [ "$(wc -l <"$work/err")" = 1 ] || fail "that is to be said once"
    before "$forward" CINCH_CODEC=none CINCH_CODEC_INTER=topk:ratio=0.1 "$caller" version
    says err 'CINCH_CODEC_INTER=topk:ratio=0.1 has no effect'
    before "$forward" CINCH_CODEC=int9 "$caller" version
    says out 'last error: ncclGetVersion: CINCH_CODEC=int9'
    before "$forward" CINCH_CODEC_MIN_BYTES=few "$caller" version
    says out 'last error: ncclGetVersion: CINCH_CODEC_MIN_BYTES=few: a size such as'
}

# Names that nobody behind us has.
test_refusals() {
    local caller=$built/nccl_caller_runpath
    before "$forward" "$caller" missing
    is "shrink: 5
last error: ncclCommShrink is not in the NCCL that calls go to: $built/private/libnccl.so.2, version 2.34.56
fake: all-reduce (nil) (nil) 13 0 0 (nil) (nil)
all-reduce: 4
last error: fake: 13 brings bad luck
shrink: 5
last error: pncclCommShrink is not in the NCCL that calls go to: $built/private/libnccl.so.2, version 2.34.56
fake: all-reduce (nil) (nil) 17 0 0 (nil) (nil)
last error: fake: 17 brings bad luck
fake: all-reduce (nil) (nil) 13 0 0 (nil) (nil)
last error: fake: 13 brings bad luck
team: 0 0 0, rank -1, slots 0"
    says err 'ncclParamDumpAll is not in the NCCL that calls go to'
    before "$native" "$caller" variadic
    says err 'ncclPutSignal, of NCCL 2.29, is not in cinch, which serves calls itself in native mode'
    before "$native" "$caller" team
    is 'team: 0 0 0
rank: -1'
}

# Many threads make their first calls at once, again and again.
test_threads() {
    for _ in 1 2 3 4 5 6 7 8; do
        for mode in "$forward" "$native"; do
            before "$mode" "$built/nccl_caller_runpath" threads
            says out 'wrong: 0'
        done
    done
}

# `cinch info` tells what the drop-in would do.
test_info() {
    preload=$runtime
    before LD_LIBRARY_PATH="$built/other:$built/gpu" "$cinch" info
    says out 'NCCL drop-in  forward: a CUDA device and the real library are there'
    says out "real NCCL     2.39.1, $built/other/libnccl.so.2"
    before LD_LIBRARY_PATH="$built/other:$built/no_gpu" "$cinch" info --json
    says out '"dropin":{"mode":"native","why":"there is no CUDA device"'
    says out "\"real_path\":\"$built/other/libnccl.so.2\",\"real_version\":23901,\"real_why\":null"
    before "$forward" CINCH_NCCL_PATH=/nowhere "$cinch" info
    says out 'NCCL drop-in  none: CINCH_NCCL_PATH=/nowhere: no such file'
    before "$native" CINCH_NCCL_PATH="$dropin" "$cinch" info --json
    says out '"real_path":null,"real_version":null,"real_why":"CINCH_NCCL_PATH='
    says out ': another drop-in of cinch'
}

# An nccl.h that can be included, and the library beside it.
cuda_headers() {
    local folder
    for folder in ${CUDA_HOME:+"$CUDA_HOME/include"} /usr/local/cuda/include /usr/include; do
        if [ -f "$folder/nccl.h" ] && [ -f "$folder/cuda_runtime.h" ]; then
            echo "$folder"
            return
        fi
    done
}

# compile SOURCE PROGRAM FLAGS...
compile() {
    # shellcheck disable=SC2086
    "$CC" -std=gnu11 -Wall -Wextra -Werror -O1 $CFLAGS "$1" -o "$2" "${@:3}" 2>"$work/err" || {
        cat "$work/err"
        fail "$2 does not compile"
    }
}

# right RANKS: what the program printed is what it is to print on so many ranks.
right() {
    diff "$here/client.$1.txt" "$work/out" || fail "on $1 ranks other lines than wanted (<) are there"
}

# The same text with our names, on libcinch; then the program built against the real library, with the
# drop-in before it. Both print the same.
test_client() {
    local headers real ranks
    sed 's/nccl/cinch/g; s/NCCL/CINCH/g' "$here/client.c" >"$work/ours.c"
    compile "$work/ours.c" "$work/ours" -I"$root/include/cinch" "$libcinch"
    for ranks in 2 3; do
        preload=$runtime before LD_LIBRARY_PATH="$(dirname "$libcinch")" "$work/ours" "$ranks"
        right "$ranks"
    done
    headers=$(cuda_headers)
    real=$(real_library)
    [ -n "$headers" ] || skip "with our names it is right; no nccl.h with a cuda_runtime.h beside it"
    [ -n "$real" ] || skip "with our names it is right; no real libnccl.so.2 to link with"
    compile "$here/client.c" "$work/theirs" -isystem "$headers" "$real" \
        -Wl,-rpath,"$(dirname "$real")"
    for ranks in 2 3; do
        before "$native" "$work/theirs" "$ranks"
        right "$ranks"
    done
}

# The real library's own failure comes through: without a CUDA device it forms no communicator.
test_forward() {
    local headers real
    headers=$(cuda_headers)
    real=$(real_library)
    [ -n "$headers" ] || skip "no nccl.h with a cuda_runtime.h beside it"
    [ -n "$real" ] || skip "no real libnccl.so.2"
    [ ! -e /dev/nvidiactl ] || skip "this machine may have a CUDA device: the program is for none"
    compile "$here/client.c" "$work/theirs" -isystem "$headers" "$real" \
        -Wl,-rpath,"$(dirname "$real")"
    timeout 60 env LD_PRELOAD="$runtime" "$work/theirs" 2 >"$work/without" || true
    grep -q 'init: [1-9] [^ ]' "$work/without" || fail "the real library says nothing of its own"
    timeout 60 env LD_PRELOAD="$preload" "$forward" "$work/theirs" 2 >"$work/out" || true
    diff "$work/without" "$work/out" || fail "with the drop-in before it (>) something else comes"
    cases=1
}

# A script that opens the library by its name, and by a path, as vLLM does.
test_ctypes() {
    command -v python3 >/dev/null || skip "no python3"
    ! sanitized thread || skip "python3 does not run with the thread sanitizer's library"
    export ASAN_OPTIONS=detect_leaks=0
    before "$native" python3 "$here/client.py" libnccl.so.2
    is 'by libnccl.so.2: 22809, sums right on 2 ranks'
    preload=$runtime before "$native" python3 "$here/client.py" "$dropin"
    is "by $dropin: 22809, sums right on 2 ranks"
    preload=$runtime before LD_LIBRARY_PATH="$(dirname "$dropin")" "$native" python3 \
        "$here/client.py" libnccl.so.2
    is 'by libnccl.so.2: 22809, sums right on 2 ranks'
}

"test_$kind"
echo "nccl_$kind: $cases cases"
