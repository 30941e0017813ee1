#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The lints can fail: each is given small trees with one fault, and must name it, and the same tree
# without the fault, and must find nothing.
# Scripts in the trees have variables of their own:
# shellcheck disable=SC2016
# shellcheck source=files.sh
. "$(dirname "${BASH_SOURCE[0]}")/files.sh"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cases=0
licence='/* SPDX-License-Identifier: Apache-2.0 */'

# put FILE LINES...: a file of the tree $work/tree.
put() {
    mkdir -p "$work/tree/$(dirname "$1")"
    printf '%s\n' "${@:2}" >"$work/tree/$1"
}
fresh() {
    rm -rf "$work/tree"
    mkdir "$work/tree"
}
# wants STATUS "TEXT" SCRIPT ARGUMENTS...: how the lint ends on the tree, and what it says.
wants() {
    local status=0 said
    cases=$((cases + 1))
    said=$("$here/$3" "$work/tree" "${@:4}" 2>&1) || status=$?
    [ "$status" = 77 ] && return
    [ "$status" = "$1" ] || lint_found "$3: status $status, not $1, for: $2"
    grep -qF -- "$2" <<<"$said" || lint_found "$3: no word of \"$2\" in: $said"
}

# include FILE LINE "SENTENCE": what layers.sh says of one line in one file.
include() {
    fresh
    put "$1" "$2"
    wants 1 "$3" layers.sh
}
include coll/a.c '#include "log.h"' 'names its folder'
include coll/a.c '#include "perf/json.h"' 'coll/ may include'
include compress/a.c '#include "transports/io.h"' 'compress/ may include'
include transports/a.h '# include "compress/codec.h"' 'transports/ may include'
include transports/a.c '#include "coll/comm.h"' 'transports/ may include'
include base/a.c '#include "compress/dtype.h"' 'base/ may include'
include include/cinch/a.h '#include "base/log.h"' 'include/ may include'
include base/a.c '#include <base/log.h>' 'with quotes'
include base/a.c '#include "../base/log.h"' 'names its folder'
include coll/a.c '#include "golden/a.inc"' 'no layer'
include perf/model.c '#include "base/log.h"' 'perf/model may include'
include other/a.c '#include <stdio.h>' 'lies in no layer'
include coll/a.c '    const char *v = getenv("HOME");' 'only base/settings.c'
fresh
put base/settings.c '#include "cinch/cinch.h"' 'char *v = getenv("HOME");'
put coll/a.c '#include <stdio.h>' '#include "transports/io.h"' '#include "base/log.h"'
put tests/a.c '#include "tests/b.h"' '#include "perf/json.h"'
wants 0 'nothing found' layers.sh

for word in "TO""DO" "FIX""ME" "XX""X" "HA""CK" "not imple""mented" "a place""holder" "for n""ow"; do
    fresh
    put coll/a.c "/* $word */"
    wants 1 'coll/a.c:1: unfinished' words.sh
done
fresh
put README.md "see /wo""rk/main/README.md"
wants 1 'README.md:1: a path' words.sh
put README.md 'mktemp /tmp/cinch.XXXXXX; a framework/library'
wants 0 'nothing found' words.sh

fresh
mapfile -t lines < <(printf '    work(%d);\n' {1..78})
put coll/a.c "$licence" 'static int just(int a,' '                int b) {' "${lines[@]}" '}'
wants 0 'nothing found' sizes.sh
put coll/a.c "$licence" 'static int more(int a,' '                int b) {' "${lines[@]}" '' '}'
wants 1 'coll/a.c:3: more has 81 lines' sizes.sh
put coll/a.c "$licence" 'static const int table[] = {' "${lines[@]}" "${lines[@]}" '};'
wants 0 'nothing found' sizes.sh
put coll/a.c "$licence" "${lines[@]}" "${lines[@]}" "${lines[@]}" "${lines[@]}" "${lines[@]}" \
    "${lines[@]}" "${lines[@]}" "${lines[@]}"
wants 1 'coll/a.c:1: 625 lines' sizes.sh
put coll/a.c 'int a;'
wants 1 'no SPDX' sizes.sh

