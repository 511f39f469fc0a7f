"""The small pictures of an answer, together within a budget of bytes however many pictures were made."""

from contextlib import suppress
from pathlib import Path

from nanobanana_mcp.domain.errors import NotAnImage, NotEnoughMemory, RequestError
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.jobs.store import PictureStore
from nanobanana_mcp.pixels.outputs.thumbnails import SINGLE_BYTES, Thumbnail, as_it_is, contact_sheet, thumbnail

ANSWER_BYTES = 600_000
"""Bytes of all previews in one answer: clients cut off at one megabyte, and base64 adds a third."""

THUMBNAIL_PX = 512
"""The long side of the thumbnails that are stored, in pixels."""

APART = 4
"""Up to this many pictures each have a preview of their own."""


def make_previews(records: list[ImageRecord], long_side: int, store: PictureStore) -> list[Thumbnail]:
    """One thumbnail a picture, or one numbered contact sheet beyond four; pictures that do not decode are left out."""
    seen = [(record, data) for record in records if (data := _seen(record, long_side, store)) is not None]
    if not seen:
        return []
    if len(records) > APART:
        captions = [(data, record.id) for record, data in seen]
        return [contact_sheet(captions, cell=min(320, long_side), max_bytes=ANSWER_BYTES)]
    most = min(ANSWER_BYTES // len(seen), SINGLE_BYTES * max(1, round(long_side / THUMBNAIL_PX)))
    previews = []
    for _, data in seen:
        with suppress(NotAnImage, NotEnoughMemory):  # the picture was paid for, and its answer is worth more than this
            previews.append(_small(data, long_side=long_side, max_bytes=most))
    return previews


def make_sheet(records: list[ImageRecord], cell: int, store: PictureStore) -> Thumbnail | None:
    """One contact sheet of pictures, numbered as they are told; a cell says so where there is nothing to show. None where
    that is so of all of them.
    """
    seen = [(_seen(record, cell, store), record.id) for record in records]
    if not any(data for data, _ in seen):
        return None
    return contact_sheet([(data or b"", caption) for data, caption in seen], cell=cell, max_bytes=ANSWER_BYTES // 2)


def _small(data: bytes, *, long_side: int, max_bytes: int) -> Thumbnail:
    ready = as_it_is(data, long_side=long_side, max_bytes=max_bytes) if long_side <= THUMBNAIL_PX else None
    return ready or thumbnail(data, long_side=long_side, max_bytes=max_bytes)


def _seen(record: ImageRecord, long_side: int, store: PictureStore) -> bytes | None:
    """The stored thumbnail if it is large enough and whole, else the master; None when neither is there."""
    if not record.width:
        return None
    small = (
        store.disk.read_own(Path(record.thumbnail_path))
        if record.thumbnail_path and long_side <= THUMBNAIL_PX
        else None
    )
    if small:
        return small
    try:
        return store.read(record)
    except RequestError:
        return None
