"""The parts a picture file is made of: find them, count them, find where the picture ends, leave out metadata.

PNG chunks (PNG third edition, section 5), JPEG segments (ITU-T T.81, annex B), WebP's RIFF chunks (RFC 9649, section
2), GIF blocks (GIF89a) and TIFF directories (TIFF 6.0, section 2). Nothing here decodes a pixel, and every walk is
linear in the size of the file and stops at the first part that does not fit into it.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from nanobanana_mcp.pixels.files.formats import Format

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ORIENTATION_TAG = 0x0112
MAX_PARTS = 200_000
"""A walk through a file gives up after this many parts. 64 MB of PNG in chunks of 8 kB are 8,000 parts; more than this
is made to waste time."""

_PNG_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"sBIT", b"pHYs"}
# Bytes that these have at most; one that is longer holds something else.
_PNG_LONGEST = {
    b"gAMA": 4,
    b"cHRM": 32,
    b"sRGB": 1,
    b"cICP": 4,
    b"sBIT": 4,
    b"pHYs": 9,
    b"PLTE": 768,
    b"tRNS": 256,
    b"IEND": 0,
}
_MAX_PROFILE = 8_000_000
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_JPEG_CODED = _JPEG_FRAMES | {0xC4, 0xCC} | {*range(0xD9, 0xE0)}  # with tables, scans and the end
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_WEBP_KEPT = {b"VP8X", b"ICCP", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"}
_WEBP_PROFILE_FLAG, _WEBP_EXIF_FLAG, _WEBP_XMP_FLAG = 0x20, 0x08, 0x04
_HEIF_EXIF_ITEM = re.compile(rb"(infe\x02\0\0[\0\1]..\0\0|infe\x03\0\0[\0\1]....\0\0)Exif", re.DOTALL)
_TIFF_TYPE_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}


class Part(NamedTuple):
    """One chunk, segment or block: its name, and the offsets of its first byte, its content and the byte behind it."""

    name: bytes
    start: int
    content: int
    stop: int


class TiffEntry(NamedTuple):
    """One field of a TIFF directory: `number` values in `size` bytes.

    `value` is the first of them, or the offset of what does not fit into the field.
    """

    tag: int
    size: int
    number: int
    value: int


def png_chunks(data: bytes) -> Iterator[Part]:
    """Yield the whole chunks up to IEND; a file that is cut off yields no IEND."""
    position = len(PNG_SIGNATURE)
    for _ in range(MAX_PARTS):
        if position + 12 > len(data):
            return
        length, name = struct.unpack_from(">I4s", data, position)
        stop = position + 12 + length
        if stop > len(data):
            return
        yield Part(name, position, position + 8, stop)
        if name == b"IEND":
            return
        position = stop


def jpeg_segments(data: bytes) -> Iterator[Part]:
    """Yield the segments up to EOI, each scan together with its coded data; a file that is cut off yields no EOI."""
    position = 2
    for _ in range(MAX_PARTS):
        found = _JPEG_MARKER.search(data, position)
        if found is None:
            return
        start = found.start()
        marker = data[start + 1]
        if marker in (0x01, 0xD8):  # stand alone, without a length
            position = start + 2
            continue
        if marker == 0xD9:
            yield Part(b"\xd9", start, start + 2, start + 2)
            return
        if start + 4 > len(data):
            return
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        stop = start + 2 + length
        if length < 2 or stop > len(data):
            return
        if marker == 0xDA:
            after = _JPEG_MARKER.search(data, stop)
            stop = after.start() if after else len(data)
        yield Part(bytes([marker]), start, start + 4, stop)
        position = stop


def webp_chunks(data: bytes) -> Iterator[Part]:
    """Yield the chunks inside the RIFF envelope."""
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    position = 12
    for _ in range(MAX_PARTS):
        if position + 8 > end:
            return
        name, length = struct.unpack_from("<4sI", data, position)
        stop = position + 8 + length + length % 2
        if stop > end:
            return
        yield Part(name, position, position + 8, stop)
        position = stop


def gif_blocks(data: bytes) -> Iterator[Part]:
    """Yield extensions (named by their label), images (`,`) and the trailer (`;`), each with its sub-blocks."""
    position = 13 + _gif_table_bytes(data[10]) if len(data) > 10 else len(data)
    for _ in range(MAX_PARTS):
        introducer = data[position : position + 1]
        if introducer == b";":
            yield Part(b";", position, position + 1, position + 1)
            return
        if introducer == b"!":
            content, name = position + 2, data[position + 1 : position + 2]
        elif introducer == b"," and position + 10 <= len(data):
            content, name = position + 11 + _gif_table_bytes(data[position + 9]), b","
        else:
            return
        stop = content
        while stop < len(data) and data[stop]:
            stop += 1 + data[stop]
        stop += 1
        if stop > len(data):
            return
        yield Part(name, position, content, stop)
        position = stop


def _gif_table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def tiff_entries(data: bytes, directory: int | None = None) -> Iterator[TiffEntry]:
    """Yield the fields of the first directory, or of the one at an offset; nothing where none can be read.

    Raises struct.error where the directory is cut off.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    entry, counter, pointer = ("HHQ", "Q", "Q") if big else ("HHI", "H", "I")
    if directory is None:
        directory = struct.unpack_from(order + pointer, data, 8 if big else 4)[0]
    if directory > len(data):  # beyond 2^63 Python itself could not go there
        raise struct.error("the directory lies outside the file")
    (count,) = struct.unpack_from(order + counter, data, directory)
    first, step = directory + struct.calcsize(order + counter), 20 if big else 12
    for position in range(first, first + step * min(count, MAX_PARTS), step):
        tag, kind, number = struct.unpack_from(order + entry, data, position)
        size = _TIFF_TYPE_BYTES.get(kind, 0) * number
        inline = size <= struct.calcsize(pointer)
        code = {1: "B", 3: "H", 4: "I"}.get(kind, pointer) if inline else pointer
        (value,) = struct.unpack_from(order + code, data, position + step - struct.calcsize(order + pointer))
        yield TiffEntry(tag, size, number, value)


