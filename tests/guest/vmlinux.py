#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""vmlinux.py BZIMAGE OUT: takes the kernel's ELF file out of a compressed image.

An emulated CPU needs seconds to unpack it at each boot, and qemu boots the ELF file directly. The
places of the fields are those of the kernel's Documentation/arch/x86/boot.rst.
"""
import lzma
import struct
import subprocess
import sys
import zlib


def unpack(payload):
    if payload[:6] == b"\xfd7zXZ\0":
        return lzma.LZMADecompressor().decompress(payload)
    if payload[:2] == b"\x1f\x8b":
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(payload)
    if payload[:4] == b"\x28\xb5\x2f\xfd":
        # The last four bytes are the size of what comes out, not of the stream.
        return subprocess.run(["zstd", "-dcq"], input=payload[:-4], stdout=subprocess.PIPE,
                              check=True).stdout
    raise SystemExit("vmlinux.py: a payload of an unknown kind: " + payload[:6].hex())


def main():
    with open(sys.argv[1], "rb") as file:
        image = file.read()
    sectors = image[0x1f1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    kernel = unpack(image[start:start + length])
    if kernel[:4] != b"\x7fELF":
        raise SystemExit("vmlinux.py: what is inside is no ELF file")
    with open(sys.argv[2], "wb") as file:
        file.write(kernel)


main()
