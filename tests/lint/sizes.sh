#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A C file has at most 600 lines and a function at most 80: beyond that it wants to be two. And every
# file says on its first lines what its licence is.
# shellcheck source=files.sh
. "$(dirname "${BASH_SOURCE[0]}")/files.sh"

mapfile -t sources < <(lint_files '*.c' '*.h')
cd "$root" || exit 1
# A function, as clang-format leaves it, goes from a line in column 0 that ends with `{` to the next
# `}` in column 0; what has no parenthesis before its `{` is a type or a table.
lint_found "$(awk '
    function end_of_file() {
        if (file != "" && lines > 600) print file ":1: " lines " lines, at most 600"
    }
    FNR == 1 { end_of_file(); file = FILENAME; start = 0; head = "" }
    { lines = FNR }
    /^[A-Za-z_]/ { head = $0 }
    /^[ \t]+/ && !start && head != "" { head = head $0 }
    /;[ \t]*$/ && !start { head = "" }
    /\{[ \t]*$/ && !start && head ~ /\(.*\)[^=]*\{[ \t]*$/ && head !~ /^(typedef|struct|enum|union|extern "C")/ {
        start = FNR
        name = head
    }
    /^\}/ {
        if (start && FNR - start + 1 > 80) {
            sub(/\(.*/, "", name)
            sub(/.*[ *]/, "", name)
            print FILENAME ":" start ": " name " has " FNR - start + 1 " lines, at most 80"
        }
        start = 0
        head = ""
    }
    END { end_of_file() }
' "${sources[@]}")"

mapfile -t licensed < <(lint_files '*.c' '*.h' '*.inc' '*.sh' '*.py' '*.cmake' 'CMakeLists.txt')
for file in "${licensed[@]}"; do
    case $file in */CMakeLists.txt) continue ;; esac
    head -n 3 -- "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0' ||
        lint_found "$file:1: no SPDX-License-Identifier: Apache-2.0 in its first lines"
done
lint_end "${#sources[@]} C files"
