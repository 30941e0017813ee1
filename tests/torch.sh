#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The DDP hook of perf/torch, with whichever Python here has PyTorch, and as much of gpu_ddp.py as
# needs no GPU.
#
#   tests/torch.sh LIBCINCH.SO
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for python in python3 /usr/bin/python3; do
    if "$python" -c 'import torch.distributed as d; exit(not (d.is_available() and
            d.is_gloo_available()))' >/dev/null 2>&1; then
        export PYTHONDONTWRITEBYTECODE=1
        "$python" "$root/perf/torch/test_torch.py" "$1"
        exec "$python" "$root/perf/torch/gpu_ddp.py" --device cpu --steps 8 --width 32 --depth 1 \
            --batch 8
    fi
done
echo "skipped: no python3 here has PyTorch with Gloo (package python3-torch)"
exit 77
