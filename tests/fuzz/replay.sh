#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The fuzz targets over a corpus that a test writes: replay.sh TEST_READERS REPLAY...
set -euo pipefail
corpus=$(mktemp -d)
trap 'rm -rf "$corpus"' EXIT
"$1" --corpus "$corpus"
for replay in "${@:2}"; do
    "$replay" "$corpus"/*
done
