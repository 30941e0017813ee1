#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Unmodified DDP with two processes on one GPU, the drop-in in NCCL's place: a small transformer
learns the same text order with

    one     one process, the whole batch: what all others are compared with
    stock   the real NCCL, made to run on one GPU: a host id for each process, sockets between
    exact   cinch's libnccl.so.2 preloaded, told by CINCH_HOSTID that it is on two hosts
    int8    the same with CINCH_CODEC=int8

    perf/torch/gpu_ddp.py --library build/release/coll/nccl/libnccl.so.2 [--json FILE]

Judges: exact losses within 1e-3 of one process's in every step, int8's last ones within 1 %, and a
step at most half of stock NCCL's. Status 0: all hold; 1: one does not; 77: no PyTorch or no GPU.
--device cpu runs one and stock (Gloo) without a GPU: a check of this script.
"""
import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time

SEED, VOCABULARY, WARM_UP = 1, 64, 5


def model_of(torch, width, depth):
    nn = torch.nn

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(VOCABULARY, width)
            # Norms first: training is steady then, and what rounding changes stays that small.
            layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True,
                                               norm_first=True)
            self.body = nn.TransformerEncoder(layer, depth)
            self.head = nn.Linear(width, VOCABULARY)

        def forward(self, text):
            return self.head(self.body(self.embed(text)))

    return Model()


def batch_of(torch, step, rows, length):
    """Text whose next letter follows from the last one, with some noise."""
    generator = torch.Generator().manual_seed(1000 + step)
    start = torch.randint(VOCABULARY, (rows, 1), generator=generator)
    walk = torch.cumsum(torch.randint(1, 4, (rows, length), generator=generator), dim=1)
    text = (start + walk) % VOCABULARY
    return text[:, :-1], text[:, 1:]


def work(options):
    """What one rank does; rank 0 prints its losses and times."""
    import torch  # pylint: disable=import-outside-toplevel
    import torch.distributed as dist  # pylint: disable=import-outside-toplevel
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    gpu = options.device == "cuda"
    device = torch.device("cuda", 0) if gpu else torch.device("cpu")
    torch.manual_seed(SEED)
    if not gpu:
        torch.set_num_threads(1)
    model = model_of(torch, options.width, options.depth).to(device)
    if size > 1:
        dist.init_process_group("nccl" if gpu else "gloo")
        model = torch.nn.parallel.DistributedDataParallel(model, device_ids=[0] if gpu else None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)
    rows, losses, times = options.batch // size, [], []
    for step in range(options.steps):
        text, following = batch_of(torch, step, options.batch, options.length)
        mine = slice(rank * rows, (rank + 1) * rows)
        text, following = text[mine].to(device), following[mine].to(device)
        if gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(text).flatten(0, 1), following.flatten())
        loss.backward()
        optimizer.step()
        if gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        shown = loss.detach().clone()
        if size > 1:
            dist.all_reduce(shown)
        losses.append(float(shown) / size)
    if rank == 0:
        print("RESULT " + json.dumps({
            "losses": losses, "step_s": statistics.median(times[WARM_UP:]),
            "parameters": sum(p.numel() for p in model.parameters())}))
    if size > 1:
        dist.destroy_process_group()


def environment(mode, rank, size, port, library):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CINCH_", "NCCL_"))}
    env.update(RANK=str(rank), LOCAL_RANK="0", WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1",
               MASTER_PORT=str(port))
    if mode == "stock":
        env.update(NCCL_HOSTID=f"host{rank}", NCCL_NET="Socket", NCCL_P2P_DISABLE="1",
                   NCCL_SHM_DISABLE="1", NCCL_SOCKET_IFNAME="lo")
    elif mode != "one":
        env.update(LD_PRELOAD=library, CINCH_NCCL_MODE="native", CINCH_HOSTID=f"host{rank}",
                   CINCH_SOCKET_IFNAME="lo",
                   # Without libsodium there is no handshake between hosts; these are one, on loopback.
                   CINCH_ALLOW_UNAUTHENTICATED="1")
        if mode != "exact":
            env.update(CINCH_CODEC=mode)
    return env


def run(mode, options):
    """One mode's result, or why it has none, by {"why": ...}."""
    size = 1 if mode == "one" else 2
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, os.path.abspath(__file__), "--work"]
    for name in ("device", "steps", "batch", "length", "width", "depth"):
        command += [f"--{name}", str(getattr(options, name))]
    ranks = [subprocess.Popen(command, env=environment(mode, r, size, port, options.library),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
             for r in range(size)]
    outputs, failed = [], None
    deadline = min(time.monotonic() + options.timeout, options.deadline)
    for rank, process in enumerate(ranks):
        try:
            outputs.append(process.communicate(timeout=max(1, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            failed = failed or f"rank {rank} was not done in time"
            for one in ranks:
                one.kill()
            outputs.append(process.communicate())
        if process.returncode and not failed:
            lines = outputs[-1][1].strip().splitlines()
            failed = f"rank {rank} ended with {process.returncode}: {lines[-1] if lines else ''}"
    found = [line[7:] for line in outputs[0][0].splitlines() if line.startswith("RESULT ")]
    return {"why": failed or "no result"} if failed or not found else json.loads(found[0])


def judge(results):
    """Name, value, limit and whether it holds, of what could be measured."""
    one, verdicts = results["one"], []

    def add(name, value, most):
        verdicts.append({"name": name, "value": value, "most": most,
                         "holds": most is None or value <= most})

    for mode in ("stock", "exact"):
        if "losses" in results.get(mode, {}):
            add(f"{mode}: losses differ from one process's by",
                max(abs(a - b) for a, b in zip(results[mode]["losses"], one["losses"])), 1e-3)
    if "losses" in results.get("int8", {}):
        last = [statistics.mean(r["losses"][-10:]) for r in (results["int8"], one)]
        add("int8: last losses differ by, relative", abs(last[0] / last[1] - 1), 0.01)
    if "step_s" in results.get("stock", {}):
        for mode in ("exact", "int8"):
            if "step_s" in results.get(mode, {}):
                add(f"{mode}: step / stock NCCL's", results[mode]["step_s"] /
                    results["stock"]["step_s"], 0.5 if mode == "int8" else None)
    return verdicts


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--library", help="the drop-in")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--modes", nargs="+", choices=["stock", "exact", "int8"])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=33)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--timeout", type=int, default=90, help="seconds, of a mode")
    parser.add_argument("--seconds", type=int, default=480, help="of all modes together")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.deadline = time.monotonic() + options.seconds
    if options.steps <= WARM_UP:
        parser.error(f"--steps {options.steps}: {WARM_UP + 1} or more")
    if not options.modes:
        options.modes = ["stock"] if options.device == "cpu" else ["stock", "exact", "int8"]
    if options.device == "cpu" and set(options.modes) - {"stock"}:
        parser.error("--device cpu: the drop-in's modes need a GPU")
    return options


def main():
    options = parse()
    if options.work:
        work(options)
        return 0
    try:
        import torch  # pylint: disable=import-outside-toplevel
    except ImportError:
        print("skipped: PyTorch is not installed")
        return 77
    if options.device == "cuda" and not torch.cuda.is_available():
        print("skipped: PyTorch finds no GPU")
        return 77
    if set(options.modes) - {"stock"} and not os.path.exists(options.library or ""):
        print(f"gpu_ddp.py: --library {options.library}: the drop-in is not there", file=sys.stderr)
        return 2
    results = {mode: run(mode, options) for mode in ["one"] + options.modes}
    if "why" in results["one"]:
        print(f"one: {results['one']['why']}")
        return 1
    for mode, result in results.items():
        print(f"{mode:<8}" + (result["why"] if "why" in result else
                              f"step {1e3 * result['step_s']:8.2f} ms, loss "
                              f"{result['losses'][0]:.4f} -> {result['losses'][-1]:.4f}"))
    verdicts = judge(results)
    for v in verdicts:
        judged = "not judged" if v["most"] is None else \
            f"at most {v['most']:g}: {'holds' if v['holds'] else 'DOES NOT HOLD'}"
        print(f"{v['name']} {v['value']:.3g}, {judged}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as f:
            json.dump({"torch": torch.__version__, "device": options.device, "results": results,
                       "verdicts": verdicts}, f, indent=1)
    broken = [v["name"] for v in verdicts if not v["holds"]] + [
        f"{mode}: {result['why']}" for mode, result in results.items()
        if "why" in result and mode != "stock"]
    # That the real NCCL cannot be made to run so is nothing that is wrong with cinch.
    print("gpu_ddp.py: " + ("; ".join(broken) if broken else "all that is judged holds"))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
