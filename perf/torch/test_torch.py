#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The DDP hook: its losses next to Gloo's, error feedback that follows its buckets, and what a rank
sees when another one dies.

    perf/torch/test_torch.py libcinch.so
"""
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import train_ddp  # pylint: disable=wrong-import-position

STEPS = 50
MIN_BYTES = 1 << 20  # CINCH_CODEC_MIN_BYTES, the default
INT8, TOPK = "int8", "topk:ratio=0.01,ef=1"
faults = []


def hold(truth, sentence):
    if not truth:
        faults.append(sentence)
        print(f"torch: {sentence}", flush=True)


# ---- on a rank ----

class Small:
    """A model of four buckets, of which all are large enough to be compressed."""

    def __init__(self, library, codec, model=None, **kept):
        import torch
        import cinch_torch
        self.model = model
        if model is None:
            torch.manual_seed(3)
            self.model = torch.nn.Sequential(*[torch.nn.Linear(640, 640) for _ in range(4)])
        self.ddp = torch.nn.parallel.DistributedDataParallel(self.model, bucket_cap_mb=1.5)
        self.hook = cinch_torch.CinchHook(self.ddp, library=library, codec=codec, **kept)
        self.parameters = sum(p.numel() for p in self.model.parameters())

    def step(self):
        import torch
        self.model.zero_grad()
        data = torch.randn(8, 640)
        (self.ddp(data) - data).square().mean().backward()


def check_tags(rank, library, out):
    """Residuals are found by tag, at another address and in another process's place."""
    import torch
    small = Small(library, TOPK)
    hook, result = small.hook, {}
    for _ in range(3):
        small.step()
    result["buckets"] = len(hook.sizes)
    result["tag_calls"] = hook.tag_calls
    result["ef_floats"] = hook.stats()["ef_bytes"] / 4 / small.parameters
    result["compressed"] = hook.stats()["compressed_calls"]

    state = hook.state()
    before = hook.stats()["ef_bytes"]
    hook.close()
    again = Small(library, TOPK, model=small.model)  # other buckets, at other addresses
    again.hook.load_state(state)
    for _ in range(3):
        again.step()
    # What was loaded and found nobody would still be counted, beside what came new.
    result["resumed"] = again.hook.stats()["ef_bytes"] / before
    result["steps_seen"] = again.hook.report(skip=0)["steps"]

    generator = torch.Generator().manual_seed(5 + rank)
    count = 1 << 20
    again.hook.all_reduce(torch.randn(count, generator=generator), tag=77).wait()
    for name, tag in (("other", 78), ("same", 77)):
        zeros = torch.zeros(count)
        again.hook.all_reduce(zeros, tag=tag).wait()
        result[name] = int(zeros.count_nonzero())
    again.hook.close()
    try:
        again.hook.all_reduce(torch.zeros(4))
        result["closed"] = "was taken"
    except RuntimeError as error:
        result["closed"] = str(error)
    if rank == 0:
        out(result)


def check_death(rank, library, out):
    """Rank 1 is gone in the middle of a step; rank 0's backward says so."""
    small = Small(library, None)
    said = "nothing"
    try:
        for step in range(100):
            if rank == 1 and step == 3:
                os._exit(0)
            small.step()
    except RuntimeError as error:
        said = str(error)
    small.hook.close()
    out({"said": said})
    os._exit(0)  # Gloo has nobody to say goodbye to


def be_rank(what, library, rank, folder):
    import torch.distributed as dist
    train_ddp.join(rank, 2, os.path.join(folder, "meeting"))

    def out(result):
        with open(os.path.join(folder, "result"), "w", encoding="utf-8") as file:
            json.dump(result, file)

    {"tags": check_tags, "death": check_death}[what](rank, library, out)
    dist.barrier()
    dist.destroy_process_group()


# ---- outside ----

def on_ranks(what, library):
    with tempfile.TemporaryDirectory() as folder:
        status = train_ddp.start_ranks(
            lambda rank: [sys.executable, os.path.abspath(__file__), library, what, str(rank),
                          folder], 2, timeout=120)
        hold(not any(status), f"{what}: ranks ended with {status}")
        try:
            with open(os.path.join(folder, "result"), encoding="utf-8") as file:
                return json.load(file)
        except OSError:
            return None


