#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An exact all-reduce over links of different speeds, planned and as a plain ring: network
namespaces as in gigabit.py, of 1000, 1000, 250 and 500 Mbit/s.

Needs what gigabit.py needs, without iperf3. Nothing tells the speeds: `cinch tune` measures them
first. Rounds interleave the ring, what the plan file chooses, and the planned trees; times are
medians of their rounds. Predicted: the message over the plan's bandwidth on the measured graph, as
`cinch topo --plan` computes it.

    perf/uneven.py [--build build/release] [--links 1000,1000,250,500] [--rounds 9] [--json FILE]
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

from gigabit import Net

TARGETS = {"ratio": 0.75, "prediction": 0.10}


def perf(net, cinch, options, settings):
    output = net.run_ranks([cinch, "perf", "allreduce", "-b", str(options.size), "-e",
                            str(options.size), "-w", "1", "-N", str(options.samples), "-c", "0",
                            "--json", "-"], settings)
    return json.loads(output.splitlines()[-1])


def predict(cinch, plans, size, folder):
    """Microseconds by the plan for the graph of a plan file."""
    graph = os.path.join(folder, "measured.graph")
    with open(plans, encoding="utf-8") as file, open(graph, "w", encoding="utf-8") as out:
        out.write("\n".join(json.load(file)["graph"]) + "\n")
    done = subprocess.run([cinch, "topo", "--file", graph, "--plan", "allreduce", "--bytes",
                           str(size), "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["plan"]["predicted_us"]


def compare(net, cinch, options, folder):
    plans = os.path.join(folder, "plans.json")
    print(net.run_ranks([cinch, "tune", "-b", "1M", "-e", str(options.size), "-o", plans]),
          file=sys.stderr)
    variants = {"ring": {"CINCH_ALGO": "ring"}, "planned": {"CINCH_PLAN_FILE": plans},
                "forest": {"CINCH_PLAN_FILE": plans, "CINCH_ALGO": "forest"}}
    times, algos = {name: [] for name in variants}, {}
    for turn in range(options.rounds):
        for name, settings in variants.items():
            line = perf(net, cinch, options, settings)
            times[name].append(line["time_us"])
            algos[name] = line["algo"]
        print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)
    median = {name: statistics.median(values) for name, values in times.items()}
    predicted = predict(cinch, plans, options.size, folder)
    return {"links": net.rates, "bytes": options.size, "time_us": median, "algo": algos,
            "predicted_us": predicted,
            "ratio": {name: median[name] / median["ring"] for name in ("planned", "forest")},
            "of_predicted": {name: median[name] / predicted for name in ("planned", "forest")}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--links", default="1000,1000,250,500", help="Mbit/s")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--size", type=int, default=16 << 20)
    parser.add_argument("--json")
    options = parser.parse_args()
    cinch = os.path.abspath(os.path.join(options.build, "perf", "cinch"))
    with tempfile.TemporaryDirectory() as folder:
        with Net([int(word) for word in options.links.split(",")]) as net:
            result = compare(net, cinch, options, folder)
    for name, value in result["time_us"].items():
        print(f"{name:<8} ({result['algo'][name]}) {value / 1e3:9.2f} ms")
    for name in ("planned", "forest"):
        print(f"{name}: {result['ratio'][name]:.3f} of the ring (target <= {TARGETS['ratio']}), "
              f"{result['of_predicted'][name]:.3f} of the predicted "
              f"{result['predicted_us'] / 1e3:.2f} ms (target within {TARGETS['prediction']:.0%})")
    if options.json:
        with open(options.json, "w", encoding="ascii") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
