"""Read PPM and PNG, shrink, write PNG: the standard library only, and slow enough to be worth a process of its own."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST = 200_000_000  # bytes of pixels: a small file may claim to be a huge picture


class Picture(NamedTuple):
    """Pixels of red, green and blue, a byte each, row by row."""

    width: int
    height: int
    pixels: bytes


class NotAPicture(ValueError):
    """The file is no picture that this module can read."""


def read(path: Path) -> Picture:
    """Return the picture in a file. Raises NotAPicture, OSError."""
    data = path.read_bytes()
    try:
        picture = read_png(data) if data.startswith(SIGNATURE) else read_ppm(data)
    except (struct.error, zlib.error, IndexError) as error:
        raise NotAPicture(f"{path.name} is damaged: {error}") from error
    except NotAPicture as error:
        raise NotAPicture(f"{path.name}: {error}") from error
    if len(picture.pixels) != picture.width * picture.height * 3 or not picture.pixels:
        raise NotAPicture(f"{path.name} is cut short")
    return picture


def read_ppm(data: bytes) -> Picture:
    head = re.match(rb"P6\s+(?:#[^\n]*\n\s*)*(\d{1,6})\s+(\d{1,6})\s+255\s", data)
    if head is None:
        raise NotAPicture("neither PNG nor PPM (P6, 8 bits)")
    width, height = int(head[1]), int(head[2])
    return Picture(width, height, data[head.end() : head.end() + width * height * 3])


def read_png(data: bytes) -> Picture:
    at, packed = len(SIGNATURE), b""
    width = height = channels = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        chunk = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunk)
            channels = {2: 3, 6: 4}.get(colour, 0)
            if depth != 8 or not channels or interlaced:
                raise NotAPicture("only PNG with 8 bits of red, green and blue, not interlaced, is read here")
        elif kind == b"IDAT":
            packed += chunk
        at += length + 12
    size = height * (width * channels + 1)
    if size > LARGEST:
        raise NotAPicture(f"{width} x {height} pixels are too many")
    return Picture(width, height, unfilter(zlib.decompressobj().decompress(packed, size), width, height, channels))


def unfilter(raw: bytes, width: int, height: int, channels: int) -> bytes:
    """Undo PNG's prediction of each byte from its neighbours, and drop the alpha channel."""
    length = width * channels
    above = bytearray(length)
    rows = bytearray()
    for y in range(height):
        start = y * (length + 1)
        row = bytearray(raw[start + 1 : start + 1 + length])
        kind = raw[start]
        for x in range(length) if kind else ():
            left = row[x - channels] if x >= channels else 0
            corner = above[x - channels] if x >= channels else 0
            row[x] = (row[x] + predict(kind, left, above[x], corner)) & 0xFF
        above = row
        rows += row
    if channels == 4:
        del rows[3::4]
    return bytes(rows)


def predict(kind: int, left: int, above: int, corner: int) -> int:
    if kind == 1:
        return left
    if kind == 2:
        return above
    if kind == 3:
        return (left + above) // 2
    guess = left + above - corner
    return min((left, above, corner), key=lambda value: abs(guess - value))


def shrink(picture: Picture, longest: int, told: Callable[[int], object]) -> Picture:
    """Return the picture with its longer side at most `longest` pixels, each the mean of those it stands for.

    `told` is called with the per cent done, after each tenth.
    """
    scale = max(picture.width, picture.height) / longest
    if scale <= 1:
        return picture
    width, height = max(1, round(picture.width / scale)), max(1, round(picture.height / scale))
    columns = [(int(x * scale) * 3, max(int(x * scale) + 1, int((x + 1) * scale)) * 3) for x in range(width)]
    line = picture.width * 3
    out = bytearray()
    for y in range(height):
        top, bottom = int(y * scale), max(int(y * scale) + 1, int((y + 1) * scale))
        lines = [picture.pixels[row * line : (row + 1) * line] for row in range(top, min(bottom, picture.height))]
        for start, end in columns:
            for channel in range(3):
                values = b"".join(row[start + channel : end : 3] for row in lines)
                out.append(sum(values) // len(values))
        if (y + 1) * 10 // height > y * 10 // height:
            told((y + 1) * 100 // height)
    return Picture(width, height, bytes(out))


def png(picture: Picture) -> bytes:
    """Return the picture as the content of a PNG file."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    line = picture.width * 3
    rows = b"".join(b"\0" + picture.pixels[y * line : (y + 1) * line] for y in range(picture.height))
    head = struct.pack(">IIBBBBB", picture.width, picture.height, 8, 2, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
