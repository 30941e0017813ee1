#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Does tuning pay? After `cinch tune -o p.json`, runs with that plan file against every algorithm
by name, at each size from 4 B to 64 MiB: on shared memory, and between network namespaces at
1 Gbit/s as in gigabit.py.

The namespaces need what gigabit.py needs, without iperf3. A round runs the plan file and each
algorithm once, in a process for short messages and one for long ones, after calls for 0.3 s: with
more ranks than CPUs it takes the scheduler as long to give each rank its place, and until then
the order of algorithms is another in each process. The ratio to an algorithm is the median of the
rounds' own ratios, since what disturbs a round slows all of it. Printed for each size is the
largest, which is that to the best algorithm; beside it the ratio to the chosen algorithm by name,
which is 1 but for noise, and the ratio of the fastest rounds, the plan file's to the best
algorithm's: where virtual CPUs are moved apart and together, or more ranks than CPUs stand badly on
them for a whole process, that alone compares like with like. And in the end the worst size, and
what part of the CPUs' time went to others meanwhile. Where that is more than a few hundredths, the
figures are not worth much; a run in which others had more than 5 % is taken again, twice at
most.

    perf/tuned.py [--build build/release] [--where shm2,shm4,net2,net4] [--rounds 7]
                  [--parts short,long] [--plans FOLDER] [--json FILE]
"""
import argparse
import contextlib
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile

from gigabit import Net

TARGET = 1.1
QUIET, TRIES = 0.05, 3 # a run that others disturb more is taken again, and the quietest counts
PARTS = {"short": ["-b", "4", "-e", "256K", "-w", "5", "-N", "11"],
         "long": ["-b", "1M", "-e", "64M", "-w", "1"]}
ALL = ["allreduce", "-f", "4", "-c", "0", "--settle", "300", "--json", "-"]


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
    arguments = ALL + PARTS[part]
    if part == "long": # a call takes half a second over a gigabit
        arguments = arguments + ["-N", "15" if isinstance(job, Local) else "5"]
    runs = []
    while not runs or (runs[-1][0] > QUIET and len(runs) < TRIES):
        load = Load()
        output = job.run_ranks([cinch, "perf"] + arguments, settings)
        runs.append((load.others(), output))
    lines = [json.loads(line) for line in min(runs)[1].splitlines()]
    return {line["bytes"]: (line["time_us"], line["algo"]) for line in lines}


class Load:
    """What part of the CPUs' time goes to others than this script's children; interrupts, which
    carry the packets of namespaces, are not counted."""

    def __init__(self):
        self.begin = self.look()

    @staticmethod
    def look():
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]
        ticks[5] = ticks[6] = 0
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        total = sum(ticks) / os.sysconf("SC_CLK_TCK")
        idle = (ticks[3] + ticks[4]) / os.sysconf("SC_CLK_TCK")
        return total, total - idle - used.ru_utime - used.ru_stime

    def others(self):
        total, foreign = (last - first for last, first in zip(self.look(), self.begin))
        return max(foreign / total, 0) if total else 0


def take_rounds(where, job, cinch, options, variants):
    """Times by size and variant, one a round, and the algorithms that were chosen."""
    times, chosen = {}, {}
    for turn in range(options.rounds):
        names = list(variants)
        names = names[turn % len(names):] + names[:turn % len(names)]
        for part in options.parts.split(","):
            for name in names:
                for size, (time_us, algo) in measure(job, cinch, part, variants[name]).items():
                    times.setdefault(size, {}).setdefault(name, []).append(time_us)
                    if name == "tuned":
                        chosen[size] = algo
        print(f"{where}: round {turn + 1} of {options.rounds}", file=sys.stderr)
    return times, chosen


def compare(where, job, cinch, options, folder):
    plans = os.path.join(folder, f"{where}.json")
    if not os.path.exists(plans):
        print(job.run_ranks([cinch, "tune", "-o", plans], timeout=900), file=sys.stderr)
    with open(plans, encoding="utf-8") as file:
        names = [curve["algo"] for curve in json.load(file)["curves"] if curve["codec"] == "none"]
    variants = {"tuned": {"CINCH_PLAN_FILE": plans}}
    for name in names: # the trees of a forest are in the plan file
        variants[name] = {"CINCH_ALGO": name, "CINCH_PLAN_FILE": plans}
    rows = []
    times, chosen = take_rounds(where, job, cinch, options, variants)
    for size, by_name in times.items():
        tuned = by_name.pop("tuned")
        ratios = {name: statistics.median(mine / theirs for mine, theirs in zip(tuned, values))
                  for name, values in by_name.items()}
        best = max(ratios, key=ratios.get)
        rows.append({"where": where, "bytes": size, "tuned_us": statistics.median(tuned),
                     "chosen": chosen[size], "best": best,
                     "best_us": statistics.median(by_name[best]), "ratio": ratios[best],
                     "ratio_same": ratios.get(chosen[size], math.nan),
                     "ratio_fastest": min(tuned) / min(map(min, by_name.values()))})
        row = rows[-1]
        print(f"{where} {size:>10} {row['tuned_us']:12.2f} us ({chosen[size]})  best {best} "
              f"{row['best_us']:12.2f} us  ratio {row['ratio']:.3f}  to itself "
              f"{row['ratio_same']:.3f}  fastest {row['ratio_fastest']:.3f}")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--where", default="shm2,shm4,net2,net4",
                        help="shm or net, and how many ranks")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--parts", default=",".join(PARTS), help="sizes: up to 256K, from 1M")
    parser.add_argument("--plans", metavar="FOLDER",
                        help="keep plan files there, and use those that are there already")
    parser.add_argument("--json")
    options = parser.parse_args()
    cinch = os.path.abspath(os.path.join(options.build, "perf", "cinch"))
    rows, load = [], Load()
    with (contextlib.nullcontext(options.plans) if options.plans
          else tempfile.TemporaryDirectory()) as folder:
        for where in options.where.split(","):
            with place(where) as job:
                rows += compare(where, job, cinch, options, folder)
    worst = max(rows, key=lambda row: row["ratio"])
    print(f"worst ratio {worst['ratio']:.3f}: {worst['where']}, {worst['bytes']} bytes "
          f"(target <= {TARGET}); others had {100 * load.others():.0f} % of the CPUs' time")
    if options.json:
        with open(options.json, "w", encoding="ascii") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
