#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Training that is killed: it goes on from checkpoints to the same bits, and without ranks that are
# lost.
#
#   tests/train_resume.sh CINCH [ROUNDS]     ROUNDS of each random kill (1)
set -uo pipefail

cinch=$1
rounds=${2:-1}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
bad=0
text=$folder/text
for ((i = 0; i < 3000; i++)); do echo "$((i * i)) "; done >"$text"
common=(--text "$text" --steps 8 --seed 5 --codecs "none,int8:round=stochastic,topk:ratio=0.01")
saved=(--checkpoint "$folder/saved" --checkpoint-every 3)

fail() {
    echo "train_resume: $*"
    bad=$((bad + 1))
}

# bare FILE: a run's JSON without its seconds.
bare() {
    sed 's/"comm_s":[^,]*,"total_s":[^,]*,//' "$1"
}

# start ARGUMENTS...: in the background; $job is its pid.
start() {
    : >"$folder/err"
    "$cinch" train -n 4 "${common[@]}" --json "$folder/got" "$@" \
        >"$folder/out" 2>"$folder/err" &
    job=$!
}

# rank_pid RANK: of the ranks that $job has started.
rank_pid() {
    local pid found
    while read -r pid; do
        found=$(tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | grep -cx "CINCH_RANK=$1")
        if [ "$found" = 1 ]; then echo "$pid"; fi
    done < <(cat /proc/"$job"/task/*/children 2>/dev/null | tr ' ' '\n' | grep .) 2>/dev/null
}

# await WORDS: until the job has said them or has ended.
await() {
    local i
    for ((i = 0; i < 1200; i++)); do
        grep -qE -- "$1" "$folder/err" && return
        kill -0 "$job" 2>/dev/null || return
        sleep 0.02
    done
}

same() {
    cmp -s <(bare "$folder/want") <(bare "$folder/got") ||
        fail "$1: not the losses of a run that was never stopped: $(diff <(bare "$folder/want") \
            <(bare "$folder/got")) $(cat "$folder/err")"
}

nap() {
    sleep "$((RANDOM % $1 / 1000)).$(printf %03d $((RANDOM % $1 % 1000)))"
}

# killed WHOM CODEC: the whole job, or one rank, first in that codec's run, where error feedback or a
# count of calls matters, then at random moments; until it comes to its end.
killed() {
    local whom=$1 codec=$2 round status resumed=0
    rm -rf "$folder/saved"
    for ((round = 0; ; round++)); do
        start "${saved[@]}" --resume
        if [ "$round" -lt "$rounds" ]; then
            # The first time not before there is something to go on from.
            if [ "$round" = 0 ]; then await "^$codec.* step +(4|5) of"; else nap 900; fi
            if [ "$whom" = job ]; then
                kill -9 "$job" 2>/dev/null
            else
                kill -9 "$(rank_pid $((RANDOM % 4)))" 2>/dev/null
            fi
        fi
        status=0
        wait "$job" 2>/dev/null || status=$?
        grep -q "goes on from" "$folder/err" && resumed=1
        [ "$status" = 0 ] && break
        [ "$round" -lt "$rounds" ] || {
            fail "$whom killed: ended with status $status: $(cat "$folder/err")"
            return
        }
        [ "$whom" = job ] || [ "$status" = 1 ] || fail "a rank killed: status $status"
    done
    [ "$resumed" = 1 ] || fail "$whom killed: nothing was resumed: $(cat "$folder/err")"
    same "$whom killed"
}

# Ranks are killed, and the others go on.
lost() {
    local victims=("$@") left=$((4 - $#)) status=0 rank
    rm -rf "$folder/saved"
    start --elastic "${saved[@]}"
    await 'step +4 of'
    for rank in "${victims[@]}"; do kill -9 "$(rank_pid "$rank")"; done
    wait "$job" || status=$?
    [ "$status" = 0 ] || fail "rank $* lost: status $status: $(cat "$folder/err")"
    grep -qE "lost: $left go on from step [0-9]+ of 8 \(none\), with the data" "$folder/err" ||
        grep -qE "lost: $left go on" "$folder/err" ||
        fail "rank $* lost, and that is not said: $(cat "$folder/err")"
    [ "$(grep -c loss_final "$folder/got")" = 3 ] || fail "rank $* lost: no three results"
    grep -q " $left ranks, 8 steps" "$folder/out" || fail "rank $* lost: $(cat "$folder/out")"
    # Checkpoints of those that were left are theirs alone.
    [ -z "$(find "$folder/saved" -name '*-of-4.*')" ] || fail "rank $* lost: old files stay"
    status=0
    "$cinch" train -n "$left" "${common[@]}" "${saved[@]}" --resume --json "$folder/again" \
        >"$folder/out" 2>"$folder/err" || status=$?
    [ "$status" = 0 ] || fail "resumed with $left ranks: status $status: $(cat "$folder/err")"
    cmp -s <(bare "$folder/got") <(bare "$folder/again") ||
        fail "resumed with $left ranks: $(diff "$folder/got" "$folder/again")"
}

# refused STATUS WORDS ARGUMENTS...: one sentence, by one rank.
refused() {
    local want=$1 words=$2 out status=0
    shift 2
    out=$("$cinch" train -n 4 "${common[@]}" "$@" 2>&1) || status=$?
    [ "$status" = "$want" ] || fail "'$*' ended with status $status, not $want: $out"
    [ "$(wc -l <<<"$out")" = 1 ] || fail "'$*' said more than a line: $out"
    grep -qF -- "$words" <<<"$out" || fail "'$*' did not say '$words' but: $out"
}

# Files of another job, missing and damaged ones: the folder holds those of the last finished run.
refusals() {
    local file out
    refused 2 "--resume" --resume
    refused 2 "has checkpoints already" "${saved[@]}"
    refused 2 "has 5 as its seed, and this run has 6" "${saved[@]}" --resume --seed 6
    refused 2 '"none"' "${saved[@]}" --resume --codecs none
    refused 2 "are of 4 ranks, and this run has 3" "${saved[@]}" --resume -n 3
    out=$(CINCH_RANK=0 CINCH_SIZE=2 "$cinch" train --elastic 2>&1)
    grep -q "started here, by -n" <<<"$out" || fail "--elastic under another launcher: $out"
    file=$(find "$folder/saved" -name '*rank-2-of-4.checkpoint')
    cp "$file" "$folder/kept"
    printf '\x55' | dd of="$file" bs=1 seek=5000000 conv=notrunc status=none
    refused 2 "damaged" "${saved[@]}" --resume
    truncate -s 1000000 "$file"
    refused 2 "damaged" "${saved[@]}" --resume
    rm "$file"
    refused 2 "rank 2 has none of step" "${saved[@]}" --resume
    cp "$folder/kept" "$file"
}

"$cinch" train -n 4 "${common[@]}" --json "$folder/want" >"$folder/out" 2>"$folder/err" ||
    { fail "the first run ended with status $?: $(cat "$folder/err")"; exit 1; }
killed rank topk
killed job int8
refusals
if [ "$rounds" -gt 1 ]; then lost 2; fi
lost 0 3 # rank 0 has the meeting point
[ "$bad" = 0 ]