def tiff_pages(data: bytes) -> int:
    """Count the pages of a TIFF, up to 1,000, smaller copies behind a page aside."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2], "<")
    seen: set[int] = set()
    pages = 0
    try:
        big = struct.unpack_from(order + "H", data, 2)[0] == 43
        counter, pointer, step = ("Q", "Q", 20) if big else ("H", "I", 12)
        (directory,) = struct.unpack_from(order + pointer, data, 8 if big else 4)
        while 0 < directory < len(data) and directory not in seen and len(seen) < 1000:
            seen.add(directory)
            fields = {entry.tag: entry.value for entry in tiff_entries(data, directory)}
            small = fields.get(254, 0) & 1  # NewSubfileType, bit 0: a copy of reduced size
            pages += not small or len(seen) == 1  # the first is what is read, whatever it is
            (count,) = struct.unpack_from(order + counter, data, directory)
            place = directory + struct.calcsize(order + counter) + step * count
            (directory,) = struct.unpack_from(order + pointer, data, place)
    except (struct.error, OverflowError):  # the chain leads out of the file
        pass
    return max(pages, 1)


def exif_orientation(exif: bytes) -> int:
    """Return tag 0x0112 of a block of EXIF, 1 when it is absent, out of range or unreadable.

    Pillow's own reader copies the content of every tag, so that a block of 1 MB may claim 65,535 times its size.
    """
    while exif.startswith(b"Exif\0\0"):  # some programs write it twice
        exif = exif[6:]
    try:
        values = [entry.value for entry in tiff_entries(exif) if entry.tag == ORIENTATION_TAG]
    except struct.error:
        return 1
    return values[0] if values and 1 <= values[0] <= 8 else 1


def jpeg_frame(data: bytes) -> tuple[int, int, int] | None:
    """Return width, height and the number of components from the frame header, None when there is none."""
    for part in jpeg_segments(data):
        if part.name[0] in _JPEG_FRAMES and part.stop >= part.content + 6:
            height, width, components = struct.unpack_from(">HHB", data, part.content + 1)
            return width, height, components
        if part.name == b"\xda":
            return None
    return None


def jpeg_is_scanned(data: bytes) -> bool:
    """Tells whether the scans of a JPEG that begin in these bytes give every coefficient to its last bit (T.81, B.2.3
    and G.1). It does not look at what lies within a scan.
    """
    components, progressive, left = b"", False, dict[tuple[int, int], int]()
    for part in jpeg_segments(data):
        content = data[part.content : part.stop]
        if part.name[0] in _JPEG_FRAMES and len(content) >= 6:
            components, progressive = content[6::3][: content[5]], part.name in (b"\xc2", b"\xc6", b"\xca", b"\xce")
        elif part.name == b"\xda" and content and len(content) >= 4 + 2 * content[0]:
            count = content[0]
            first, last, bits = content[1 + 2 * count : 4 + 2 * count]
            coefficients = range(first, last + 1) if progressive else range(64)
            left |= {(one, place): bits & 15 for one in content[1 : 1 + 2 * count : 2] for place in coefficients}
    return bool(components) and all(left.get((one, place), 1) == 0 for one in components for place in range(64))


def picture_end(data: bytes, kind: Format) -> int | None:
    """Return the offset behind the last byte of a picture that is no JPEG, None when the file is cut off before it.

    BMP, TIFF, AVIF and HEIC have no end mark; for them this is the end of the file, and decoding has to tell.
    """
    if kind == "png":
        return next((part.stop for part in png_chunks(data) if part.name == b"IEND"), None)
    if kind == "gif":
        return next((part.stop for part in gif_blocks(data) if part.name == b";"), None)
    if kind == "webp":
        end = 8 + int.from_bytes(data[4:8], "little")
        return end if end <= len(data) else None
    return len(data)


def stripped(data: bytes, kind: Format, *, profile: Callable[[bytes], bytes | None] | None = None) -> bytes:
    """Return the same coded pixels without what decoding does not need.

    With `profile`, a PNG, JPEG or WebP gets what that makes of its ICC profile instead, and a PNG loses what its image
    data hold behind the last row; without it both stay as they are.

    Kept are ICC profiles, palettes, transparency, colour signals, density and JPEG's Adobe marker; EXIF, XMP, IPTC,
    comments, text, embedded thumbnails, C2PA, further frames (PNG, GIF) and bytes behind the end go. AVIF and HEIC lose
    their EXIF only, BMP and TIFF nothing. A file that is cut off stays so.
    """
    if kind == "png":
        return _stripped_png(data, profile)
    if kind == "jpeg":
        return _stripped_jpeg(data, profile)
    if kind == "webp":
        return _stripped_webp(data, profile)
    if kind == "gif":
        return _stripped_gif(data)
    if kind in ("avif", "heic"):
        return _HEIF_EXIF_ITEM.sub(rb"\1none", data)
    return data


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _stripped_png(data: bytes, change: Callable[[bytes], bytes | None] | None) -> bytes:
    view = memoryview(data)
    kept: list[bytes | memoryview] = [PNG_SIGNATURE]
    rows = _rows_alone(data) if change is not None else None
    for part in png_chunks(data):
        if part.name == b"iCCP":  # the profile's name is free text
            _, _, packed = data[part.content : part.stop - 4].partition(b"\0")
            if change is not None:
                try:
                    changed = change(zlib.decompressobj().decompress(packed[1:], _MAX_PROFILE))
                except zlib.error:
                    changed = None
                if changed is None:
                    continue
                packed = b"\0" + zlib.compress(changed)
            kept.append(_png_chunk(b"iCCP", b"ICC Profile\0" + packed))
        elif part.name == b"IDAT" and rows is not None:
            kept.append(_png_chunk(b"IDAT", rows))
            rows = b""
        elif part.name in _PNG_KEPT and part.stop - part.start - 12 <= _PNG_LONGEST.get(part.name, len(data)):
            kept.append(view[part.start : part.stop])
    return b"".join(kept)


def _rows_alone(data: bytes) -> bytes | None:
    """The image data of a PNG packed anew without what they hold behind the last row; None where that is nothing.

    Decoders stop at the last row, so that anything may follow it, in the zlib stream or behind that.
    """
    wanted = _png_rows_bytes(data)
    unpacked, more = 0, False
    for piece in _unpacked(data):
        unpacked, more = unpacked + len(piece), not piece
        if unpacked > wanted:
            break
    if unpacked < wanted or (unpacked == wanted and not more):
        return None
    packer, packed, room = zlib.compressobj(), list[bytes](), wanted
    for piece in _unpacked(data):
        packed.append(packer.compress(piece[:room]))
        room -= min(room, len(piece))
        if room == 0:
            break
    return b"".join([*packed, packer.flush()])


def _unpacked(data: bytes) -> Iterator[bytes]:
    """Yield the image data of a PNG in pieces of up to 1 MB, and b"" at last where they are more than one sound stream."""
    unpacker = zlib.decompressobj()
    for part in png_chunks(data):
        rest = data[part.content : part.stop - 4] if part.name == b"IDAT" else b""
        if rest and unpacker.eof:
            yield b""
            return
        while rest:
            try:
                piece = unpacker.decompress(rest, 1_000_000)
            except zlib.error:
                yield b""
                return
            if piece:
                yield piece
            if unpacker.unused_data:
                yield b""
                return
            rest = unpacker.unconsumed_tail


def _png_rows_bytes(data: bytes) -> int:
    """Bytes of all rows with their filter types (PNG third edition, 7.2, 8.1)."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    total = 0
    for left, top, across, down in passes if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total


