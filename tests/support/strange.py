"""Files as scanners, old programs and cameras write them, made by hand."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import ImageCms


def tiff(
    size: tuple[int, int],
    planes: Sequence[bytes],
    *,
    bits: int = 16,
    channels: int = 1,
    photometric: int = 1,
    order: str = "<",
) -> bytes:
    """An uncompressed TIFF; with more planes than one each channel lies apart. Photometric 0: white is zero, 2: RGB."""
    fields = [
        (256, "I", [size[0]]),
        (257, "I", [size[1]]),
        (258, "H", [bits] * channels),
        (259, "H", [1]),
        (262, "H", [photometric]),
        (273, "I", [0] * len(planes)),
        (277, "H", [channels]),
        (278, "I", [size[1]]),
        (279, "I", [len(plane) for plane in planes]),
        (284, "H", [1 if len(planes) == 1 else 2]),
    ]
    behind = 8 + 2 + 12 * len(fields) + 4
    room = sum(
        len(values) * struct.calcsize(kind) for _, kind, values in fields if len(values) * struct.calcsize(kind) > 4
    )
    fields[5] = (273, "I", [behind + room + sum(len(plane) for plane in planes[:i]) for i in range(len(planes))])
    entries = values_apart = b""
    for tag, kind, values in fields:
        packed = struct.pack(order + kind * len(values), *values)
        entries += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[kind], len(values))
        if len(packed) > 4:
            entries += struct.pack(order + "I", behind + len(values_apart))
            values_apart += packed
        else:
            entries += packed.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(fields))
    return head + entries + bytes(4) + values_apart + b"".join(planes)


def twelve_bits(samples: NDArray[np.uint16]) -> bytes:
    """Two samples of 12 bits in three bytes, as TIFF packs them; rows have an even number of them."""
    first, second = samples[:, ::2], samples[:, 1::2]
    packed = np.stack([first >> 4, ((first & 15) << 4) | (second >> 8), second & 255], -1)
    return packed.astype(np.uint8).tobytes()


def bmp(size: tuple[int, int], colour: tuple[int, int, int], alpha: int) -> bytes:
    """A BMP of 32 bits whose header says that the fourth byte is alpha, one colour all over."""
    red, green, blue = colour
    pixels = bytes([blue, green, red, alpha]) * (size[0] * size[1])
    header = struct.pack("<IiiHHIIiiII", 124, *size, 1, 32, 3, len(pixels), 0, 0, 0, 0)
    header += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(68)
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(pixels), 0, 0, 14 + len(header)) + header + pixels


def png_with(data: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with further chunks behind its header."""
    made = b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    return data[:33] + made + data[33:]


def large_profile() -> bytes:
    """A profile of sRGB that a maker's own tag blows up to 1.4 MB, as measured profiles of printers are."""
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return with_tags(plain, {b"CIED": np.random.default_rng(1).bytes(1_400_000)})


def with_tags(profile: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile with further tags."""
    (count,) = struct.unpack_from(">I", profile, 128)
    table, contents, moved = b"", profile[132 + 12 * count :], 12 * len(tags)
    for place in range(132, 132 + 12 * count, 12):
        name, offset, size = struct.unpack_from(">4sII", profile, place)
        table += struct.pack(">4sII", name, offset + moved, size)
    for name, content in tags.items():
        contents += bytes(-len(contents) % 4)
        table += struct.pack(">4sII", name, 132 + 12 * (count + len(tags)) + len(contents), len(content))
        contents += content
    whole = profile[4:128] + struct.pack(">I", count + len(tags)) + table + contents
    return struct.pack(">I", 4 + len(whole)) + whole
