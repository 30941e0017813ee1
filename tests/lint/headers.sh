#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every header compiles alone: those of include/ as C11 (headers.sh ROOT c), and as C++ from C++98 on
# (ROOT c++), the internal ones as C11 (ROOT internal). The compiler is $CC or $CXX.
# shellcheck source=files.sh
. "$(dirname "${BASH_SOURCE[0]}")/files.sh"

kind=${2:-c}
strict=(-Wall -Wextra -Werror -fsyntax-only)
cd "$root" || exit 1

# alone HEADER COMPILER FLAGS...
alone() {
    local header=$1 said
    shift
    said=$(printf '#include "%s"\n' "$header" | "$@" - 2>&1) ||
        lint_found "$header:1: does not compile alone by $*: $(grep -m 1 error <<<"$said")"
}

mapfile -t public < <(lint_files '*.h' | grep '^include/')
case $kind in
c)
    headers=("${public[@]}")
    for header in "${headers[@]}"; do
        alone "${header#include/}" "${CC:-gcc}" -x c -std=c11 -pedantic "${strict[@]}" -Iinclude
        alone "${header#include/cinch/}" "${CC:-gcc}" -x c -std=c11 -pedantic "${strict[@]}" -Iinclude/cinch
    done
    ;;
c++)
    compiler=${CXX:-g++}
    command -v "$compiler" >/dev/null || lint_skip "$compiler is not installed (package g++)"
    headers=("${public[@]}")
    for header in "${headers[@]}"; do
        for standard in c++98 c++11 c++17; do
            # long long is an extension to C++98, and uint64_t may be one.
            alone "${header#include/}" "$compiler" -x c++ -std=$standard -pedantic -Wno-long-long \
                "${strict[@]}" -Iinclude
        done
    done
    ;;
internal)
    mapfile -t headers < <(lint_files '*.h' | grep -v '^include/')
    for header in "${headers[@]}"; do
        # One without a guard is a template: it is included several times, with parameters.
        grep -q '^#ifndef CINCH_.*_H_$' "$header" || {
            grep -q '^#undef' "$header" || lint_found "$header:1: neither a guard nor a template"
            continue
        }
        flags=(-std=c11 -D_GNU_SOURCE '-DCINCH_PROGRAM="cinch"' '-DCINCH_TEST_TOPOLOGIES_BESIDE=""' -Wno-missing-field-initializers)
        # A header's functions are not used where nothing else is.
        flags+=(-Wno-unused-function)
        case $header in */x86/*) flags+=(-mavx2 -mfma -mf16c) ;; esac
        # CUDA's headers are an option: what we use of them is in the emulated ones.
        case $header in */cuda*.h) flags+=(-Itests/cuda/runtime) ;; esac
        alone "$header" "${CC:-gcc}" -x c "${flags[@]}" "${strict[@]}" -I. -Iinclude
    done
    ;;
*)
    echo "headers: \"$kind\" is none of c, c++, internal" >&2
    exit 2
    ;;
esac
lint_end "${#headers[@]} headers, $kind"
