#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The layer law: perf, tests -> coll -> {compress, topo, transports} -> base -> include. Every
# internal #include names its folder and keeps the law, and only base/settings.c reads the
# environment.
# shellcheck source=files.sh
. "$(dirname "${BASH_SOURCE[0]}")/files.sh"

# Whose files may include what; the longest prefix of a file's path counts. The training job and its
# model call what a user can call.
law='
include/          include
base/             base include
compress/         compress base include
compress/plugins/ include
topo/             topo base include
transports/       transports base include
coll/             coll compress topo transports base include
perf/             perf coll compress topo transports base include
perf/model        perf include
perf/train_run    perf include
tests/            tests perf coll compress topo transports base include
tests/install/    include
'

mapfile -t sources < <(lint_files '*.c' '*.h' '*.inc' '*.cu' '*.cuh' '*.cc')
[ ${#sources[@]} -gt 0 ] || lint_found "$root: no C files"

lint_found "$(cd "$root" && awk -v law="$law" '
    BEGIN {
        rows = split(law, row, "\n")
        for (i = 1; i <= rows; i++)
            if (split(row[i], word, " ") > 1) {
                allowed[word[1]] = " " substr(row[i], length(word[1]) + 1) " "
                folder = word[1]
                sub("/.*", "", folder)
                layer[folder] = 1
            }
    }
    FNR == 1 {
        best = ""
        for (prefix in allowed)
            if (index(FILENAME, prefix) == 1 && length(prefix) > length(best)) best = prefix
        if (best == "") print FILENAME ":1: lies in no layer"
    }
    /^[ \t]*#[ \t]*include/ {
        where = FILENAME ":" FNR ": "
        text = $0
        sub(/^[ \t]*#[ \t]*include[ \t]*/, "", text)
        quoted = substr(text, 1, 1) == "\""
        name = text
        sub(/^["<]/, "", name)
        sub(/[">].*/, "", name)
        folder = name
        if (!sub("/.*", "", folder)) folder = ""
        if (name ~ /^cinch(\/|\.h$)/) folder = "include"
        if (!quoted && !(folder in layer)) next
        if (!quoted && folder != "include") print where text ": ours is included with quotes"
        if (folder == "" || name ~ /(^|\/)\.\.?\//)
            print where text ": an internal include names its folder"
        else if (!(folder in layer))
            print where text ": " folder " is no layer"
        else if (best != "" && index(allowed[best], " " folder " ") == 0)
            print where text ": " best " may include" substr(allowed[best], 1, length(allowed[best]) - 1) " only"
    }
    /(^|[^A-Za-z0-9_])(secure_)?getenv[ \t]*\(/ && FILENAME != "base/settings.c" && FILENAME !~ /^tests\// {
        print FILENAME ":" FNR ": only base/settings.c calls getenv"
    }
' "${sources[@]}" 2>&1)"
lint_end "${#sources[@]} C files"
