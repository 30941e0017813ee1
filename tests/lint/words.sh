#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Nothing in the tree is unfinished by its own words, or tied to the machine that it was written on.
# shellcheck source=files.sh
. "$(dirname "${BASH_SOURCE[0]}")/files.sh"

# Written in pieces, so that this file passes.
marks='\b(TO''DO|FIX''ME|XX''X|HA''CK)\b'
unfinished='\bnot (yet )?imple''mented|\bplace''holder|\bfor n''ow\b'
machine='(^|[^A-Za-z0-9_.*])/(wo''rk|fa''rm)/|/tm''p/h/|/ho''me/[a-z]'

mapfile -t all < <(lint_files '*' | grep -vx LICENSE)
cd "$root" || exit 1
# say REASON: turns grep's lines into findings.
say() { sed -E "s|^([^:]*:[0-9]+):[[:space:]]*|\1: $1: |"; }
lint_found "$(grep -HnIE "$marks" -- "${all[@]}" | say 'unfinished by its own words')"
lint_found "$(grep -HnIiE "$unfinished" -- "${all[@]}" | say 'unfinished by its own words')"
lint_found "$(grep -HnIE "$machine" -- "${all[@]}" | say "a path of somebody's machine")"
lint_end "${#all[@]} files"
