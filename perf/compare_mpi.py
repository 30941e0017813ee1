#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""All-reduce over shared memory: cinch against Open MPI and MPICH, interleaved.

Needs Debian's openmpi-bin libopenmpi-dev mpich libmpich-dev (or whichever of the two is there), a
built `cinch`, and an otherwise quiet machine. Each round runs every program once at every size;
the ratio is that of the medians over all rounds, cinch / the faster MPI. MPI gets
MALLOC_MMAP_MAX_=0 and MALLOC_TRIM_THRESHOLD_=8589934592, without which it faults its scratch in at
every call.

    perf/compare_mpi.py [--build build/release] [-n 2] [--rounds 15] [--json FILE]
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

SIZES = [4, 2048, 65536, 1 << 20, 64 << 20]
TARGETS = {4: 1.1, 2048: 1.1, 65536: 0.6, 1 << 20: 0.6, 64 << 20: 0.6}


def lines(command, environment):
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--build", default="build/release")
    parser.add_argument("-n", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--json")
    options = parser.parse_args()
    here = os.path.dirname(os.path.abspath(__file__))
    cinch = os.path.join(options.build, "perf", "cinch")
    plain = dict(os.environ)
    for name in [name for name in plain if name.startswith(("CINCH_", "NCCL_"))]:
        del plain[name]
    tuned = dict(plain, MALLOC_MMAP_MAX_="0", MALLOC_TRIM_THRESHOLD_="8589934592",
                 OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                 OMPI_MCA_rmaps_base_oversubscribe="1")

    with tempfile.TemporaryDirectory() as scratch:
        programs = {}
        for mpi in "openmpi", "mpich":
            if not shutil.which(f"mpicc.{mpi}"):
                continue
            binary = os.path.join(scratch, f"bench_{mpi}")
            subprocess.run([f"mpicc.{mpi}", "-O2", os.path.join(here, "bench_mpi.c"), "-o", binary],
                           check=True)
            bind = ["--bind-to", "core"] if mpi == "openmpi" else ["-bind-to", "core"]
            programs[mpi] = [f"mpirun.{mpi}", *bind, "-n", str(options.n), binary, str(options.samples)]
        if not programs:
            sys.exit("neither mpicc.openmpi nor mpicc.mpich is there: nothing to compare with")
        times = {}
        for turn in range(options.rounds):
            for size in SIZES:
                for mpi, command in programs.items():
                    for line in lines(command + [str(size)], tuned):
                        times.setdefault((mpi, size), []).append(line["time_us"])
                for mem in "malloc", "cinch":
                    command = [cinch, "perf", "allreduce", "-n", str(options.n), "-b", str(size),
                               "-e", str(size), "-N", str(options.samples), "-c", "0", "--mem", mem,
                               "--transport", "shm", "--json", "-"]
                    for line in lines(command, plain):
                        times.setdefault((mem, size), []).append(line["time_us"])
            print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)

    names = list(programs) + ["malloc", "cinch"]
    print(f"all-reduce, fp32 sum, {options.n} ranks, shared memory: median microseconds of "
          f"{options.rounds} rounds")
    print(f"{'bytes':>10}" + "".join(f"{name:>12}" for name in names)
          + f"{'ratio':>9}{'target':>8}{'ratio --mem cinch':>19}")
    result = []
    for size in SIZES:
        median = {name: statistics.median(times[name, size]) for name in names}
        best = min(median[mpi] for mpi in programs)
        row = {"bytes": size, "ranks": options.n, "rounds": options.rounds, "median_us": median,
               "ratio": median["malloc"] / best, "ratio_mem_cinch": median["cinch"] / best,
               "target": TARGETS[size]}
        result.append(row)
        print(f"{size:>10}" + "".join(f"{median[name]:>12.2f}" for name in names)
              + f"{row['ratio']:>9.2f}{row['target']:>8.1f}{row['ratio_mem_cinch']:>19.2f}")
    if options.json:
        with open(options.json, "w", encoding="ascii") as file:
            for row in result:
                file.write(json.dumps(row) + "\n")


main()
