# SPDX-License-Identifier: Apache-2.0
"""A communication hook for PyTorch's DistributedDataParallel on the CPU: gradient buckets are
averaged by cinch, on host streams and beside backward, in place of the process group.

    ddp = torch.nn.parallel.DistributedDataParallel(model)
    hook = cinch_torch.CinchHook(ddp, library="build/release/libcinch.so", codec="int8")
    ...                     # train as ever
    print(hook.report())    # how much of the communication hid behind backward
    hook.close()

Plain ctypes: there is nothing to compile.
"""
import collections
import ctypes
import hashlib
import queue
import threading
import time

import torch
import torch.distributed as dist

DTYPES = {torch.int8: 0, torch.uint8: 1, torch.int32: 2, torch.int64: 4, torch.float16: 6,
          torch.float32: 7, torch.float64: 8, torch.bfloat16: 9}
AVG = 4


class CinchError(RuntimeError):
    """What cinch says went wrong."""


class UniqueId(ctypes.Structure):
    _fields_ = [("internal", ctypes.c_ubyte * 128)]


class Stats(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("calls", ctypes.c_uint64), ("bytes", ctypes.c_uint64),
                ("wire_bytes", ctypes.c_uint64), ("comm_us", ctypes.c_double),
                ("codec_us", ctypes.c_double), ("compressed_calls", ctypes.c_uint64),
                ("nonfinite", ctypes.c_uint64), ("ef_bytes", ctypes.c_uint64),
                ("ef_dropped", ctypes.c_uint64)]


# The functions that are used, with the types of their arguments; all return a cinchResult_t.
POINTER, SIZE = ctypes.c_void_p, ctypes.c_size_t
FUNCTIONS = {
    "cinchGetUniqueId": [ctypes.POINTER(UniqueId)],
    "cinchCommInitRank": [ctypes.POINTER(POINTER), ctypes.c_int, UniqueId, ctypes.c_int],
    "cinchCommDestroy": [POINTER],
    "cinchCommSetCodec": [POINTER, ctypes.c_char_p],
    "cinchCommTag": [POINTER, POINTER, SIZE, ctypes.c_uint64],
    "cinchCommGetStats": [POINTER, ctypes.POINTER(Stats)],
    "cinchCommExportState": [POINTER, POINTER, ctypes.POINTER(SIZE)],
    "cinchCommImportState": [POINTER, ctypes.c_char_p, SIZE],
    "cinchStreamCreate": [ctypes.POINTER(POINTER)],
    "cinchStreamSynchronize": [POINTER],
    "cinchStreamDestroy": [POINTER],
    "cinchAllReduce": [POINTER, POINTER, SIZE, ctypes.c_int, ctypes.c_int, POINTER, POINTER],
}


class Library:
    """libcinch.so: its functions, which raise CinchError with cinch's own sentence. While one runs,
    ctypes lets other Python threads run."""

    def __init__(self, path):
        self._loaded = ctypes.CDLL(path)
        self._loaded.cinchGetLastError.restype = ctypes.c_char_p
        self._loaded.cinchGetLastError.argtypes = [POINTER]
        for name, arguments in FUNCTIONS.items():
            function = getattr(self._loaded, name)
            function.restype = ctypes.c_int
            function.argtypes = arguments
            setattr(self, name, self._checked(name, function))

    def _checked(self, name, function):
        def call(*arguments):
            code = function(*arguments)
            if code:
                why = self._loaded.cinchGetLastError(None).decode(errors="replace")
                raise CinchError(f"{name}: {why} (code {code})")
        return call


class _Work:
    """One tensor on its way."""

    def __init__(self, tensor, tag, last=None):
        self.tensor, self.tag = tensor, tag
        self.last = last  # None: not a bucket; True: a step's last one
        self.future = torch.futures.Future()
        self.error = None
        self.stream = None
        self.entered = time.perf_counter()  # when it was handed over,
        self.left = None                    # when whoever did could go on,
        self.done = None                    # when cinch had finished,
        self.released = None                # and when those who wait for it were told

    def bytes(self):
        return self.tensor.numel() * self.tensor.element_size()


def _result(future):
    """Raises what went wrong where the result is asked for."""
    work = future.value()
    if work.error:
        raise work.error
    return work.tensor


