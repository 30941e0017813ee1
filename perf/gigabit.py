#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""All-reduce over 1 Gbit/s: network namespaces on a bridge, each end of every veth shaped by
`tc tbf rate 1gbit burst 128kb latency 20ms`.

Needs root, iproute2, iperf3, the kernel's sch_tbf and a built `cinch`. Makes namespaces and removes
them, also when it is interrupted. L is what iperf3 carries both ways at once; exact is compared
with 2(n-1)/n * S / L, codecs with exact. Rounds interleave the codecs.

    perf/gigabit.py [--build build/release] [--ranks 2,4] [--rounds 15] [--transport T] [--json FILE]
"""
import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import time

GIGABIT = 1000  # Mbit/s
CODECS = ["none", "int8", "topk:ratio=0.01"]
TARGETS = {"none": "0.98 to 1.03 of the bound", "int8": ">= 3.5 times exact",
           "topk:ratio=0.01": ">= 6 times exact"}


def run(*command):
    subprocess.run(command, check=True, capture_output=True)


def shaper(mbits):
    """The arguments of tc for a link of so many Mbit/s."""
    return ["tbf", "rate", f"{mbits}mbit", "burst", "128kb", "latency", "20ms"]


class Net:
    """Namespaces with addresses 10.77.0.1.. on a bridge in one more namespace. links: how many of
    1 Gbit/s, or a list of their speeds in Mbit/s."""

    def __init__(self, links):
        self.tag = f"cinch{os.getpid()}"
        self.rates = [GIGABIT] * links if isinstance(links, int) else list(links)
        ranks = self.ranks = len(self.rates)
        self.names = [f"{self.tag}r{i}" for i in range(ranks)]
        self.hub = f"{self.tag}hub"

    def __enter__(self):
        run("ip", "netns", "add", self.hub)
        run("ip", "-n", self.hub, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.hub, "link", "set", "br0", "up")
        for i, name in enumerate(self.names):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "-n", self.hub, "link", "add", f"p{i}", "type", "veth", "peer", "name",
                "eth0", "netns", name)
            run("ip", "-n", self.hub, "link", "set", f"p{i}", "master", "br0", "up")
            run("ip", "-n", name, "addr", "add", f"10.77.0.{i + 1}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            shape = shaper(self.rates[i])
            run("tc", "-n", self.hub, "qdisc", "add", "dev", f"p{i}", "root", *shape)
            run("tc", "-n", name, "qdisc", "add", "dev", "eth0", "root", *shape)
        return self

    def __exit__(self, *unused):
        for name in self.names + [self.hub]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def line_rate(self, seconds=4):
        """Bytes per second that ranks 0 and 1 receive, both ways at once: the smaller."""
        server = subprocess.Popen(["ip", "netns", "exec", self.names[1], "iperf3", "-s", "-1"],
                                  stdout=subprocess.DEVNULL)
        time.sleep(0.5)
        done = subprocess.run(
            ["ip", "netns", "exec", self.names[0], "iperf3", "-c", "10.77.0.2", "--bidir", "-O", "1",
             "-t", str(seconds), "-J"], capture_output=True, text=True, check=True)
        server.wait()
        end = json.loads(done.stdout)["end"]
        return min(end["sum_received"]["bits_per_second"],
                   end["sum_received_bidir_reverse"]["bits_per_second"]) / 8

    def run_ranks(self, arguments, settings=None, timeout=300, per_host=1):
        """Runs a command of `cinch`, with per_host ranks in each namespace: rank 0's stdout."""
        size = self.ranks * per_host
        meeting = f"10.77.0.1:29400#{secrets.token_hex(32)}"
        ranks = []
        for rank in range(size):
            environment = dict(os.environ, CINCH_RANK=str(rank), CINCH_SIZE=str(size),
                               CINCH_COMM_ID=meeting, CINCH_INIT_TIMEOUT_MS="60000",
                               **(settings or {}))
            ranks.append(subprocess.Popen(
                ["ip", "netns", "exec", self.names[rank // per_host], *arguments], env=environment,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        outputs = [rank.communicate(timeout=timeout) for rank in ranks]
        if any(rank.returncode for rank in ranks):
            sys.exit(f"{' '.join(arguments)} failed:\n" + "".join(error for _, error in outputs))
        return outputs[0][0]

    def perf(self, cinch, codec, size, samples, transport="auto"):
        output = self.run_ranks([cinch, "perf", "allreduce", "-b", str(size), "-e", str(size), "-w",
                                 "1", "-N", str(samples), "-c", "0", "--codec", codec, "--transport",
                                 transport, "--json", "-"],
                                {"UCX_TLS": "tcp,self"} if transport == "ucx" else None)
        return json.loads(output.splitlines()[-1])


def compare(net, cinch, options):
    size = options.size
    bound_factor = 2 * (net.ranks - 1) / net.ranks
    rates, times, wire = [], {codec: [] for codec in options.codecs}, {}
    for turn in range(options.rounds):
        if turn % 5 == 0:
            rates.append(net.line_rate())
        for codec in options.codecs:
            line = net.perf(cinch, codec, size, options.samples, options.transport)
            times[codec].append(line["time_us"])
            wire[codec] = line["wire_bytes"]
        print(f"{net.ranks} ranks, round {turn + 1} of {options.rounds}", file=sys.stderr)
    rate = statistics.median(rates)
    bound = bound_factor * size / rate * 1e6
    exact = statistics.median(times[options.codecs[0]])
    rows = []
    for codec in options.codecs:
        median = statistics.median(times[codec])
        rows.append({"ranks": net.ranks, "bytes": size, "codec": codec, "time_us": median,
                     "line_rate_Bps": rate, "bound_us": bound, "of_bound": median / bound,
                     "speedup": exact / median, "wire_bytes": wire[codec],
                     "wire_ratio": wire[codec] / (bound_factor * size)})
        print(f"{net.ranks} ranks  {codec:<16} {median / 1e3:9.2f} ms  of the bound "
              f"{median / bound:6.3f}  speed-up {exact / median:6.2f}  wire "
              f"{rows[-1]['wire_ratio']:6.4f}  (target {TARGETS.get(codec, 'none')})")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--ranks", default="2,4")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--size", type=int, default=16 << 20)
    parser.add_argument("--codecs", nargs="+", default=CODECS, help="the first is compared with")
    parser.add_argument("--transport", default="auto", help="ucx: over its own tcp")
    parser.add_argument("--json")
    options = parser.parse_args()
    cinch = os.path.abspath(os.path.join(options.build, "perf", "cinch"))
    rows = []
    for ranks in [int(word) for word in options.ranks.split(",")]:
        with Net(ranks) as net:
            rows += compare(net, cinch, options)
    if options.json:
        with open(options.json, "w", encoding="ascii") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