def _stripped_jpeg(data: bytes, change: Callable[[bytes], bytes | None] | None) -> bytes:
    view = memoryview(data)
    opening = [data[:2]]
    kept: list[bytes | memoryview] = []
    profile: dict[int, bytes] = {}
    for part in jpeg_segments(data):
        marker, size = part.name[0], part.stop - part.content
        if marker in _JPEG_CODED:
            kept.append(view[part.start : part.stop])
        elif marker == 0xE0 and data.startswith(b"JFIF\0", part.content) and size >= 14:
            opening.append(b"\xff\xe0\0\x10" + data[part.content : part.content + 12] + b"\0\0")  # no thumbnail
        elif marker == 0xE2 and data.startswith(b"ICC_PROFILE\0", part.content) and size >= 14:
            if change is None:
                kept.append(view[part.start : part.stop])
            else:
                profile.setdefault(data[part.content + 12], data[part.content + 14 : part.stop])
        elif marker == 0xEE and data.startswith(b"Adobe", part.content) and size >= 12:
            # It says which colours the components are.
            kept.append(b"\xff\xee\0\x0e" + data[part.content : part.content + 12])
    if change is not None and profile:
        opening += _jpeg_profile(change(b"".join(profile[number] for number in sorted(profile))) or b"")
    return b"".join([*opening, *kept])


