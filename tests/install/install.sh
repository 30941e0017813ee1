#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs a build into a temporary prefix, moves that elsewhere, and uses it as somebody else would.
# install.sh BUILD KIND: KIND is files (what is installed), c or c++ (by find_package), pkg-config, or
# readme (the README's program, built and run as it says there).
# CC, CXX and CFLAGS are those of the build.
set -euo pipefail

build=${1:?the build folder}
kind=${2:?files, c, c++, pkg-config or readme}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
outside=$here/outside
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CC=${CC:-gcc} CXX=${CXX:-g++} CFLAGS=${CFLAGS:-}
export CXXFLAGS=$CFLAGS

skip() {
    echo "skipped: $1"
    exit 77
}
fail() {
    echo "install: $1"
    exit 1
}

if ! cmake --install "$build" --prefix "$work/first" >"$work/log" 2>&1; then
    cat "$work/log"
    fail "the build cannot be installed"
fi
mv "$work/first" "$work/prefix"
prefix=$work/prefix
library=$(find "$prefix" -name libcinch.so)
libdir=$(dirname "${library:-$prefix/lib/none}")

case $kind in
files)
    wanted='bin/cinch
include/cinch/cinch.h
include/cinch/codec.h
LIB/cinch/nccl/libnccl.so.2
LIB/cmake/cinch/cinchConfig.cmake
LIB/cmake/cinch/cinchConfigVersion.cmake
LIB/cmake/cinch/cinchTargets-CONFIG.cmake
LIB/cmake/cinch/cinchTargets.cmake
LIB/libcinch.so
LIB/libcinch.so.0
LIB/libcinch.so.VERSION
LIB/pkgconfig/cinch.pc'
    (cd "$prefix" && find . ! -type d | sed "s,^\./,,; s,^${libdir#"$prefix/"}/,LIB/,") |
        sed -E 's/(cinchTargets-)[a-z]+/\1CONFIG/; s/(\.so\.)[0-9]+\.[0-9.]+$/\1VERSION/' |
        sort >"$work/got"
    diff <(sort <<<"$wanted") "$work/got" || fail "other files than wanted (<) are there (>)"
    "$prefix/bin/cinch" --version
    ! grep -rIl "$build\|$work/first" "$prefix/include" "$libdir/pkgconfig" "$libdir/cmake" ||
        fail "these files name the build or the first prefix"
    ! readelf -d "$prefix/bin/cinch" "$library" | grep -E 'R(UN)?PATH' ||
        fail "the program or the library looks for libraries in a fixed place"
    ;;
c | c++)
    language=C
    if [ "$kind" = c++ ]; then
        command -v "$CXX" >/dev/null || skip "$CXX is not installed (package g++)"
        language=CXX
    fi
    if ! {
        cmake -S "$outside" -B "$work/build" -DCMAKE_PREFIX_PATH="$prefix" \
            -DOUTSIDE_LANGUAGE=$language && cmake --build "$work/build"
    } >"$work/log" 2>&1; then
        cat "$work/log"
        fail "a project outside cannot be built"
    fi
    "$work/build/nested"
    "$work/build/flat"
    ;;
pkg-config)
    command -v pkg-config >/dev/null || skip "pkg-config is not installed (package pkg-config)"
    export PKG_CONFIG_PATH=$libdir/pkgconfig
    pkg-config --exact-version="$("$prefix/bin/cinch" --version | sed 's/cinch //')" cinch ||
        fail "cinch.pc has another version than the program"
    for flat in '' -DFLAT; do
        # Flags are words.
        # shellcheck disable=SC2046,SC2086
        "$CC" -std=c11 -Wall -Wextra -Werror $CFLAGS $flat "$outside/two_ranks.c" \
            -o "$work/two_ranks" $(pkg-config --cflags --libs cinch)
        LD_LIBRARY_PATH=$libdir "$work/two_ranks"
    done
    ;;
readme)
    command -v pkg-config >/dev/null || skip "pkg-config is not installed (package pkg-config)"
    export PKG_CONFIG_PATH=$libdir/pkgconfig LD_LIBRARY_PATH=$libdir
    awk '/^```$/ { inside = 0 } inside { print } /^```c$/ { inside = 1 }' "$here/../../README.md" \
        >"$work/sum.c"
    # shellcheck disable=SC2046,SC2086
    "$CC" -Wall -Wextra -Werror $CFLAGS -o "$work/sum" "$work/sum.c" \
        $(pkg-config --cflags --libs cinch)
    said=$("$prefix/bin/cinch" run -n 4 "$work/sum")
    [ "$said" = "4 ranks, 6" ] || fail "the README's program says: $said"
    ;;
*)
    fail "\"$kind\" is none of files, c, c++, pkg-config, readme"
    ;;
esac