fresh
put .clang-format 'BasedOnStyle: LLVM'
put coll/a.c 'int  a;'
wants 1 'coll/a.c:1: clang-format' format.sh
put coll/a.c 'int a;'
wants 0 'nothing found' format.sh

fresh
put a.sh '#!/bin/bash' 'rm $1'
wants 1 'a.sh:2:4' shell.sh
wants 1 'not executable' shell.sh
put a.sh '#!/bin/bash' 'rm "$1"'
chmod +x "$work/tree/a.sh"
wants 0 'nothing found' shell.sh

fresh
put include/cinch/cinch.h '#include <stddef.h>' 'int f(size_t n);'
put base/a.h '#ifndef CINCH_A_H_' '#define CINCH_A_H_' 'int f(size_t n);' '#endif'
wants 1 'base/a.h:1: does not compile alone' headers.sh internal
wants 0 'nothing found' headers.sh c
wants 0 'nothing found' headers.sh c++
put include/cinch/cinch.h 'int f(size_t n);'
wants 1 'cinch.h:1: does not compile' headers.sh c
put include/cinch/cinch.h 'int f(int class);'
wants 0 'nothing found' headers.sh c
wants 1 'cinch/cinch.h:1: does not compile' headers.sh c++

# The tree itself, with one thing changed in a copy.
fresh
cp -r "$root/include" "$work/tree/"
mkdir -p "$work/tree/tests/lint" "$work/tree/coll"
cp "$here"/nccl_values.* "$work/tree/tests/lint/"
wants 0 'nothing found' nccl.sh recorded
header=$work/tree/include/cinch/cinch.h
change() { # change SED "TEXT": nccl.sh must say TEXT of cinch.h after SED
    cp "$root/include/cinch/cinch.h" "$header"
    sed -i "$1" "$header"
    ! cmp -s "$root/include/cinch/cinch.h" "$header" || lint_found "selftest: $1 changes nothing"
    wants 1 "$2" nccl.sh recorded
}
change 's/cinchMax = 2/cinchMax = 6/' 'cinch.h has: cinchMax 6'
change 's/CINCH_SPLIT_NOCOLOR -1/CINCH_SPLIT_NOCOLOR -2/' 'cinch.h has: CINCH_SPLIT_NOCOLOR -2'
change 's/    int trafficClass;/    long trafficClass;/' 'cinchConfig_t.trafficClass at'
change 's/cinchAllReduce(const void \*sendbuff/cinchAllReduce(void *sendbuff/' 'does not compile'

cp "$root/include/cinch/cinch.h" "$header"
cp "$root/coll/cinch.map" "$work/tree/coll/"
cp "$root/CHANGELOG.md" "$root/CMakeLists.txt" "$work/tree/"
sed 's,/\*.*\*/,,' "$root/coll/cinch.map" | grep -o 'cinch[A-Za-z0-9]*;' |
    sed 's/\(.*\);/int \1(void); int \1(void) { return 0; }/' >"$work/stubs.c"
library() { # library LINE: one with all names, and what LINE adds
    { cat "$work/stubs.c" && echo "$1"; } | "${CC:-gcc}" -w -shared -fPIC -x c -o "$work/lib.so" -
}
library ''
wants 0 'nothing found' symbols.sh "$work/lib.so"
library 'int cinch_secret(void) { return 0; }'
wants 1 'cinch_secret: exported, and not in coll/cinch.map' symbols.sh "$work/lib.so"
sed -i 1d "$work/stubs.c"
library ''
wants 1 'and not exported' symbols.sh "$work/lib.so"
sed -i '/cinchAllReduce;\| cinchAllReduce; /s/cinchAllReduce;//' "$work/tree/coll/cinch.map"
wants 1 'cinchAllReduce: declared in cinch.h' symbols.sh "$work/lib.so"
sed -i 's/VERSION [0-9.]*/VERSION 9.9.9/' "$work/tree/CMakeLists.txt"
wants 1 'the version is not CINCH_RELEASE' symbols.sh "$work/lib.so"

lint_end "$cases cases"
