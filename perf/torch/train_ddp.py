#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains a small model with DistributedDataParallel on the CPU, once per mode and always from the
same seed: with Gloo, and with gradients through cinch, exact or compressed. Compares the losses.

    perf/torch/train_ddp.py [--ranks 2] [--steps 50] [--modes gloo none int8] [--json FILE]

A mode is gloo (plain DDP), local (no communication at all: what the computation takes), or a codec
as in CINCH_CODEC; none is exact. The model guesses the next byte of a text from the 16 before it;
every rank has batches of its own. It is an embedding and a perceptron in float32, with plain
momentum, one thread per rank.
"""
import argparse
import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

CONTEXT, EMBEDDING, BYTES = 16, 64, 256
SMOOTH = 10  # steps at the end over which losses are averaged
HERE = os.path.dirname(os.path.abspath(__file__))


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--modes", nargs="+", default=["gloo", "none", "int8"])
    parser.add_argument("--width", type=int, default=512, help="of the hidden layers")
    parser.add_argument("--depth", type=int, default=3, help="how many hidden layers")
    parser.add_argument("--batch", type=int, default=32, help="per rank")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--bucket-mb", type=float, default=1.5, help="size of DDP's buckets")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--text", default="/usr/share/common-licenses/GPL-3")
    parser.add_argument("--library", default="build/release/libcinch.so")
    parser.add_argument("--alone", type=int, default=0, metavar="TIMES",
                        help="after training, communicate a step's buckets with nothing beside")
    parser.add_argument("--interface", default="lo", help="that Gloo uses")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for everything")
    parser.add_argument("--json", metavar="FILE", help="a line per mode; - is stdout")
    return parser


# ---- one rank ----

def join(rank, ranks, meeting, interface="lo"):
    """One thread, no rank that outlives its parent, and the default process group."""
    import torch
    import torch.distributed as dist
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    os.environ["GLOO_SOCKET_IFNAME"] = interface
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks)


def make_model(width, depth):
    from torch import nn
    layers = [nn.Embedding(BYTES, EMBEDDING), nn.Flatten()]
    inputs = CONTEXT * EMBEDDING
    for _ in range(depth):
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, BYTES))


def train(mode, options, text):
    """One run; returns what this rank saw."""
    import contextlib
    import torch
    import torch.distributed as dist
    import cinch_torch
    torch.manual_seed(options.seed)
    model = make_model(options.width, options.depth)
    ddp = torch.nn.parallel.DistributedDataParallel(model, bucket_cap_mb=options.bucket_mb)
    hook = None
    if mode not in ("gloo", "local"):
        hook = cinch_torch.CinchHook(ddp, library=options.library, codec=mode)
    optimizer = torch.optim.SGD(model.parameters(), lr=options.lr, momentum=0.9)
    places = torch.Generator().manual_seed(options.seed * 1000 + dist.get_rank())
    losses, times, tails = [], [], []
    dist.barrier()
    for _ in range(options.steps):
        began = time.perf_counter()
        at = torch.randint(len(text) - CONTEXT, (options.batch, 1), generator=places)
        window = text[at + torch.arange(CONTEXT + 1)]
        optimizer.zero_grad()
        with ddp.no_sync() if mode == "local" else contextlib.nullcontext():
            loss = torch.nn.functional.cross_entropy(ddp(window[:, :-1]), window[:, -1])
            loss.backward()
        optimizer.step()
        losses.append(loss.item())
        times.append(time.perf_counter() - began)
    out = {"losses": losses, "step_s": times,
           "parameters": sum(p.numel() for p in model.parameters()),
           "hash": hashlib.sha256(b"".join(p.detach().numpy().tobytes()
                                           for p in model.parameters())).hexdigest()}
    if hook:
        out.update(hook.report(), stats=hook.stats(), bucket_elements=hook.sizes,
                   tag_calls=hook.tag_calls, per_step=hook.steps)
        if options.alone:
            out["alone_s"] = alone(hook, options.alone)
        hook.close()
    return out


def alone(hook, times):
    """Median seconds that a step's buckets take while nothing is computed."""
    import torch
    import torch.distributed as dist
    buckets = [torch.randn(size) for size in hook.sizes]
    seconds = []
    for _ in range(times):
        dist.barrier()
        began = time.perf_counter()
        for future in [hook.all_reduce(bucket) for bucket in buckets]:
            future.wait()
        seconds.append(time.perf_counter() - began)
    return sorted(seconds)[times // 2]


def be_rank(options):
    import torch
    import torch.distributed as dist
    join(options.rank, options.ranks, options.meeting, options.interface)
    with open(options.text, "rb") as file:
        text = torch.tensor(list(file.read()), dtype=torch.int64)
    for mode in options.modes:
        mine = train(mode, options, text)
        everyone = [None] * options.ranks
        dist.all_gather_object(everyone, mine)
        if options.rank == 0:
            with open(options.result, "a", encoding="ascii") as file:
                file.write(json.dumps(summary(mode, everyone)) + "\n")
    dist.barrier()
    dist.destroy_process_group()


def mean(values):
    return sum(values) / len(values)


def median(values):
    return sorted(values)[len(values) // 2]


def summary(mode, everyone):
    """What all ranks saw as one. hidden: of the rank that hid least, as its hook reports it.
    hidden_strict: with the least communication that a rank had and the most waiting, so that
    waiting for a later rank never counts as something that hid."""
    steps = [max(times) for times in zip(*[each["step_s"] for each in everyone])]
    row = {"mode": mode, "ranks": len(everyone), "parameters": everyone[0]["parameters"],
           "losses": [mean(losses) for losses in zip(*[each["losses"] for each in everyone])],
           "step_s": median(steps), "step_min_s": min(steps),
           "identical": len({each["hash"] for each in everyone}) == 1}
    row["loss_final"] = mean(row["losses"][-SMOOTH:])
    if "stats" in everyone[0]:
        row.update(comm_s=min(each["comm_s"] for each in everyone),
                   wait_s=max(each["wait_s"] for each in everyone),
                   reported=[each["hidden"] for each in everyone],
                   bucket_elements=everyone[0]["bucket_elements"],
                   **{key: everyone[0][key] for key in ("stats", "tag_calls", "per_step", "steps")})
        row["hidden"] = min(row["reported"]) if row["steps"] else None
        row["hidden_strict"] = 1 - row["wait_s"] / row["comm_s"] if row["steps"] else None
        if "alone_s" in everyone[0]:
            row["alone_s"] = max(each["alone_s"] for each in everyone)
    return row


# ---- all ranks ----

def start_ranks(command, ranks, prefix=lambda rank: [], timeout=600, environment=None):
    """Runs command(rank) for all ranks, behind prefix(rank); the first failure ends the others.
    Returns the exit statuses."""
    started = [subprocess.Popen(prefix(rank) + command(rank), env=environment)
               for rank in range(ranks)]
    end = time.monotonic() + timeout
    try:
        while time.monotonic() < end:
            status = [each.poll() for each in started]
            if None not in status or any(status):
                break
            time.sleep(0.05)
        grace = time.monotonic() + 2  # for what the others have to say
        while time.monotonic() < grace and any(each.poll() is None for each in started):
            time.sleep(0.05)
    finally:
        for each in started:
            if each.poll() is None:
                each.kill()
            each.wait()
    return [each.returncode for each in started]


def run(options, prefix=lambda rank: []):
    """All modes on ranks of their own; the rows that rank 0 wrote."""
    with tempfile.TemporaryDirectory() as folder:
        result = os.path.join(folder, "result")
        given = [f"--{key.replace('_', '-')}={value}" for key, value in vars(options).items()
                 if key in RANK_OPTIONS]

        def command(rank):
            return [sys.executable, os.path.join(HERE, "train_ddp.py"), *given, f"--rank={rank}",
                    f"--meeting={os.path.join(folder, 'meeting')}", f"--result={result}",
                    "--modes", *options.modes]

        status = start_ranks(command, options.ranks, prefix, options.timeout)
        if any(status):
            sys.exit(f"ranks ended with {status}")
        with open(result, encoding="ascii") as file:
            return [json.loads(line) for line in file]


RANK_OPTIONS = ("ranks", "steps", "width", "depth", "batch", "lr", "bucket_mb", "seed", "text",
                "library", "alone", "interface")


def compare(rows):
    """Adds to each row how its losses stand to those of the first."""
    first = rows[0]["losses"]
    for row in rows:
        row["loss_off"] = max(abs(a - b) / abs(b) for a, b in zip(row["losses"], first))
        row["loss_final_off"] = row["loss_final"] / rows[0]["loss_final"] - 1
    return rows


def show(rows, out):
    base = rows[0]["mode"]
    print(f"{'step':>5}" + "".join(f"{row['mode']:>18}" for row in rows), file=out)
    for step in range(len(rows[0]["losses"])):
        print(f"{step + 1:5}" + "".join(f"{row['losses'][step]:18.7f}" for row in rows), file=out)
    for row in rows:
        print(f"{row['mode']}: loss {row['losses'][0]:.4f} -> {row['loss_final']:.4f} (last "
              f"{SMOOTH} steps), against {base}: {100 * row['loss_final_off']:+.4f} %, at most "
              f"{row['loss_off']:.1e} in a step; {1e3 * row['step_s']:.1f} ms a step", file=out)
        if "stats" in row and row["steps"]:
            hidden = ", ".join(f"{100 * part:.0f} %" for part in row["reported"])
            print(f"    of the communication hid, by rank: {hidden}; "
                  f"{row['stats']['compressed_calls']} of {row['stats']['calls']} calls compressed",
                  file=out)


def main():
    parser = arguments(__doc__.split("\n\n")[0])
    for name in "rank", "meeting", "result":
        parser.add_argument(f"--{name}", type=int if name == "rank" else str,
                            help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank is not None:
        sys.path.insert(0, HERE)
        be_rank(options)
        return
    for path in options.library, options.text:
        if "/" in path and not os.path.exists(path):
            parser.error(f"{path} is not there")
    rows = compare(run(options))
    show(rows, sys.stderr if options.json == "-" else sys.stdout)
    write_json(rows, options.json)


def write_json(rows, path):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if path == "-":
        print(lines, end="")
    elif path:
        with open(path, "w", encoding="ascii") as file:
            file.write(lines)


if __name__ == "__main__":
    main()
