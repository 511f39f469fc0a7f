"""Says in words what a file holds that is not in the one picture of 8 bits a channel that is made of it.

Each is a phrase that goes on after the file's name and a colon, without a full stop.
"""

import re
import struct
from collections.abc import Iterator

from nanobanana_mcp.pixels.files.containers import tiff_entries, tiff_pages
from nanobanana_mcp.pixels.files.header import MAX_FRAMES_COUNTED, Header, open_picture
from nanobanana_mcp.pixels.files.profiles import MAX_PROFILE_BYTES, is_hdr

# How the main picture of a file says that another one in it is a gain map: Ultra HDR and Adobe, ISO 21496-1, Apple.
# One by one, since alternatives would be tried at every byte of a large photograph.
_GAIN_MAPS = (
    re.compile(rb"http://ns\.adobe\.com/hdr-gain-map/"),
    re.compile(rb"urn:iso:std:iso:ts:21496"),
    re.compile(rb"urn:com:apple:photo:20\d\d:aux:hdrgainmap"),
    re.compile(rb"infe\x02\0\0[\0\1]..\0\0tmap", re.DOTALL),
)
_VIDEO = re.compile(rb"ftyp(mp4|iso|avc|qt  |M4V|hev|hvc|3gp)")


def left_out(data: bytes, header: Header) -> list[str]:
    """Further frames and pages, a gain map, and what lies behind the picture's end, or that its end mark is missing."""
    notes = []
    if header.end is None:  # and nothing else, since a picture that lacks more is refused
        notes.append("the file ends without its end mark; the picture in it is whole")
    if header.frames > 1:
        more = "or more " if header.frames >= MAX_FRAMES_COUNTED else ""
        notes.append(f"only the first of its {header.frames} {more}frames is used")
    pages = tiff_pages(data) if header.format == "tiff" else 1
    if pages > 1:
        notes.append(f"only the first of its {pages} pages is used")
    end = len(data) if header.end is None else header.end
    video = _VIDEO.search(data, end) is not None or (
        header.format in ("heic", "avif") and any(name == b"mpvd" for name in _boxes(data))
    )
    gain_map = header.format in ("jpeg", "heic", "avif") and any(name.search(data) for name in _GAIN_MAPS)
    if gain_map:
        notes.append("its gain map, which brightens it on HDR screens, is left out")
    if video:
        notes.append("the video in the same file is left out")
    if end < len(data) and not video and not gain_map and data.find(b"\xff\xd8\xff", end) == end:
        notes.append("a second picture in the same file is left out")
    elif end < len(data) and not video and not gain_map:
        notes.append(f"{len(data) - end} bytes behind the end of the picture were left out")
    return notes


def levelled(data: bytes, header: Header) -> list[str]:
    """Finer steps, brighter light and more colours than a file written here has."""
    bits = bits_a_channel(data, header)
    notes = [f"its {bits} bits a channel became 8, since all files are written with 8"] if bits > 8 else []
    return [*notes, *recoloured(data, header)]


def recoloured(data: bytes, header: Header) -> list[str]:
    """Says where the colours or the light of the decoded source differ from the file's, beyond its bits a channel."""
    notes = []
    if is_hdr(data, header.format):
        notes.append("it is coded for HDR screens; light above the white of ordinary ones is cut off")
    # To open a JPEG is a walk over all of its bytes, and most say nothing of their colours.
    has_profile = header.format != "jpeg" or b"ICC_PROFILE\0" in data
    profile = open_picture(data, header.format).info.get("icc_profile") or b"" if has_profile else b""
    if len(profile) > MAX_PROFILE_BYTES:
        notes.append(
            f"its colour profile has {len(profile) / 1e6:.1f} MB, too large for a PNG; the colours were converted "
            "to sRGB"
        )
    return notes


def as_sentence(note: str) -> str:
    return f"{note[0].upper()}{note[1:]}."


def bits_a_channel(data: bytes, header: Header) -> int:
    """The bits a channel of the file; 8 where it does not say."""
    if header.format == "png":
        return data[24]
    if header.format in ("avif", "heic"):  # pixi: version and flags, the number of channels, and the bits of each
        place = data.find(b"pixi")
        return data[place + 9] if 0 <= place < len(data) - 9 and data[place + 8] else 8
    if header.format == "tiff":
        for entry in tiff_entries(data):
            if entry.tag == 258:
                if entry.size <= (8 if 43 in data[2:4] else 4):
                    return entry.value
                order = "<" if data[:2] == b"II" else ">"
                return int(struct.unpack_from(order + "H", data, entry.value)[0])
    return 8


def _boxes(data: bytes) -> Iterator[bytes]:
    """Yield the names of the outermost boxes (ISO/IEC 14496-12, 4.2)."""
    place = 0
    while place + 16 <= len(data):
        size, name = struct.unpack_from(">I4s", data, place)
        yield name
        if size == 1:
            size = struct.unpack_from(">Q", data, place + 8)[0]
        if size < 8:
            return
        place += size
