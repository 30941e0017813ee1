#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes codec_golden.inc: what the codecs must make of a few inputs.

It follows compress/FORMAT.md and shares nothing with the C code, so the two check each other.
Run it only when the format changes, which old and new versions of cinch then notice on the wire.
All arithmetic is in double with one rounding to fp32 at a time, which is exact for one operation.
"""
import struct

NAN = 0x7FC00000


def bits(x):
    """fp32 bits of a double, rounded to nearest even."""
    try:
        return struct.unpack("<I", struct.pack("<f", x))[0]
    except OverflowError:
        return 0xFF800000 if x < 0 else 0x7F800000


def value(b):
    return struct.unpack("<f", struct.pack("<I", b))[0]


def fp32(x):
    return value(bits(x))


def mix64(x):
    x &= 2**64 - 1
    for _ in range(2):
        x ^= x >> 32
        x = x * 0xD6E8FEB86659FD93 % 2**64
    return x ^ (x >> 32)


def random16(key, index):
    h = (index ^ key) & 0xFFFFFFFF
    h ^= h >> 16
    h = h * 0x85EBCA6B % 2**32
    h ^= h >> 13
    h = (h + (key >> 32)) % 2**32
    h = h * 0xC2B2AE35 % 2**32
    return h >> 16


def add(src, residual):
    if residual is None:
        return list(src)
    out = []
    for s, r in zip(src, residual):
        a, b = value(s), value(r)
        out.append(bits(a + b) if a == a else s)
    return out


def is_finite(b):
    return b & 0x7FFFFFFF < 0x7F800000


def int8(src, residual, site, block=256, stochastic=False, seed=0):
    total = add(src, residual)
    codes, scales, decoded = b"", b"", []
    left = list(residual) if residual else None
    key = mix64(seed + 0x9E3779B97F4A7C15)
    key = mix64(key + site["call"])
    key = mix64(key + (site["rank"] << 32 | site["phase"]))
    for at in range(0, len(src), block):
        v = total[at : at + block]
        index = site["offset"] + at
        top = max(b & 0x7FFFFFFF for b in v)
        if top >= 0x7F800000:
            codes += bytes(len(v))
            scales += struct.pack("<I", NAN)
            decoded += [NAN] * len(v)
            continue
        scale = inverse = 0.0
        if value(top) >= 2.0**-118:
            scale, inverse = fp32(value(top) / 127), fp32(127 / value(top))
            if not is_finite(bits(127 * scale)):
                scale = value(bits(scale) - 1)
        block_key = mix64(key + (index >> 32))
        for i, b in enumerate(v):
            x = fp32(value(b) * inverse)
            if stochastic:
                u = random16(block_key, (index + i) & 0xFFFFFFFF) / 65536 + 2.0**-17
                q = max(-127, min(127, int(fp32(x + u) // 1)))
            else:
                q = round(x)
            codes += struct.pack("b", q)
            sent = fp32(q * scale)
            decoded.append(bits(sent) if q or scale == 0 else 0)
            if left:
                left[at + i] = bits(value(b) - sent)
        scales += struct.pack("<f", scale)
    return codes + scales, left, decoded


def bf16(src, residual, site):
    wire, decoded = b"", []
    left = list(residual) if residual else None
    for i, b in enumerate(add(src, residual)):
        if b & 0x7FFFFFFF > 0x7F800000:
            half = b >> 16 | 0x40
        else:
            low = b & 0xFFFF
            half = (b >> 16) + (low > 0x8000 or (low == 0x8000 and b >> 16 & 1))
        wire += struct.pack("<H", half)
        decoded.append(half << 16)
        if left and is_finite(half << 16):
            left[i] = bits(value(b) - value(half << 16))
    return wire, left, decoded


def topk(src, residual, site, num, den, whole=False):
    """ratio = num / den; one segment."""
    total = add(src, residual)
    k = -(-len(src) * num // den)
    order = sorted(range(len(src)), key=lambda i: (-(total[i] & 0x7FFFFFFF), i))
    dense = 6 * k >= 4 * len(src)
    chosen = sorted(order[:k]) if not dense else range(len(src))
    decoded = [0] * len(src)
    left = list(residual) if residual else None
    for i in range(len(src)):
        if i in chosen:
            decoded[i] = total[i] if is_finite(total[i]) else NAN
        if left and is_finite(total[i]):
            left[i] = 0 if i in chosen else total[i]
    wire = struct.pack("<I", 0xFFFFFFFF if dense else k) if whole else b""
    if not dense:
        wire += b"".join(struct.pack("<H", i) for i in chosen)
    return wire + b"".join(struct.pack("<I", decoded[i]) for i in chosen), left, decoded


def numbers(count, seed):
    out = []
    for _ in range(count):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append(bits(((seed >> 40) - 2**23) / 2.0**22))
    return out


def words(name, data, per=8):
    lines = [", ".join("0x%08x" % w for w in data[i : i + per]) for i in range(0, len(data), per)]
    return "    .%s = {%s},\n" % (name, (",\n" + " " * 8).join(lines))


def main():
    site = {"call": 5, "offset": 2**32 - 32, "rank": 3, "phase": 1}
    mixed = numbers(70, 1)
    mixed[10], mixed[40] = 0x7F800000, 0x00000001  # block 0 holds Inf
    huge = numbers(33, 2)
    huge[4], huge[32] = 0x7F7FFFFF, bits(2.0**-119)  # FLT_MAX; a block too small to send
    ties = [bits(float(i * 7 % 5 - 2)) for i in range(40)]
    odd = numbers(20, 3)
    odd[:8] = [0x3F808000, 0x3F818000, 0x7F7FFFFF, 0xFFC12345, 0x7F800001, 0x80000001, 0xFF800000, 0]
    old = numbers(70, 4)
    cases = [
        ("int8:block=32,ef=1", int8, dict(block=32), mixed, old),
        ("int8:block=32", int8, dict(block=32), huge, None),
        ("int8:block=32,round=stochastic,seed=9,ef=1", int8,
         dict(block=32, stochastic=True, seed=9), mixed, old),
        ("bf16", bf16, {}, odd, None),
        ("bf16:ef=1", bf16, {}, odd, old[:20]),
        ("topk:ratio=0.1", topk, dict(num=1, den=10), mixed, old),
        ("topk:ratio=0.3,ef=0", topk, dict(num=3, den=10), ties, None),
        ("topk:ratio=0.7", topk, dict(num=7, den=10), mixed[:5], old[:5]),
        ("topk:ratio=0.1,select=global", topk, dict(num=1, den=10, whole=True), mixed, old),
    ]
    out = "/* SPDX-License-Identifier: Apache-2.0 */\n"
    out += "/* Made by make_codec_golden.py from compress/FORMAT.md. */\n"
    for spec, codec, args, src, residual in cases:
        wire, left, decoded = codec(src, residual, site, **args)
        hexes = ["0x%02x" % b for b in wire]
        rows = [", ".join(hexes[i : i + 16]) for i in range(0, len(hexes), 16)]
        out += "{\n    .spec = \"%s\",\n" % spec
        out += "    .count = %d,\n    .bytes = %d,\n" % (len(src), len(wire))
        out += "    .feedback = %s,\n" % ("true" if residual else "false")
        out += words("src", src)
        if residual:
            out += words("residual", residual) + words("left", left)
        out += words("decoded", decoded)
        out += "    .wire = {%s},\n},\n" % (",\n" + " " * 8).join(rows)
    with open(__file__.rsplit("/", 1)[0] + "/codec_golden.inc", "w") as f:
        f.write(out)


main()
