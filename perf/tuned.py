#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Does tuning pay? After `cinch tune -o p.json`, runs with that plan file against every algorithm
by name, at each size from 4 B to 64 MiB: on shared memory, and between network namespaces at
1 Gbit/s as in gigabit.py.

What a process measures holds for that process: with more ranks than CPUs they stand otherwise in the
next one, and a hypervisor moves virtual CPUs apart and together for seconds to minutes. So a block
is one short life of each variant, in an order drawn anew; what is compared are ratios within
blocks, over many blocks: their geometric mean without the highest and lowest tenth. How far the
CPUs are apart is asked before and after each life (bench_pace), and blocks are compared apart for
near and far; blocks in which it changed count for neither.

The plan file's run and the run of the same algorithm by name do the same: both have the plan file,
so graph, trees and latencies too, and how a message is cut follows from algorithm and call. So their
samples are pooled (they are not where their bytes on the wire differ), and the ratio says by what
factor the chosen algorithm is slower than the best one: 1 where it is the best. In brackets are
the 2.5th and 97.5th percentile of bootstrapped blocks. "To itself" is the plan file's run to the same
algorithm's by name: 1 but for noise. Lives in which others had more than a tenth of the CPUs' time
do not count. Samples can be kept in a file and added to it, so that many short quiet times make one
report.

The namespaces need what gigabit.py needs, without iperf3.

    perf/tuned.py [--build build/release] [--where shm2,shm4,net2,net4] [--parts short,long]
                  [--seconds 150] [--plans FOLDER] [--samples FILE] [--report] [--json FILE]