def _jpeg_profile(profile: bytes) -> list[bytes]:
    """Segments with a profile in pieces that fit into them (ICC.1:2022, B.4)."""
    pieces = [profile[start : start + 65_519] for start in range(0, len(profile), 65_519)]
    return [
        struct.pack(">2sH12sBB", b"\xff\xe2", len(piece) + 16, b"ICC_PROFILE\0", number, len(pieces)) + piece
        for number, piece in enumerate(pieces, 1)
    ]


def _stripped_webp(data: bytes, change: Callable[[bytes], bytes | None] | None) -> bytes:
    view = memoryview(data)
    kept: list[bytes | memoryview] = []
    lost = _WEBP_EXIF_FLAG | _WEBP_XMP_FLAG
    for part in webp_chunks(data):
        if part.name == b"ICCP" and change is not None:
            size = int.from_bytes(data[part.start + 4 : part.content], "little")
            profile = change(data[part.content : part.content + size])
            if profile is None:
                lost |= _WEBP_PROFILE_FLAG
            else:
                kept.append(struct.pack("<4sI", b"ICCP", len(profile)) + profile + bytes(len(profile) % 2))
        elif part.name in _WEBP_KEPT and part.name != b"VP8X":
            kept.append(view[part.start : part.stop])
    for part in webp_chunks(data):
        if part.name == b"VP8X" and part.content < part.stop:
            flags = bytes([data[part.content] & ~lost])
            kept[:0] = [view[part.start : part.content], flags, view[part.content + 1 : part.stop]]
            break
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _stripped_gif(data: bytes) -> bytes:
    """Keep the first image: Pillow joins comments in quadratic time, and nobody asks for the others."""
    control = b""
    for part in gif_blocks(data):
        if part.name == b"\xf9":
            control = data[part.start : part.stop]
        if part.name == b",":
            return data[: 13 + _gif_table_bytes(data[10])] + control + data[part.start : part.stop] + b";"
    return data