def check_training(library):
    """50 steps from one seed: Gloo, exact, int8; and no process is left of it."""
    command = [sys.executable, os.path.join(HERE, "train_ddp.py"), "--library", library,
               "--steps", str(STEPS), "--batch", "16", "--modes", "gloo", "none", INT8,
               "--json", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                          start_new_session=True) as process:
        rows = [json.loads(line) for line in process.communicate(timeout=500)[0].splitlines()]
    hold(process.returncode == 0, f"train_ddp.py ended with {process.returncode}")
    try:
        os.killpg(process.pid, 0)
        hold(False, "a process of train_ddp.py is left")
    except ProcessLookupError:
        pass
    if len(rows) != 3:
        hold(False, f"{len(rows)} of 3 runs were reported")
        return
    gloo, exact, int8 = rows
    for row in rows:
        hold(len(row["losses"]) == STEPS, f"{row['mode']}: {len(row['losses'])} steps")
        hold(row["identical"], f"{row['mode']}: the ranks' parameters differ at the end")
    hold(gloo["loss_final"] < 0.8 * gloo["losses"][0], "the model does not learn")
    hold(exact["loss_off"] <= 1e-5, f"exact is off Gloo by {exact['loss_off']:.1e} in a step")
    hold(abs(int8["loss_final_off"]) <= 0.01,
         f"int8 is off Gloo by {100 * int8['loss_final_off']:.2f} % after {STEPS} steps")
    hold(0 < int8["loss_off"] <= 0.01, f"int8 is off Gloo by {int8['loss_off']:.1e} in a step")
    buckets = len(int8["bucket_elements"])
    large = sum(4 * size >= MIN_BYTES for size in int8["bucket_elements"])
    hold(buckets > 1, "one bucket only: nothing can overlap")
    hold(exact["stats"]["compressed_calls"] == 0, "exact was compressed")
    hold(large > 0 and int8["stats"]["compressed_calls"] == (STEPS - 1) * large,
         f"int8: {int8['stats']['compressed_calls']} calls of {large} large buckets compressed")
    for row in (exact, int8):
        hold(row["tag_calls"] == 1 + buckets, f"{row['mode']}: {row['tag_calls']} tags were given")
        hold(len(row["per_step"]) == STEPS, f"{row['mode']}: {len(row['per_step'])} steps reported")
        hold(row["comm_s"] > 0 and row["hidden"] <= 1, f"{row['mode']}: no time was measured")
    print(f"exact {exact['loss_off']:.1e}, int8 {100 * int8['loss_final_off']:+.4f} % off Gloo")


def check_feedback(library):
    got = on_ranks("tags", library)
    if not got:
        return
    hold(got["buckets"] == 4 and got["compressed"] == 8, f"not four compressed buckets: {got}")
    hold(got["tag_calls"] == 1 + 4, f"{got['tag_calls']} tags: one per bucket and its making")
    # One residual per parameter: none is left from the buckets of the first step.
    hold(got["ef_floats"] == 1, f"{got['ef_floats']} residuals per parameter")
    hold(got["other"] == 0, "a residual was found under another tag")
    hold(got["same"] > 0, "no residual was found under the same tag at another address")
    hold(got["resumed"] == 1, f"{got['resumed']} times the residuals after they were loaded")
    hold(got["steps_seen"] == 3, f"{got['steps_seen']} of 3 steps are in the report")
    hold("closed" in got["closed"], f"a tensor after close: {got['closed']}")


def check_end(library):
    got = on_ranks("death", library)
    hold(got and "rank 1" in got["said"], f"after rank 1's death, backward said: {got}")


def main():
    library = os.path.abspath(sys.argv[1])
    if len(sys.argv) > 2:
        be_rank(sys.argv[2], library, int(sys.argv[3]), sys.argv[4])
        return 0
    for name in [name for name in os.environ if name.startswith(("CINCH_", "NCCL_"))]:
        del os.environ[name]
    check_training(library)
    check_feedback(library)
    check_end(library)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