"""
import argparse
import contextlib
import json
import math
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from gigabit import Net

TARGET = 1.1
OTHERS = 0.1
FAR_NS = 150 # as in coll/tune.c
LEAST_BLOCKS = 5 # of a kind, to say anything of it
PARTS = {"short": ["-b", "4", "-e", "256K", "-w", "2", "-N", "5"],
         "long": ["-b", "1M", "-e", "64M", "-w", "1", "-N", "3"]}
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


class Measuring:
    """Lives of all variants at one place, until the time is over."""

    def __init__(self, where, job, options, folder):
        self.where, self.job, self.options = where, job, options
        self.cinch = os.path.join(options.build, "perf", "cinch")
        plans = os.path.abspath(os.path.join(folder, f"{where}.json"))
        if not os.path.exists(plans):
            print(job.run_ranks([self.cinch, "tune", "-o", plans], timeout=900), file=sys.stderr)
        with open(plans, encoding="utf-8") as file:
            names = [c["algo"] for c in json.load(file)["curves"] if c["codec"] == "none"]
        self.variants = {"tuned": {"CINCH_PLAN_FILE": plans}}
        for name in names: # the trees of a forest are in the plan file
            self.variants[name] = {"CINCH_ALGO": name, "CINCH_PLAN_FILE": plans}

    def pace(self):
        done = subprocess.run([os.path.join(self.options.build, "perf", "bench_pace")],
                              capture_output=True, text=True, check=True)
        return float(done.stdout)

    def life(self, part, name):
        before, load = self.pace(), Load()
        output = self.job.run_ranks([self.cinch, "perf"] + ALL + PARTS[part], self.variants[name])
        others, after = load.others(), self.pace()
        for text in output.splitlines():
            line = json.loads(text)
            yield {"where": self.where, "variant": name, "algo": line["algo"],
                   "bytes": line["bytes"], "us": line["time_us"], "wire": line["wire_bytes"],
                   "ns": [before, after], "others": others}

    def blocks(self, part):
        """Ends with the block in which the time is over."""
        end = time.monotonic() + self.options.seconds
        while time.monotonic() < end:
            number = time.time_ns()
            names = list(self.variants)
            random.Random(number).shuffle(names)
            for name in names:
                for sample in self.life(part, name):
                    yield dict(sample, block=number)
            print(f"{self.where}: a block of {part}", file=sys.stderr)


def kind_of(sample):
    if sample["where"].startswith("net"):
        return "net"
    far = {ns >= FAR_NS for ns in sample["ns"]}
    return "mixed" if len(far) > 1 else "far" if far.pop() else "near"


def middle(logs):
    logs = sorted(logs)
    cut = len(logs) // 10
    return statistics.fmean(logs[cut:len(logs) - cut])


def spread(logs):
    dice = random.Random(1)
    means = sorted(middle(dice.choices(logs, k=len(logs))) for _ in range(400))
    return math.exp(means[10]), math.exp(means[389])


def by_block(samples):
    """{block: {variant: sample}}, of blocks that are whole and of one kind throughout."""
    blocks, wanted = {}, {sample["variant"] for sample in samples}
    for sample in samples:
        blocks.setdefault(sample["block"], {})[sample["variant"]] = sample
    return [block for block in blocks.values()
            if set(block) == wanted and len({kind_of(s) for s in block.values()}) == 1
            and max(s["others"] for s in block.values()) <= OTHERS]


def judge(blocks):
    """The row of a table: blocks of one place, size and kind."""
    chosen = blocks[0]["tuned"]["algo"]
    same = chosen in blocks[0] and all(b["tuned"]["wire"] == b[chosen]["wire"] for b in blocks)
    ratios = {}
    for name in blocks[0]:
        if name == "tuned" or (same and name == chosen):
            continue
        mine = [[b["tuned"]["us"]] + ([b[chosen]["us"]] if same else []) for b in blocks]
        ratios[name] = [statistics.fmean(map(math.log, times)) - math.log(b[name]["us"])
                        for times, b in zip(mine, blocks)]
    best = max(ratios, key=lambda name: middle(ratios[name]))
    first = same and middle(ratios[best]) <= 0
    itself = [math.log(b["tuned"]["us"] / b[chosen]["us"]) for b in blocks] if same else [math.nan]
    low, high = spread(ratios[best])
    return {"blocks": len(blocks), "chosen": chosen, "best": chosen if first else best,
            "tuned_us": statistics.median(b["tuned"]["us"] for b in blocks), "next": best,
            "ratio": 1.0 if first else math.exp(middle(ratios[best])), "to_next": [low, high],
            "to_itself": math.exp(middle(itself))}


def report(samples):
    rows, groups = [], {}
    for sample in samples:
        groups.setdefault((sample["where"], sample["bytes"]), []).append(sample)
    for (where, size), group in sorted(groups.items()):
        kinds = {}
        for block in by_block(group):
            kinds.setdefault(kind_of(block["tuned"]), []).append(block)
        for kind, blocks in sorted(kinds.items()):
            if kind == "mixed" or len(blocks) < LEAST_BLOCKS:
                continue
            row = dict(judge(blocks), where=where, bytes=size, kind=kind)
            rows.append(row)
            low, high = row["to_next"]
            print(f"{where} {size:>9} {kind:<4} {row['blocks']:>3} blocks {row['tuned_us']:12.2f} us"
                  f"  {row['chosen']:<8} ratio {row['ratio']:.3f} to {row['best']:<8} (to "
                  f"{row['next']} [{low:.3f}, {high:.3f}])  to itself {row['to_itself']:.3f}")
    return rows


def take(options, file):
    with (contextlib.nullcontext(options.plans) if options.plans
          else tempfile.TemporaryDirectory()) as folder:
        for where in options.where.split(","):
            with place(where) as job:
                measuring = Measuring(where, job, options, folder)
                for part in options.parts.split(","):
                    for sample in measuring.blocks(part):
                        file.write(json.dumps(sample) + "\n")
                    file.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--where", default="shm2,shm4,net2,net4",
                        help="shm or net, and how many ranks")
    parser.add_argument("--parts", default=",".join(PARTS), help="sizes: up to 256K, from 1M")
    parser.add_argument("--seconds", type=float, default=150, help="for each place and part")
    parser.add_argument("--plans", metavar="FOLDER",
                        help="keep plan files there, and use those that are there already")
    parser.add_argument("--samples", metavar="FILE", help="add samples there, and report all of it")
    parser.add_argument("--report", action="store_true", help="of --samples, without measuring")
    parser.add_argument("--json", metavar="FILE", help="the rows of the report")
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    with (open(options.samples, "a+", encoding="ascii") if options.samples
          else tempfile.TemporaryFile("w+", encoding="ascii")) as file:
        if not options.report:
            take(options, file)
        file.seek(0)
        rows = report(map(json.loads, file))
    if not rows:
        sys.exit(f"fewer than {LEAST_BLOCKS} blocks that others left alone")
    worst = max(rows, key=lambda row: row["ratio"])
    print(f"worst ratio {worst['ratio']:.3f}: {worst['where']}, {worst['bytes']} bytes, "
          f"{worst['kind']} (target <= {TARGET})")
    if options.json:
        with open(options.json, "w", encoding="ascii") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
