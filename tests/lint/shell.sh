#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Shell scripts pass shellcheck, and can be run where they say that they are programs.
# shellcheck source=files.sh
. "$(dirname "${BASH_SOURCE[0]}")/files.sh"

command -v shellcheck >/dev/null || lint_skip "shellcheck is not installed (package shellcheck)"

mapfile -t scripts < <(lint_files '*.sh' check demo run | while IFS= read -r file; do
    case $(head -n 1 "$root/$file") in '#!'*sh) echo "$file" ;; esac
    case $file in *.sh) echo "$file" ;; esac
done | sort -u)
cd "$root" || exit 1
for file in "${scripts[@]}"; do
    # SC1090, SC1091: a file that is sourced is checked by itself. SC2317: a function of a file that
    # is sourced is called from elsewhere.
    lint_found "$(shellcheck -x -P SCRIPTDIR -s bash -f gcc -e SC1090,SC1091,SC2317 -- "$file" ||
        true)"
    case $(head -n 1 "$file") in
    '#!'*) [ -x "$file" ] || lint_found "$file:1: begins with #! and is not executable" ;;
    esac
done
lint_end "${#scripts[@]} scripts"
