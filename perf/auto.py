#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""CINCH_CODEC=auto over links of several speeds: against exact and against int8, between network
namespaces as in gigabit.py.

Needs what gigabit.py needs, without iperf3. There is no plan file, so every run with auto measures
at its start what it decides by. Rounds interleave the three; times are medians of their rounds.

    perf/auto.py [--build build/release] [--links 100,500,1000,2500,10000] [--ranks 2]
                 [--rounds 7] [--json FILE]
"""
import argparse
import json
import os
import statistics
import sys

from gigabit import Net

TARGET = 1.05
CODECS = ["none", "int8", "auto"]


def measure(net, cinch, codec, samples):
    """Time, and the codec that ran, by size."""
    output = net.run_ranks([cinch, "perf", "allreduce", "-b", "1M", "-e", "16M", "-f", "16", "-w",
                            "1", "-N", str(samples), "-c", "0", "--codec", codec, "--json", "-"])
    lines = [json.loads(line) for line in output.splitlines()]
    return {line["bytes"]: (line["time_us"], line["codec"]) for line in lines}


def compare(net, cinch, link, options):
    times, ran = {}, {}
    for turn in range(options.rounds):
        for codec in CODECS:
            for size, (time_us, real) in measure(net, cinch, codec, options.samples).items():
                times.setdefault(size, {}).setdefault(codec, []).append(time_us)
                if codec == "auto":
                    ran.setdefault(size, []).append(real)
        print(f"{link} Mbit/s: round {turn + 1} of {options.rounds}", file=sys.stderr)
    rows = []
    for size, by_codec in times.items():
        median = {codec: statistics.median(values) for codec, values in by_codec.items()}
        ratio = median["auto"] / min(median["none"], median["int8"])
        rows.append({"link_mbits": link, "ranks": net.ranks, "bytes": size, "time_us": median,
                     "auto_ran": ran[size], "ratio": ratio})
        print(f"{link:>6} Mbit/s {size:>9} bytes  exact {median['none'] / 1e3:9.2f} ms  int8 "
              f"{median['int8'] / 1e3:9.2f} ms  auto {median['auto'] / 1e3:9.2f} ms "
              f"({'/'.join(sorted(set(ran[size])))})  ratio {ratio:.3f}")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--links", default="100,500,1000,2500,10000", help="Mbit/s")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--json")
    options = parser.parse_args()
    cinch = os.path.abspath(os.path.join(options.build, "perf", "cinch"))
    rows = []
    for link in [int(word) for word in options.links.split(",")]:
        with Net([link] * options.ranks) as net:
            rows += compare(net, cinch, link, options)
    worst = max(rows, key=lambda row: row["ratio"])
    print(f"worst ratio {worst['ratio']:.3f}: {worst['link_mbits']} Mbit/s, {worst['bytes']} bytes "
          f"(target <= {TARGET})")
    if options.json:
        with open(options.json, "w", encoding="ascii") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
