#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How much of DDP's communication over 1 Gbit/s hides behind backward: train_ddp.py on ranks in
network namespaces, shaped as perf/gigabit.py does.

    perf/torch/overlap.py [--ranks 2] [--steps 16] [--modes local gloo none int8] [--json FILE]

Needs root, iproute2, iperf3 and the kernel's sch_tbf. Three views of the same steps:
  hidden    1 - waited / communication as the hook reports it, of the rank that hid least; strict:
            with the most that a rank waited and the least communication that one had, so that
            waiting for a later rank never counts as something that hid;
  of alone  1 - waited / what the buckets take with nothing computed beside them;
  by step   1 - (step - step of mode local) / the same, of each the shortest: what the computation
            lost to communication that ran beside it counts as not hidden. On a quiet machine only.
"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]
import gigabit  # pylint: disable=wrong-import-position
import train_ddp  # pylint: disable=wrong-import-position


def add_views(row, local_step_s):
    if not row.get("steps") or not row.get("alone_s"):
        return
    row["hidden_of_alone"] = 1 - row["wait_s"] / row["steps"] / row["alone_s"]
    if local_step_s is not None:
        row["hidden_by_step"] = 1 - (row["step_min_s"] - local_step_s) / row["alone_s"]


def show(row):
    print(f"{row['mode']:<18} step {1e3 * row['step_s']:8.1f} ms, at least "
          f"{1e3 * row['step_min_s']:8.1f} ms")
    if not row.get("steps"):
        return
    comm, wait = [1e3 * row[key] / row["steps"] for key in ("comm_s", "wait_s")]
    views = [("", "hidden"), ("strict ", "hidden_strict"), ("of alone ", "hidden_of_alone"),
             ("by step ", "hidden_by_step")]
    print(f"{'':<18} communication {comm:.1f} ms a step, alone {1e3 * row['alone_s']:.1f} ms, "
          f"waited {wait:.1f} ms")
    print(f"{'':<18} hidden "
          + ", ".join(f"{name}{100 * row[key]:.0f} %" for name, key in views if key in row)
          + "; by rank " + ", ".join(f"{100 * hidden:.0f} %" for hidden in row["reported"]))


def main():
    parser = train_ddp.arguments(__doc__.split("\n\n")[0])
    parser.set_defaults(modes=["local", "gloo", "none", "int8"], width=512, depth=12, batch=192,
                        bucket_mb=2, steps=16, alone=5, interface="eth0")
    options = parser.parse_args()
    options.alone = max(options.alone, 1)
    with gigabit.Net(options.ranks) as net:
        rate = net.line_rate()
        rows = train_ddp.run(options,
                             lambda rank: ["ip", "netns", "exec", net.names[rank]])
    sizes = next((row["bucket_elements"] for row in rows if row.get("bucket_elements")), [])
    print(f"{options.ranks} ranks, line {rate * 8 / 1e6:.0f} Mbit/s both ways at once, "
          f"{rows[0]['parameters']} parameters, batches of {options.batch}, gradients "
          f"{4 * rows[0]['parameters'] / 1e6:.1f} MB in {len(sizes)} buckets, "
          f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    local = next((row["step_min_s"] for row in rows if row["mode"] == "local"), None)
    for row in rows:
        row["line_rate_Bps"] = rate
        add_views(row, local)
        show(row)
    train_ddp.write_json(rows, options.json)


if __name__ == "__main__":
    main()
