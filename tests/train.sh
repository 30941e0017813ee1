#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Trains with exact, int8 and top-k gradients and holds the outcome to what is promised. Over TCP,
# where exact sends what compression is measured against.
#
#   tests/train.sh CINCH quick     options, refusals, repeatability: a few steps
#   tests/train.sh CINCH STEPS     learning: loss, bytes on the wire, error of the gradient
set -uo pipefail

cinch=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
bad=0

fail() {
    echo "train: $*"
    bad=$((bad + 1))
}

# value CODEC KEY: out of the JSON lines in $results.
value() {
    grep -F "\"codec\":\"$1\"" "$results" | sed -n "s/.*\"$2\":\([^,}]*\).*/\1/p"
}

# holds EXPRESSION: awk judges it.
holds() {
    awk "BEGIN { exit !($1) }"
}

# refused STATUS WORDS ARGUMENTS...: ends with that status and one line that has the words.
refused() {
    local want=$1 words=$2 out status=0
    shift 2
    out=$("$cinch" train "$@" 2>&1) || status=$?
    [ "$status" = "$want" ] || fail "'$*' ended with status $status, not $want"
    [ "$(wc -l <<<"$out")" = 1 ] || fail "'$*' said more than a line: $out"
    grep -qF -- "$words" <<<"$out" || fail "'$*' did not say '$words' but: $out"
}

quick() {
    local text=$folder/text short=$folder/short run
    for ((i = 0; i < 3000; i++)); do echo "$((i * i)) "; done >"$text"
    head -c 1000 "$text" >"$short"
    refused 2 "1000 bytes: at least 16384" --text "$short"
    refused 2 "cannot be opened" --text "$folder/none"
    refused 2 "none,,int8" --codecs none,,int8
    refused 2 "zip" --codecs none,zip
    refused 2 "--steps" --steps 0
    refused 2 "cannot write $folder" --json "$folder"
    refused 2 "carrier-pigeon" --transport carrier-pigeon
    for run in 1 2; do
        "$cinch" train -n 3 --text "$text" --steps 3 --seed 5 --json "$folder/$run.json" \
            --codecs topk:ratio=0.01,ef=1,int8,none --plot "$folder/plot.svg" >"$folder/table" \
            2>"$folder/progress" || fail "run $run ended with status $?: $(cat "$folder/progress")"
    done
    grep -q '</svg>' "$folder/plot.svg" || fail "the plot is not whole"
    [ "$(grep -cE '^(topk:ratio=0.01,ef=1|int8|none) ' "$folder/table")" = 3 ] ||
        fail "not three runs in the table: $(cat "$folder/table")"
    results=$folder/1.json
    for key in steps loss_first loss_final wire_bytes comm_s total_s rel_l2_last_grad; do
        [ -n "$(value none $key)" ] || fail "no $key in $(cat "$results")"
    done
    [ "$(value none rel_l2_last_grad)" = 0 ] || fail "exact is not exact"
    for run in 1 2; do
        sed 's/"comm_s":[^,]*,"total_s":[^,]*,//' "$folder/$run.json" >"$folder/$run.bare"
    done
    cmp -s "$folder/1.bare" "$folder/2.bare" ||
        fail "two runs differ: $(cat "$folder/1.bare" "$folder/2.bare")"
}

learning() {
    local topk=topk:ratio=0.01 codec
    results=$folder/results.json
    "$cinch" train -n 4 --steps "$1" --transport tcp --json "$results" >"$folder/table" \
        2>"$folder/progress" || fail "ended with status $?: $(tail -5 "$folder/progress")"
    cat "$folder/table"
    local exact wire
    exact=$(value none loss_final)
    wire=$(value none wire_bytes)
    for codec in none int8 $topk; do
        holds "$(value "$codec" loss_final) < $(value "$codec" loss_first) / 2" ||
            fail "$codec: the loss did not fall below half"
    done
    holds "$(value int8 loss_final) <= 1.01 * $exact" || fail "int8 is not within 1 % of exact"
    holds "$(value $topk loss_final) <= 1.05 * $exact" || fail "top-k is not within 5 % of exact"
    holds "$(value int8 wire_bytes) <= 0.26 * $wire" || fail "int8 sent too much"
    holds "$(value $topk wire_bytes) <= 0.05 * $wire" || fail "top-k sent too much"
    holds "$(value none rel_l2_last_grad) == 0" || fail "exact is not exact"
    holds "$(value int8 rel_l2_last_grad) < 0.03" || fail "int8's gradient is off"
    holds "$(value $topk rel_l2_last_grad) > 0.1" || fail "top-k's gradient was not compressed"
}

if [ "$2" != quick ] && [ ! -d /usr/share/common-licenses ]; then
    echo "skipped: the licence texts of a Debian system are not here"
    exit 77
fi
if [ "$2" = quick ]; then quick; else learning "$2"; fi
[ "$bad" = 0 ]
