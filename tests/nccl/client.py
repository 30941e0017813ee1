#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Opens libnccl.so.2 through ctypes and all-reduces host memory: client.py NAME-OR-PATH."""
import ctypes
import os
import sys

RANKS, COUNT = 2, 1000
FLOAT, SUM = 7, 0


class UniqueId(ctypes.Structure):
    _fields_ = [("internal", ctypes.c_byte * 128)]


def open_library(name):
    library = ctypes.CDLL(name)
    pointer, integer, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    functions = {
        "ncclGetErrorString": (ctypes.c_char_p, [integer]),
        "ncclGetVersion": (integer, [ctypes.POINTER(integer)]),
        "ncclGetUniqueId": (integer, [ctypes.POINTER(UniqueId)]),
        "ncclCommInitRank": (integer, [ctypes.POINTER(pointer), integer, UniqueId, integer]),
        "ncclAllReduce": (integer, [pointer, pointer, size, integer, integer, pointer, pointer]),
        "ncclReduce": (
            integer, [pointer, pointer, size, integer, integer, integer, pointer, pointer]),
        "ncclAllGather": (integer, [pointer, pointer, size, integer, pointer, pointer]),
        "ncclReduceScatter": (
            integer, [pointer, pointer, size, integer, integer, pointer, pointer]),
        "ncclSend": (integer, [pointer, size, integer, integer, pointer, pointer]),
        "ncclRecv": (integer, [pointer, size, integer, integer, pointer, pointer]),
        "ncclBroadcast": (
            integer, [pointer, pointer, size, integer, integer, pointer, pointer]),
        "ncclCommDestroy": (integer, [pointer]),
        "ncclGroupStart": (integer, []),
        "ncclGroupEnd": (integer, []),
        "ncclCommWindowRegister": (
            integer, [pointer, pointer, size, ctypes.POINTER(pointer), integer]),
        "ncclCommWindowDeregister": (integer, [pointer, pointer]),
    }
    for name, (restype, argtypes) in functions.items():
        function = getattr(library, name)
        function.restype, function.argtypes = restype, argtypes
    return library


def must(library, code):
    if code != 0:
        sys.exit(library.ncclGetErrorString(code).decode())


def run_rank(library, rank, unique_id):
    comm = ctypes.c_void_p()
    must(library, library.ncclCommInitRank(ctypes.byref(comm), RANKS, unique_id, rank))
    array = ctypes.c_float * COUNT
    send = array(*[(rank + 1) * i for i in range(COUNT)])
    recv = array()
    must(library, library.ncclAllReduce(send, recv, COUNT, FLOAT, SUM, comm, None))
    must(library, library.ncclGroupStart())
    must(library, library.ncclAllReduce(send, send, COUNT, FLOAT, SUM, comm, None))
    must(library, library.ncclGroupEnd())
    must(library, library.ncclCommDestroy(comm))
    want = [sum(range(1, RANKS + 1)) * i for i in range(COUNT)]
    return 0 if list(recv) == want and list(send) == want else 1


def main():
    library = open_library(sys.argv[1])
    version, unique_id = ctypes.c_int(), UniqueId()
    must(library, library.ncclGetVersion(ctypes.byref(version)))
    from_rank_0, to_others = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(to_others)
        data = b""
        while len(data) < 128:
            more = os.read(from_rank_0, 128 - len(data))
            if not more:
                os._exit(1)
            data += more
        os._exit(run_rank(library, 1, UniqueId.from_buffer_copy(data)))
    os.close(from_rank_0)
    must(library, library.ncclGetUniqueId(ctypes.byref(unique_id)))
    os.write(to_others, bytes(unique_id))
    wrong = run_rank(library, 0, unique_id)
    status = os.waitpid(child, 0)[1]
    if wrong or status:
        sys.exit("wrong sums")
    print(f"by {sys.argv[1]}: {version.value}, sums right on {RANKS} ranks")


main()
