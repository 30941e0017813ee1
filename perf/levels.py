#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Hierarchical all-reduce against the flat ring: hosts (network namespaces) of several ranks each,
joined by 1 Gbit/s as in gigabit.py.

Needs what gigabit.py needs. Rounds interleave the three; times are medians of their rounds. The
wire's own ratio of hierarchical to ring is (H-1)/H over (n-1)/n for H hosts and n ranks.

    perf/levels.py [--build build/release] [--hosts 2] [--per-host 2] [--rounds 15] [--json FILE]
"""
import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys

from gigabit import Net

VARIANTS = {"ring": {"CINCH_ALGO": "ring"},
            "hier": {"CINCH_ALGO": "hier"},
            "hier int8": {"CINCH_ALGO": "hier", "CINCH_CODEC": "int8"}}


def perf(net, cinch, options, settings):
    size = net.ranks * options.per_host
    meeting = f"10.77.0.1:29400#{secrets.token_hex(32)}"
    ranks = []
    for rank in range(size):
        environment = dict(os.environ, CINCH_RANK=str(rank), CINCH_SIZE=str(size),
                           CINCH_COMM_ID=meeting, CINCH_INIT_TIMEOUT_MS="20000", **settings)
        ranks.append(subprocess.Popen(
            ["ip", "netns", "exec", net.names[rank // options.per_host], cinch, "perf", "allreduce",
             "-b", str(options.size), "-e", str(options.size), "-w", "1", "-N",
             str(options.samples), "-c", "0", "--json", "-"], env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    outputs = [rank.communicate(timeout=300) for rank in ranks]
    if any(rank.returncode for rank in ranks):
        sys.exit("cinch perf failed:\n" + "".join(error for _, error in outputs))
    return json.loads(outputs[0][0].splitlines()[-1])["time_us"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--per-host", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--size", type=int, default=16 << 20)
    parser.add_argument("--json")
    options = parser.parse_args()
    cinch = os.path.abspath(os.path.join(options.build, "perf", "cinch"))
    times = {name: [] for name in VARIANTS}
    with Net(options.hosts) as net:
        for turn in range(options.rounds):
            for name, settings in VARIANTS.items():
                times[name].append(perf(net, cinch, options, settings))
            print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)
    median = {name: statistics.median(values) for name, values in times.items()}
    n = options.hosts * options.per_host
    wire = (options.hosts - 1) / options.hosts / ((n - 1) / n)
    ratios = {"hier_of_ring": median["hier"] / median["ring"],
              "int8_of_hier": median["hier int8"] / median["hier"], "wire_allows": wire}
    for name, value in median.items():
        print(f"{name:<10} {value / 1e3:9.2f} ms")
    print(f"hier / ring {ratios['hier_of_ring']:.3f} (the wire allows {wire:.3f}), "
          f"hier int8 / hier {ratios['int8_of_hier']:.3f}")
    if options.json:
        with open(options.json, "w", encoding="ascii") as file:
            file.write(json.dumps({"hosts": options.hosts, "ranks": n, "bytes": options.size,
                                   "time_us": median, **ratios}) + "\n")


if __name__ == "__main__":
    main()