class CinchHook:
    """Registers itself with `ddp`. Collective over the ranks of ddp's process group, which carries
    the unique id and none of the gradients; every rank gives the same codec.

    codec: as in CINCH_CODEC, for all levels; None: what the environment says. streams: so many
    tensors are under way at a time, one that cinch works on and others queued behind it; each
    stream is a thread that sleeps until it is its turn. exact_steps: the first backward passes are
    sent exact, because DDP makes its buckets anew after the first one, and residuals of error
    feedback belong to buckets.
    """

    def __init__(self, ddp, library="libcinch.so.0", codec=None, streams=2, exact_steps=1):
        self._lib = Library(library)
        self._codec, self._exact_left, self._state = codec, exact_steps, None
        self._lossy = False  # the codec is in force
        self._numbers = {id(p): i for i, p in enumerate(ddp.module.parameters())}
        self._tags = {}     # address: (bytes, id)
        self.tag_calls = 0  # how often cinch was told a tag
        self._lock = threading.Lock()  # a communicator serves one thread at a time
        self._waiting = collections.deque()  # not with cinch yet
        self._running = queue.SimpleQueue()  # with cinch, in order
        self._free = 0
        self._turn = 0
        self._comm, self._streams = None, []
        self._step, self._ended = [], 0
        self.steps, self.sizes = [], []  # of every step; elements of the last one's buckets
        self._noted = threading.Condition()
        self._closed = False
        self._join(ddp.process_group)
        try:
            self._open_streams(streams)
        except CinchError:
            self._free_handles()
            raise
        self._waiter = threading.Thread(target=self._wait, name="cinch", daemon=True)
        self._waiter.start()
        ddp.register_comm_hook(None, self._bucket_ready)

    # ---- beginning and end ----

    def _join(self, group):
        ident, rank = UniqueId(), dist.get_rank(group)
        box = [None]
        if rank == 0:
            try:
                self._lib.cinchGetUniqueId(ctypes.byref(ident))
                box = [bytes(ident)]
            except CinchError as error:
                box = [str(error)]  # the others wait for an answer
        dist.broadcast_object_list(box, src=dist.get_global_rank(group, 0), group=group)
        if isinstance(box[0], str):
            raise CinchError(box[0])
        comm = POINTER()
        self._lib.cinchCommInitRank(ctypes.byref(comm), dist.get_world_size(group),
                                    UniqueId.from_buffer_copy(box[0]), rank)
        self._comm = comm

    def _open_streams(self, count):
        for _ in range(count):
            stream = POINTER()
            self._lib.cinchStreamCreate(ctypes.byref(stream))
            self._streams.append(stream)
        self._free = count
        self._use_codec(self._codec)  # what is wrong with it is said here
        self._use_codec("none")       # until _end_exact

    def _use_codec(self, codec):
        self._lib.cinchCommSetCodec(self._comm, codec.encode() if codec is not None else None)

    def _free_handles(self):
        """Raises the first failure, when everything is gone."""
        failed = None
        for function, handle in ([(self._lib.cinchStreamDestroy, s) for s in self._streams] +
                                 [(self._lib.cinchCommDestroy, self._comm)]):
            try:
                function(handle)
            except CinchError as error:
                failed = failed or error
        self._comm, self._streams = None, []
        return failed

    def close(self):
        """Completes what is under way and leaves the communicator; DDP cannot run on after it."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if not self._waiting:
                self._running.put(None)
        self._waiter.join()
        self._free_handles()  # a failure was raised where it was met

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    # ---- tensors ----

    def all_reduce(self, tensor, tag=None):
        """Averages a contiguous tensor over the ranks, in place; returns a future of it. tag: an id
        below 2^64 under which error feedback finds its residuals again. For use between backward
        passes: every rank makes the same calls in the same order."""
        return self._hand_over(_Work(tensor, tag))

    def _hand_over(self, work):
        if work.tensor.device.type != "cpu" or not work.tensor.is_contiguous():
            raise CinchError("a tensor is contiguous and in host memory")
        if work.tensor.dtype not in DTYPES:
            raise CinchError(f"{work.tensor.dtype} is none of cinch's datatypes")
        future = work.future.then(_result)
        with self._lock:
            if self._closed:
                raise CinchError("the hook was closed")
            self._waiting.append(work)
            self._issue()
        work.left = time.perf_counter()
        return future

    def _issue(self):
        """Gives cinch as many tensors as there are streams. With the lock held. A stream has one at
        a time, so that it is empty when that one is complete."""
        while self._waiting and self._free:
            work = self._waiting.popleft()
            work.stream = self._streams[self._turn % len(self._streams)]
            self._turn += 1
            self._free -= 1
            pointer = work.tensor.data_ptr()
            try:
                self._tag(pointer, work.bytes(), work.tag)
                self._lib.cinchAllReduce(pointer, pointer, work.tensor.numel(),
                                         DTYPES[work.tensor.dtype], AVG, self._comm, work.stream)
            except CinchError as error:
                work.error = error
            self._running.put(work)
        if self._closed and not self._waiting:
            self._running.put(None)

    def _tag(self, pointer, size, tag):
        """Tells cinch only what is new: that waits until the communicator is idle."""
        if tag is not None and self._tags.get(pointer) == (size, tag):
            return
        stale = [p for p, (n, _) in self._tags.items() if p < pointer + size and pointer < p + n]
        for old in stale:  # the allocator has given a bucket's memory to another
            self._lib.cinchCommTag(self._comm, old, 0, 0)
            del self._tags[old]
        if tag is not None:
            self._lib.cinchCommTag(self._comm, pointer, size, tag)
            self._tags[pointer] = (size, tag)
            self.tag_calls += 1

    def _wait(self):
        """The thread that waits for all of them, in order."""
        previous = 0.0
        while True:
            work = self._running.get()
            if work is None:
                return
            if not work.error:
                try:
                    self._lib.cinchStreamSynchronize(work.stream)
                except CinchError as error:
                    work.error = error
            work.done = time.perf_counter()
            with self._lock:
                self._free += 1
                self._issue()
            work.future.set_result(work)
            work.released = time.perf_counter()
            if work.last is not None:
                self._note(work, max(work.entered, previous))
            previous = work.done

    # ---- buckets ----

    def _bucket_ready(self, _state, bucket: dist.GradBucket):
        if not self._lossy and not self._exact_left:
            self._end_exact()
        work = _Work(bucket.buffer(), self._bucket_id(bucket), bucket.is_last())
        future = self._hand_over(work)
        if work.last:
            self._exact_left -= self._exact_left > 0
            self._ended += 1
        return future

    def _bucket_id(self, bucket):
        """The same for the same parameters in the same order, in another run and wherever the
        buffer lies: what a residual needs to be about the same numbers."""
        numbers = [self._numbers.get(id(p), -1) for p in bucket.parameters()]
        text = f"{bucket.buffer().numel()} {bucket.buffer().dtype} {numbers}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")

    def _end_exact(self):
        self._lossy = True
        with self._lock:
            self._use_codec(self._codec)
            if self._state:
                self._lib.cinchCommImportState(self._comm, self._state, len(self._state))
                self._state = None

    # ---- what it reports ----

    def _note(self, work, begun):
        """Called in the order of completion, which is that of the buckets."""
        self._step.append((work, begun))
        if not work.last:
            return
        works = [each for each, _ in self._step]
        comm = sum(each.done - start for each, start in self._step)
        # Backward waits while the hook runs, and from the last bucket on for all of them.
        wait = sum(each.left - each.entered for each in works[:-1]) + work.released - work.entered
        self.sizes = [each.tensor.numel() for each in works]
        self._step = []
        with self._noted:
            self.steps.append({"buckets": len(works), "bytes": sum(each.bytes() for each in works),
                               "comm_s": comm, "wait_s": wait, "hidden": 1 - wait / comm})
            self._noted.notify_all()

    def report(self, skip=2):
        """Of the steps behind the first `skip`, in which buckets are made and tagged: seconds in
        communication; seconds that backward waited for it; what part was hidden. A bucket's
        communication goes from when it was ready here and the one before was through, so it
        includes waiting for ranks that are later."""
        with self._noted:  # the thread that waits is told of a step's end as backward is
            self._noted.wait_for(lambda: len(self.steps) == self._ended, timeout=10)
        steps = self.steps[skip:]
        comm = sum(step["comm_s"] for step in steps)
        wait = sum(step["wait_s"] for step in steps)
        return {"steps": len(steps), "comm_s": comm, "wait_s": wait,
                "hidden": 1 - wait / comm if comm else None}

    def stats(self):
        """cinchCommGetStats, when nothing is under way."""
        stats = Stats(size=ctypes.sizeof(Stats))
        with self._lock:
            self._lib.cinchCommGetStats(self._comm, ctypes.byref(stats))
        return {name: getattr(stats, name) for name, _ in Stats._fields_[1:]}

    # ---- checkpoints ----

    def state(self):
        """This rank's residuals of error feedback, as bytes, between two steps."""
        size = SIZE()
        with self._lock:
            self._lib.cinchCommExportState(self._comm, None, ctypes.byref(size))
            buffer = ctypes.create_string_buffer(size.value)
            self._lib.cinchCommExportState(self._comm, buffer, ctypes.byref(size))
        return buffer.raw[:size.value]

    def load_state(self, state):
        """What state() gave on this rank, before the first step; buckets find theirs by tag."""
        self._state = state
