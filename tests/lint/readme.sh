#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The README says what the program says: its table of settings is `cinch info --env`, its lists of
# codecs, algorithms and transports are the program's, and files that it links to exist.
# readme.sh ROOT PROGRAM [--write]: with --write, puts the table there.
# shellcheck source=files.sh
. "$(dirname "${BASH_SOURCE[0]}")/files.sh"

program=${2:?the path of the cinch program}
readme=$root/README.md
begin='<!-- settings: begin -->'
end='<!-- settings: end -->'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# With an empty environment every value is the default.
env -i "$program" info --env >"$work/info"
awk '
    /^  CINCH_[A-Z_]*=/ {
        name = value = $1
        sub("=.*", "", name)
        sub("[^=]*=", "", value)
        next
    }
    name != "" {
        text = $0
        sub("^ *", "", text)
        sub("; default .*", /; the same on all ranks$/ ? "; the same on all ranks" : "", text)
        gsub(/\|/, "\\|", text)
        gsub(/</, "\\&lt;", text)
        print "| `" name "` | " (value == "" ? "" : "`" value "`") " | " text " |"
        name = ""
    }
' "$work/info" >"$work/rows"
{
    echo "| variable | default | meaning |"
    echo "|---|---|---|"
    cat "$work/rows"
} >"$work/table"
[ -s "$work/rows" ] || lint_found "cinch info --env: no settings"

if [ "${3:-}" = --write ]; then
    awk -v begin="$begin" -v end="$end" -v table="$work/table" '
        $0 == end { inside = 0 }
        !inside { print }
        $0 == begin { inside = 1; while ((getline line < table) > 0) print line }
    ' "$readme" >"$work/readme"
    cat "$work/readme" >"$readme"
fi

awk -v begin="$begin" -v end="$end" '
    $0 == end { exit } inside { print } $0 == begin { inside = 1 }' "$readme" >"$work/there"
lint_found "$(diff "$work/there" "$work/table" | sed -n 's|^[<>]|README.md: settings: &|p')"

# A name that the program lists stands in the README in backquotes.
sed -n 's/^codecs  *//p; s/^algorithms  *//p; s/^transport  *\([a-z]*\):.*/\1/p' "$work/info" |
    tr ' ' '\n' >"$work/names"
while IFS= read -r name; do
    grep -q "\`$name\`" "$readme" || lint_found "README.md: no word of $name, which cinch info lists"
done <"$work/names"

while IFS= read -r link; do
    [ -e "$root/${link%%#*}" ] || lint_found "README.md: links to $link, which is not there"
done < <(grep -oE '\]\([^)]+\)' "$readme" | sed 's/^](//; s/)$//' | grep -v '^https\?:\|^#')
lint_end "README.md"
