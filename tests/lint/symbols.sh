#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# libcinch.so exports the functions that cinch.h declares, each in a stanza of coll/cinch.map, and
# nothing else. symbols.sh ROOT LIBRARY
# shellcheck source=files.sh
. "$(dirname "${BASH_SOURCE[0]}")/files.sh"

library=${2:?the path of libcinch.so}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

nm -D --defined-only "$library" | awk '$2 != "A" { sub("@.*", "", $3); print $3 }' |
    sort -u >"$work/library"
sed 's,/\*.*\*/,,' "$root/coll/cinch.map" | grep -o '\bcinch[A-Za-z0-9]*;' | tr -d ';' |
    sort >"$work/map"
# Declarations begin in column 0 with the type; comments and preprocessor lines do not.
awk '/^\/\*/, /\*\// { next } { print }' "$root/include/cinch/cinch.h" |
    grep -oE '^(cinchResult_t|const char \*|void )[ *]*cinch[A-Za-z0-9]+\(' |
    grep -oE 'cinch[A-Za-z0-9]+\(' | tr -d '(' | sort -u >"$work/header"

# differ A B "SENTENCE": the lines of A that B lacks.
differ() {
    lint_found "$(comm -23 "$work/$1" "$work/$2" | sed "s|\$|: $3|")"
}
lint_found "$(uniq -d "$work/map" | sed 's|$|: twice in coll/cinch.map|')"
sort -u -o "$work/map" "$work/map"
differ library map "exported, and not in coll/cinch.map"
differ map library "in coll/cinch.map, and not exported"
differ header map "declared in cinch.h, and not in coll/cinch.map"
differ map header "in coll/cinch.map, and not declared in cinch.h"

# The release is one number, wherever it stands.
release=$(sed -n 's/^#define CINCH_RELEASE "\(.*\)"$/\1/p' "$root/include/cinch/cinch.h")
grep -q "^project(cinch VERSION $release " "$root/CMakeLists.txt" ||
    lint_found "CMakeLists.txt: the version is not CINCH_RELEASE, $release"
grep -q "^CINCH_${release%.*} {" "$root/coll/cinch.map" ||
    lint_found "coll/cinch.map: no stanza CINCH_${release%.*}"
[ "$(sed -n 's/^## \([0-9.]*\).*/\1/p' "$root/CHANGELOG.md" | head -n 1)" = "$release" ] ||
    lint_found "CHANGELOG.md: the first release is not CINCH_RELEASE, $release"
lint_end "$(wc -l <"$work/header") functions"
