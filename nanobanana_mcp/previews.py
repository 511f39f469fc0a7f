"""The small pictures of an answer: within a budget of bytes whatever was made."""

from pathlib import Path

from nanobanana_mcp.domain import ImageRecord
from nanobanana_mcp.pixels.previews import Thumbnail, contact_sheet, thumbnail
from nanobanana_mcp.storage.reading import read_own

ANSWER_BYTES = 600_000
"""All previews of one answer: clients cut off at one megabyte, and base64 makes a third more of it."""

SINGLE_BYTES = 57_000
"""One preview: about 76 kB as it is sent, which keeps a one-picture answer below 80 kB."""

APART = 4
"""Up to this many pictures each have a preview of their own."""


def make_previews(records: list[ImageRecord], long_side: int) -> list[Thumbnail]:
    """One thumbnail a picture, or one numbered contact sheet beyond four; pictures that do not decode are left out."""
    seen = [(record, data) for record in records if (data := _stored(record, long_side)) is not None]
    if not seen:
        return []
    if len(records) > APART:
        captions = [(data, record.id) for record, data in seen]
        return [contact_sheet(captions, cell=min(320, long_side), max_bytes=ANSWER_BYTES)]
    most = min(ANSWER_BYTES // len(seen), SINGLE_BYTES * max(1, round(long_side / 512)))
    return [thumbnail(data, long_side=long_side, max_bytes=most) for _, data in seen]


def _stored(record: ImageRecord, long_side: int) -> bytes | None:
    """The stored thumbnail where it is large enough, else the master: nothing is decoded that need not be."""
    path = record.thumbnail_path if long_side <= 512 else record.path
    return read_own(Path(path)) if path is not None and record.width else None
