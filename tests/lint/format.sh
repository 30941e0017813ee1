#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All C files are as clang-format 14 leaves them. With --write behind the root, makes them so.
# shellcheck source=files.sh
. "$(dirname "${BASH_SOURCE[0]}")/files.sh"

tool=$(command -v clang-format-14 || command -v clang-format || true)
case $("${tool:-true}" --version 2>/dev/null) in
*" version 14."*) ;;
*) lint_skip "clang-format 14 is not installed (package clang-format-14)" ;;
esac

mapfile -t sources < <(lint_files '*.c' '*.h')
cd "$root" || exit 1
if [ "${2:-}" = --write ]; then
    "$tool" -i "${sources[@]}"
else
    # The first place of each file is enough.
    lint_found "$("$tool" --dry-run -Werror "${sources[@]}" 2>&1 |
        awk -F: '/error:/ && !seen[$1]++ { print $1 ":" $2 ": clang-format would change it" }')"
fi
lint_end "${#sources[@]} C files"
