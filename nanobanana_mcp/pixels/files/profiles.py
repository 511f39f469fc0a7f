"""ICC profiles (ICC.1:2022): made for pictures that tell their colours otherwise, and freed of names before they leave.

A PNG may name its colours by cICP, or by gAMA and cHRM (PNG third edition, 4.3), an AVIF or HEIC by an nclx box (ITU-T
H.273). Neither Pillow nor the formats written here carry these on, so that they become a profile, which all do.
"""

import struct
from collections.abc import Sequence
from typing import Final

from nanobanana_mcp.pixels.files.containers import png_chunks
from nanobanana_mcp.pixels.files.formats import Format

MAX_PROFILE_BYTES: Final = 1_000_000
"""Pillow opens no PNG whose profile has more than 2^20 bytes. What has a larger one is turned into sRGB."""

_Primaries = tuple[float, float, float, float, float, float, float, float]  # x and y of white, red, green and blue

_D65 = (0.3127, 0.3290)
_SRGB: Final[_Primaries] = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES: Final[dict[int, _Primaries]] = {  # H.273, table 2
    1: _SRGB,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    7: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    12: (*_D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    22: (*_D65, 0.63, 0.34, 0.295, 0.605, 0.155, 0.077),
}
_GAMMAS: Final = {4: 2.2, 5: 2.8, 8: 1.0}  # H.273, table 3; those of video are shown by the sRGB curve, as browsers do
_PQ, _HLG = 16, 18
_WHITE_NITS: Final = 203  # cd/m2 of diffuse white in HDR (ITU-R BT.2408)

# What says how numbers become colours. All others are names, dates, measurements, and whatever a program put there.
_COLOUR_TAGS: Final = {
    *(b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC", b"kTRC", b"wtpt", b"bkpt", b"chad", b"lumi", b"cicp"),
    *(name + bytes([digit]) for name in (b"A2B", b"B2A", b"D2B", b"B2D", b"pre") for digit in b"0123"),
    *(b"gamt", b"chrm", b"clro", b"rig0", b"rig2"),
}
_NEUTRAL_DATE: Final = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
_HEADER, _ENTRY = 128, 12
_MAX_TAGS: Final = 200


def described(data: bytes, found: Format, profile: bytes | None) -> bytes | None:
    """The profile of a picture's colours: the file's own, or one of RGB made of what the file says; None for sRGB."""
    if found == "png":
        return _of_png(data, profile)
    if found in ("avif", "heic") and not profile:
        place = data.find(b"colrnclx")
        if 0 <= place <= len(data) - 12:
            return _of_codes(*struct.unpack_from(">HH", data, place + 8))
    return profile


def is_hdr(data: bytes, found: Format) -> bool:
    """Tells whether a picture is coded for screens that are brighter than white (PQ or HLG)."""
    if found == "png":
        return any(part.name == b"cICP" and data[part.content + 1] in (_PQ, _HLG) for part in png_chunks(data))
    place = data.find(b"colrnclx") if found in ("avif", "heic") else -1
    return 0 <= place <= len(data) - 12 and int.from_bytes(data[place + 10 : place + 12], "big") in (_PQ, _HLG)


def without_names(profile: bytes) -> bytes | None:
    """The same colours without description, copyright, device, maker, dates and private tags; None for no profile.

    The tags that every profile must have, description and copyright, say "ICC profile".
    """
    if len(profile) < _HEADER + 4 or profile[36:40] != b"acsp":
        return None
    (count,) = struct.unpack_from(">I", profile, _HEADER)
    if count > _MAX_TAGS or _HEADER + 4 + _ENTRY * count > len(profile):
        return None
    tags = {}
    for place in range(_HEADER + 4, _HEADER + 4 + _ENTRY * count, _ENTRY):
        name, offset, size = struct.unpack_from(">4sII", profile, place)
        if name in _COLOUR_TAGS and offset + size <= len(profile):
            tags[name] = profile[offset : offset + size]
    header = bytearray(profile[:_HEADER])
    header[4:8] = bytes(4)  # the program that made it
    header[24:36] = _NEUTRAL_DATE
    header[48:56] = bytes(8)  # maker and model of the device
    header[80:_HEADER] = bytes(_HEADER - 80)  # the maker of the profile, its id, and what is reserved
    return _file(bytes(header), tags)


def _of_png(data: bytes, profile: bytes | None) -> bytes | None:
    chunks = {}
    for part in png_chunks(data):
        if part.name == b"IDAT":
            break
        if part.name in (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM"):
            chunks[part.name] = data[part.content : part.stop - 4]
    if len(chunks.get(b"cICP", b"")) == 4:
        return _of_codes(chunks[b"cICP"][0], chunks[b"cICP"][1])
    if profile or b"iCCP" in chunks or b"sRGB" in chunks:
        return profile
    gamma, primaries = 0.0, _SRGB
    if len(chunks.get(b"gAMA", b"")) == 4:
        gamma = int.from_bytes(chunks[b"gAMA"], "big") / 100_000
    if len(chunks.get(b"cHRM", b"")) == 32:
        primaries = tuple(value / 100_000 for value in struct.unpack(">8I", chunks[b"cHRM"]))
    plain = abs(gamma * 2.2 - 1) <= 0.05 or not 0.1 <= gamma <= 10  # libpng's measure of what nobody sees
    if all(abs(one - other) <= 0.01 for one, other in zip(primaries, _SRGB, strict=True)):
        return None if plain else _made(_SRGB, _power(1 / gamma))
    return _made(primaries, _srgb_curve() if plain else _power(1 / gamma))


def _of_codes(primaries: int, transfer: int) -> bytes | None:
    place = _PRIMARIES.get(primaries, _SRGB)
    if transfer in _GAMMAS:
        return _made(place, _power(_GAMMAS[transfer]))
    if transfer == _PQ:
        return _made(place, _table([_pq(step / 1023) / _WHITE_NITS for step in range(1024)]))
    if transfer == _HLG:
        return _made(place, _table([_hlg(step / 1023) / _WHITE_NITS for step in range(1024)]))
    return None if place is _SRGB else _made(place, _srgb_curve())


def _pq(value: float) -> float:
    """cd/m2 of a PQ value, 0 to 1 (ITU-R BT.2100, table 4)."""
    root = value ** (32 / 2523)
    return float(10_000 * (max(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)) ** (8192 / 1305))


def _hlg(value: float) -> float:
    """cd/m2 of an HLG value on a screen of 1,000, channel by channel (ITU-R BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = value * value / 3 if value <= 0.5 else (2.718281828459045 ** ((value - c) / a) + b) / 12
    return float(1000 * scene**1.2)


def _power(gamma: float) -> bytes:
    return b"para" + struct.pack(">IHHi", 0, 0, 0, _fixed(gamma))


def _srgb_curve() -> bytes:
    values = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return b"para" + struct.pack(">IHH5i", 0, 3, 0, *(_fixed(value) for value in values))


def _table(values: Sequence[float]) -> bytes:
    """Light above white is cut off there."""
    steps = [round(min(value, 1.0) * 65_535) for value in values]
    return b"curv" + struct.pack(f">II{len(steps)}H", 0, len(steps), *steps)


def _fixed(value: float) -> int:
    return round(value * 65_536)


def _made(primaries: _Primaries | tuple[float, ...], curve: bytes) -> bytes | None:
    """A profile of these colours; None where they are none."""
    header = bytearray(_HEADER)
    struct.pack_into(">I4s4s4s", header, 8, 0x04200000, b"mntr", b"RGB ", b"XYZ ")
    header[24:40] = _NEUTRAL_DATE + b"acsp"
    struct.pack_into(">3i", header, 68, *_D50_FIXED)
    columns = _adapted(primaries)
    if columns is None:
        return None
    tags = {b"wtpt": _xyz(_D50)}
    for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True):
        tags[name] = _xyz(column)
    return _file(bytes(header), tags | {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve})


_Vector = tuple[float, float, float]
_Matrix = tuple[_Vector, _Vector, _Vector]  # rows

_D50: Final[_Vector] = (0.9642, 1.0, 0.8249)
_D50_FIXED: Final = (0xF6D6, 0x10000, 0xD32D)
_BRADFORD: Final[_Matrix] = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))


def _adapted(primaries: Sequence[float]) -> tuple[_Vector, _Vector, _Vector] | None:
    """XYZ of red, green and blue under D50, by Bradford's adaptation (ICC.1:2022, annex E)."""
    if any(not 0 < value < 1 for value in primaries[1::2]) or any(not 0 <= value < 1 for value in primaries[::2]):
        return None
    white, red, green, blue = (_light(primaries[place], primaries[place + 1]) for place in (0, 2, 4, 6))
    basis = _turned((red, green, blue))
    inverse = _inverse(basis)
    if inverse is None:
        return None
    amounts = _times(inverse, white)
    cones, plain = _times(_BRADFORD, white), _times(_BRADFORD, _D50)
    back = _inverse(_BRADFORD)
    if back is None or min(cones) <= 0:
        return None
    gain = tuple(one / other for one, other in zip(plain, cones, strict=True))
    columns = []
    for colour, amount in zip((red, green, blue), amounts, strict=True):
        seen = _times(_BRADFORD, (colour[0] * amount, colour[1] * amount, colour[2] * amount))
        columns.append(_times(back, (seen[0] * gain[0], seen[1] * gain[1], seen[2] * gain[2])))
    if max(abs(value) for column in columns for value in column) > 10:
        return None
    return columns[0], columns[1], columns[2]


def _light(x: float, y: float) -> _Vector:
    return x / y, 1.0, (1 - x - y) / y


def _turned(rows: _Matrix) -> _Matrix:
    first, second, third = zip(*rows, strict=True)
    return first, second, third


def _times(matrix: _Matrix, vector: _Vector) -> _Vector:
    x, y, z = (sum(one * other for one, other in zip(row, vector, strict=True)) for row in matrix)
    return x, y, z


def _inverse(matrix: _Matrix) -> _Matrix | None:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    whole = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if abs(whole) < 1e-9:
        return None
    rows = (
        (e * i - f * h, c * h - b * i, b * f - c * e),
        (f * g - d * i, a * i - c * g, c * d - a * f),
        (d * h - e * g, b * g - a * h, a * e - b * d),
    )
    first, second, third = ((x / whole, y / whole, z / whole) for x, y, z in rows)
    return first, second, third


def _xyz(values: _Vector) -> bytes:
    return b"XYZ " + struct.pack(">I3i", 0, *(_fixed(value) for value in values))


def _words(name: bytes, version: int) -> bytes:
    """The content of a tag that has to be there and says nothing."""
    text = b"ICC profile"
    if version >= 4:
        wide = text.decode().encode("utf-16-be")
        return b"mluc" + struct.pack(">III2s2sII", 0, 1, 12, b"en", b"US", len(wide), 28) + wide
    if name == b"cprt":
        return b"text" + bytes(4) + text + b"\0"
    return b"desc" + struct.pack(">II", 0, len(text) + 1) + text + b"\0" + bytes(8) + bytes(3 + 67)


def _file(header: bytes, tags: dict[bytes, bytes]) -> bytes:
    """The tags behind their table, each content once, on places that are multiples of four."""
    tags = {name: _words(name, header[8]) for name in (b"desc", b"cprt")} | tags
    place = _HEADER + 4 + _ENTRY * len(tags)
    places: dict[bytes, int] = {}
    table, contents = b"", b""
    for name, content in tags.items():
        if content not in places:
            places[content] = place + len(contents)
            contents += content + bytes(-len(content) % 4)
        table += struct.pack(">4sII", name, places[content], len(content))
    size = place + len(contents)
    return struct.pack(">I", size) + header[4:] + struct.pack(">I", len(tags)) + table + contents
