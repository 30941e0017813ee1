#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# perf/gpu_check itself, without a GPU: its programs are those above the emulated one.
#
#   tests/cuda/gpu_check.sh BUILD CUDA-BUILD ROOT
set -euo pipefail
build=$1
emulated=$2
root=$3
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
command -v python3 >/dev/null || {
    echo "skipped: python3 reads the JSON and is not installed"
    exit 77
}
for variable in $(compgen -e | grep -E '^(CINCH|NCCL)_' || true); do unset "$variable"; done
mkdir -p "$scratch/perf" "$scratch/bin"
for name in gpu_check gpu_overlap gpu_collectives gpu_dropin gpu_probe; do
    ln -s "$emulated/${name}_emulated" "$scratch/perf/$name"
done
ln -s "$emulated/cinch_emulated" "$scratch/perf/cinch"
ln -s "$build/nccl" "$scratch/nccl"
export CINCH_NCCL_PATH=$build/tests/nccl/private/libnccl.so.2
export CUDA_FAKE_QUEUES=8 CINCH_GPU_BUILD=$scratch

fail() {
    echo "gpu_check.sh: $*"
    cat "$scratch/out"
    exit 1
}
# run WANTED-STATUS OPTION...: gpu_check, and what it wrote, checked: verdicts are PART=VERDICT lines.
run() {
    local want=$1 status=0
    shift
    PATH=$scratch/bin:$PATH "$root/perf/gpu_check" --build "$scratch" --small \
        --json "$scratch/all.json" "$@" >"$scratch/out" 2>&1 || status=$?
    [ "$status" = "$want" ] || fail "$*: status $status, $want wanted"
    python3 - "$scratch/all.json" "$want" >"$scratch/verdicts" <<'PYTHON' || fail "$*: the JSON"
import json, sys
found = json.load(open(sys.argv[1]))
assert found["pass"] is (sys.argv[2] == "0"), found["pass"]
for part in found["parts"]:
    assert part["verdict"] not in ("pass", "reported") or not part["why"], part
    print(f"{part['part']}={part['verdict']}", "result" if part["result"] else "")
PYTHON
}
says() { grep -qx "$1" "$scratch/verdicts" || fail "no \"$1\" among: $(cat "$scratch/verdicts")"; }

# A compute-sanitizer that finds nothing, then something, then one that cannot run here.
printf '#!/bin/sh\nexit 0\n' >"$scratch/bin/compute-sanitizer"
chmod +x "$scratch/bin/compute-sanitizer"

# All parts but those that take long; processes and collectives have tests of their own.
run 0 --only memcheck,kernels,overlap,overlap_direct,dropin,ddp,overlap_processes
for want in memcheck=pass 'kernels=skipped' overlap=pass overlap_direct=reported 'dropin=pass result' \
    ddp=skipped 'overlap_processes=reported result'; do
    case $want in *result) says "$want" ;; *) says "$want " ;; esac
done

# What fails, hangs or is no program stops no other part.
printf '#!/bin/sh\nexit 99\n' >"$scratch/bin/compute-sanitizer"
rm "$scratch/perf/gpu_overlap" "$scratch/perf/gpu_collectives" "$scratch/perf/gpu_check"
printf '#!/bin/sh\nprintf "{\\"half\\":"\nsleep 60\n' >"$scratch/perf/gpu_collectives"
# shellcheck disable=SC2016 # the shell that runs it knows $5
printf '#!/bin/sh\nprintf "{\\"half\\":" >$5\necho "it is \\"broken\\""\nexit 3\n' >"$scratch/perf/gpu_check"
chmod +x "$scratch"/perf/gpu_c*
run 1 --only bits,memcheck,collectives,overlap,dropin --limit 3
for want in bits=FAIL memcheck=FAIL collectives=FAIL overlap=FAIL; do says "$want "; done
says 'dropin=pass result'
grep -q '"why":"status 3; it is \\"broken\\""' "$scratch/all.json" || fail "why bits failed"
grep -q '"why":"not finished after 3 s' "$scratch/all.json" || fail "that collectives hung"

# A part that says that there is no GPU has failed, unless nobody expects more.
printf '#!/bin/sh\necho "there is no GPU"\nexit 77\n' >"$scratch/perf/gpu_check"
status=0
"$root/perf/gpu_check" --build "$scratch" --only kernels --json "$scratch/all.json" \
    >"$scratch/out" 2>&1 || status=$?
[ "$status" = 1 ] || fail "no GPU: status $status"
grep -q '"verdict":"FAIL".*"why":"there is no GPU"' "$scratch/all.json" || fail "that there is no GPU"

# Where compute-sanitizer is not able to look at any program, that is no fault of ours.
printf '#!/bin/sh\nexit 1\n' >"$scratch/bin/compute-sanitizer"
run 0 --only racecheck
says 'racecheck=skipped '

status=0
"$root/perf/gpu_check" --only nothing >"$scratch/out" 2>&1 || status=$?
[ "$status" = 2 ] || fail "--only nothing: status $status"
echo "gpu_check: verdicts, failures and limits are told"
