#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Does tuning pay? After `cinch tune -o p.json`, runs with that plan file against every algorithm
by name, at each size from 4 B to 64 MiB: on shared memory, and between network namespaces at
1 Gbit/s as in gigabit.py.

The namespaces need what gigabit.py needs, without iperf3. A round runs the plan file and each
algorithm once, in a process for short messages and one for long ones; times are medians of the
rounds. Printed is the time with the plan file over that of the best algorithm, and the worst size.

    perf/tuned.py [--build build/release] [--where shm2,shm4,net2,net4] [--rounds 7] [--json FILE]
"""
import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile

from gigabit import Net

TARGET = 1.1
PARTS = {"short": ["-b", "4", "-e", "256K", "-w", "5", "-N", "11"],
         "long": ["-b", "1M", "-e", "64M", "-w", "1", "-N", "5"]}


class Local:
    """Ranks on this host, in the place of a Net."""

    def __init__(self, ranks):
        self.ranks = ranks

    def run_ranks(self, arguments, settings=None, timeout=300):
        done = subprocess.run([*arguments[:2], "-n", str(self.ranks), *arguments[2:]],
                              env=dict(os.environ, **(settings or {})), capture_output=True,
                              text=True, timeout=timeout, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")
        return done.stdout


def place(where):
    ranks = int(where[3:])
    return Net(ranks) if where.startswith("net") else contextlib.nullcontext(Local(ranks))


def measure(job, cinch, part, settings):
    """Time by size."""
    output = job.run_ranks([cinch, "perf"] + (["allreduce", "-f", "4", "-c", "0", "--json", "-"]
                                              + PARTS[part]), settings)
    lines = [json.loads(line) for line in output.splitlines()]
    return {line["bytes"]: (line["time_us"], line["algo"]) for line in lines}


def compare(where, job, cinch, options, folder):
    plans = os.path.join(folder, f"{where}.json")
    print(job.run_ranks([cinch, "tune", "-o", plans], timeout=900), file=sys.stderr)
    with open(plans, encoding="utf-8") as file:
        names = [curve["algo"] for curve in json.load(file)["curves"] if curve["codec"] == "none"]
    variants = {"tuned": {"CINCH_PLAN_FILE": plans}}
    for name in names: # the trees of a forest are in the plan file
        variants[name] = {"CINCH_ALGO": name, "CINCH_PLAN_FILE": plans}
    times, chosen = {}, {}
    for turn in range(options.rounds):
        for part in PARTS:
            for name, settings in variants.items():
                for size, (time_us, algo) in measure(job, cinch, part, settings).items():
                    times.setdefault(size, {}).setdefault(name, []).append(time_us)
                    if name == "tuned":
                        chosen[size] = algo
        print(f"{where}: round {turn + 1} of {options.rounds}", file=sys.stderr)
    rows = []
    for size, by_name in times.items():
        median = {name: statistics.median(values) for name, values in by_name.items()}
        tuned = median.pop("tuned")
        best = min(median, key=median.get)
        rows.append({"where": where, "bytes": size, "tuned_us": tuned, "chosen": chosen[size],
                     "best": best, "best_us": median[best], "ratio": tuned / median[best]})
        print(f"{where} {size:>10} {tuned:12.2f} us ({chosen[size]})  best {best} "
              f"{median[best]:12.2f} us  ratio {rows[-1]['ratio']:.3f}")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--where", default="shm2,shm4,net2,net4",
                        help="shm or net, and how many ranks")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json")
    options = parser.parse_args()
    cinch = os.path.abspath(os.path.join(options.build, "perf", "cinch"))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for where in options.where.split(","):
            with place(where) as job:
                rows += compare(where, job, cinch, options, folder)
    worst = max(rows, key=lambda row: row["ratio"])
    print(f"worst ratio {worst['ratio']:.3f}: {worst['where']}, {worst['bytes']} bytes "
          f"(target <= {TARGET})")
    if options.json:
        with open(options.json, "w", encoding="ascii") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
