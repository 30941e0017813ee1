# SPDX-License-Identifier: Apache-2.0
# Sourced by the lints: which files a tree has, and how a lint says what it found.
# Every lint is called with the root of a tree, by default the one that it lies in.
set -euo pipefail
export LC_ALL=C

lint_name=$(basename "$0" .sh)
root=$(cd "${1:-$(dirname "${BASH_SOURCE[0]}")/../..}" && pwd)
found=0

# lint_files NAME-PATTERNS...: files of the tree by the last part of their names, one a line, sorted.
# In a git checkout what git tracks or would, else everything outside the build folders.
lint_files() {
    local pattern terms=()
    if [ "$(git -C "$root" rev-parse --show-toplevel 2>/dev/null)" = "$root" ]; then
        git -C "$root" ls-files -co --exclude-standard -- "$@" | while IFS= read -r file; do
            if [ -f "$root/$file" ]; then printf '%s\n' "$file"; fi
        done
    else
        for pattern in "$@"; do terms+=(-o -name "$pattern"); done
        (cd "$root" && find . \( -path ./build -o -path ./demo-out -o -name .git \) -prune \
            -o -type f \( "${terms[@]:1}" \) -print | sed 's,^\./,,')
    fi | sort -u
}

# lint_found "FILE:LINE: sentence": one violation, or several lines of them; empty: none.
lint_found() {
    [ -n "$1" ] || return 0
    printf '%s\n' "$1"
    found=$((found + $(printf '%s\n' "$1" | wc -l)))
}

lint_skip() {
    printf 'skipped: %s\n' "$1"
    exit 77
}

# lint_end "WHAT WAS LOOKED AT": the verdict.
lint_end() {
    if [ "$found" -gt 0 ]; then
        echo "$lint_name: $found found in $1"
        exit 1
    fi
    echo "$lint_name: nothing found in $1"
    exit 0
}
