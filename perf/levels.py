#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Hierarchical all-reduce against the flat ring: hosts (network namespaces) of several ranks each,
joined by 1 Gbit/s as in gigabit.py. With --sites the hosts are dealt to as many sites in turn of
their numbers, joined by slower links, and there is a third level to compare.

Needs what gigabit.py needs. Rounds interleave the variants; times are medians of their rounds. The
wire's own ratio of hierarchical to ring is (H-1)/H over (n-1)/n for H hosts and n ranks; of three
levels to two it is (H/S)^-1 for S sites of H/S hosts, where the links between sites are the
narrowest: two levels send 2(H/S)(H-H/S)/H of the message out of a site, three 2(S-1)/S.

    perf/levels.py [--build build/release] [--hosts 2] [--per-host 2] [--sites 1]
                   [--site-mbits 250] [--rounds 15] [--json FILE]
"""
import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys

from gigabit import Net, run, shaper

VARIANTS = {"ring": {"CINCH_ALGO": "ring"},
            "hier": {"CINCH_ALGO": "hier"},
            "hier int8": {"CINCH_ALGO": "hier", "CINCH_CODEC": "int8"}}
OF_SITES = {"sites": {"CINCH_ALGO": "hier", "CINCH_SITEID": "{site}"},
            "sites int8": {"CINCH_ALGO": "hier", "CINCH_CODEC": "int8", "CINCH_SITEID": "{site}"}}


class Sites(Net):
    """Hosts on a bridge for each site, and these on one more by slower links."""

    def __init__(self, hosts, sites, mbits):
        super().__init__(hosts)
        self.sites, self.mbits = sites, mbits

    def site(self, host):
        return host * self.sites // self.ranks

    def __enter__(self):
        super().__enter__()
        for site in range(self.sites if self.sites > 1 else 0):
            run("ip", "-n", self.hub, "link", "add", f"site{site}", "type", "bridge")
            run("ip", "-n", self.hub, "link", "set", f"site{site}", "up")
            run("ip", "-n", self.hub, "link", "add", f"up{site}", "type", "veth", "peer", "name",
                f"down{site}")
            for end, bridge in ((f"up{site}", f"site{site}"), (f"down{site}", "br0")):
                run("ip", "-n", self.hub, "link", "set", end, "master", bridge, "up")
                run("tc", "-n", self.hub, "qdisc", "add", "dev", end, "root", *shaper(self.mbits))
        for host in range(self.ranks if self.sites > 1 else 0):
            run("ip", "-n", self.hub, "link", "set", f"p{host}", "master",
                f"site{self.site(host)}")
        return self


def perf(net, cinch, options, settings):
    size = net.ranks * options.per_host
    meeting = f"10.77.0.1:29400#{secrets.token_hex(32)}"
    ranks = []
    for rank in range(size):
        site = f"site{net.site(rank // options.per_host)}"
        own = {name: value.format(site=site) for name, value in settings.items()}
        environment = dict(os.environ, CINCH_RANK=str(rank), CINCH_SIZE=str(size),
                           CINCH_COMM_ID=meeting, CINCH_INIT_TIMEOUT_MS="20000", **own)
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
    parser.add_argument("--sites", type=int, default=1)
    parser.add_argument("--site-mbits", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--size", type=int, default=16 << 20)
    parser.add_argument("--json")
    options = parser.parse_args()
    cinch = os.path.abspath(os.path.join(options.build, "perf", "cinch"))
    variants = dict(VARIANTS, **(OF_SITES if options.sites > 1 else {}))
    times = {name: [] for name in variants}
    with Sites(options.hosts, options.sites, options.site_mbits) as net:
        for turn in range(options.rounds):
            for name, settings in variants.items():
                times[name].append(perf(net, cinch, options, settings))
            print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)
    median = {name: statistics.median(values) for name, values in times.items()}
    n = options.hosts * options.per_host
    wire = (options.hosts - 1) / options.hosts / ((n - 1) / n)
    ratios = {"hier_of_ring": median["hier"] / median["ring"],
              "int8_of_hier": median["hier int8"] / median["hier"], "wire_allows": wire}
    for name, value in median.items():
        print(f"{name:<10} {value / 1e3:9.2f} ms")
    allows = f" (the wire allows {wire:.3f})" if options.sites == 1 else ""
    print(f"hier / ring {ratios['hier_of_ring']:.3f}{allows}, "
          f"hier int8 / hier {ratios['int8_of_hier']:.3f}")
    if options.sites > 1:
        ratios["sites_of_hier"] = median["sites"] / median["hier"]
        ratios["sites_int8_of_hier_int8"] = median["sites int8"] / median["hier int8"]
        print(f"three levels / two {ratios['sites_of_hier']:.3f} (the wire allows "
              f"{options.sites / options.hosts:.3f}), with int8 "
              f"{ratios['sites_int8_of_hier_int8']:.3f}")
    if options.json:
        with open(options.json, "w", encoding="ascii") as file:
            file.write(json.dumps({"hosts": options.hosts, "sites": options.sites, "ranks": n,
                                   "bytes": options.size,
                                   "time_us": median, **ratios}) + "\n")


if __name__ == "__main__":
    main()
