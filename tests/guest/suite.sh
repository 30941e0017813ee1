#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The verbs transport on real verbs: boots the guest and runs the tests of inside.sh in it.
#
#   tests/guest/suite.sh BUILD [PART...]
#
# What is booted is kept in BUILD/guest. Status 77 where it cannot be had.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$(realpath "$1")
shift
for program in ip tc rdma; do
    command -v $program >/dev/null || [ -x "/sbin/$program" ] || {
        echo "skipped: $program is not here (package iproute2)"
        exit 77
    }
done
if [ -z "$(find /usr/lib /usr/lib64 -name 'librxe-rdmav*.so' 2>/dev/null | head -n 1)" ]; then
    echo "skipped: libibverbs has no provider for Soft-RoCE here (package ibverbs-providers)"
    exit 77
fi
"$here/fetch.sh" "$build/guest"
"$here/run.sh" "$build/guest" "$build:$here" bash "$here/inside.sh" "$build" "$@"
