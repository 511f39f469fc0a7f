"""Shows pictures closely, and tells which picture of the library a file is a copy of. Free, and changes nothing."""

import hashlib
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from nanobanana_mcp.domain.errors import NotAnImage, NotEnoughMemory, RequestError, SourceNotFound
from nanobanana_mcp.domain.finding import LEAST_VIEW_PX, MOST_VIEW_PX, FoundPage, ViewRequest
from nanobanana_mcp.domain.ids import is_file_id, is_image_id
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.domain.text import counted, printable, shorten
from nanobanana_mcp.jobs.files import no_such_picture
from nanobanana_mcp.jobs.store import PictureStore
from nanobanana_mcp.library.finding import Finder
from nanobanana_mcp.pixels.files.header import read_header
from nanobanana_mcp.pixels.outputs.likeness import ALIKE, distance, look_of
from nanobanana_mcp.pixels.outputs.look import Look, look, same_pixels
from nanobanana_mcp.pixels.outputs.thumbnails import thumbnail
from nanobanana_mcp.studio.previews import ANSWER_BYTES
from nanobanana_mcp.studio.search import Search

COMPARED_S = 2.0
"""Seconds for which thumbnails are looked at that nobody has looked at before; the next question goes on from there."""

COMPARED = 20_000
"""The number of the newest pictures whose looks are compared."""

SAME_SIZE = 500
DECODED = 12
"""Pictures of the same size and look whose every pixel is compared."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A look at a picture, with what the library knows of it, and of the one that it was compared with."""

    look: Look
    name: str
    record: ImageRecord | None
    other_name: str | None = None
    other: ImageRecord | None = None
    notes: tuple[str, ...] = ()


class Viewer:
    """Reads by the same rules as an edit would."""

    def __init__(self, store: PictureStore, search: Search) -> None:
        self._store = store
        self._library = store.library
        self._search = search

    def view(self, wanted: ViewRequest) -> View:
        """Raises RequestError for a box outside and for what is no picture here, SourceNotFound."""
        if not LEAST_VIEW_PX <= wanted.max_px <= MOST_VIEW_PX:
            raise RequestError(f"max_px is {wanted.max_px}; it goes from {LEAST_VIEW_PX} to {MOST_VIEW_PX}.")
        other, other_data = (None, None) if wanted.compare_with is None else self._read(wanted.compare_with)
        notes: list[str] = []
        try:
            record, data = self._read(wanted.image)
        except SourceNotFound as error:
            record = self._library.get(wanted.image) if is_image_id(wanted.image) else None
            small = self._thumbnail(record)
            if record is None or small is None or wanted.box is not None or other_data is not None:
                raise
            data = small
            notes.append(f"{str(error).split('. ')[0].rstrip('.')}. This is its thumbnail.")
        try:
            seen = look(data, box=wanted.box, max_px=wanted.max_px, max_bytes=ANSWER_BYTES, other=other_data)
        except (NotAnImage, NotEnoughMemory) as error:
            raise type(error)(f"{shorten(wanted.image)}: {error}") from error
        return View(
            look=seen,
            name=record.id if record is not None else wanted.image,
            record=record,
            other_name=other.id if other is not None else wanted.compare_with,
            other=other,
            notes=(*notes, *seen.notes),
        )

    def copy_of(self, given: str, limit: int) -> FoundPage:
        """Our pictures that a file is a copy of: of the same bytes, else of the same pixels, else those that look like it.

        Raises what reading a caller's file may raise.
        """
        path, data = self._store.disk.read_input(given, may_be_made=self._library.has_made)
        digest = hashlib.sha256(data).hexdigest()
        same = [record.id for record in self._library.all_with_content(digest)]
        if same:
            return self._told(dict.fromkeys(same, "the same bytes"), limit)
        try:
            header = read_header(data)
            mine = look_of(thumbnail(data).data)
        except (NotAnImage, NotEnoughMemory) as error:
            raise type(error)(f"{printable(path)}: {error}") from error
        of_size = self._finder.thumbnails(limit=SAME_SIZE, size=(header.width, header.height))
        near = [one for one, apart in self._near(mine, of_size, None) if apart <= 2 * ALIKE][:DECODED]
        exact = [one for one in near if self._shows(one, data)]
        if exact:
            return self._told(dict.fromkeys(exact, "the same pixels, saved anew"), limit)
        until = time.monotonic() + COMPARED_S
        newest = self._finder.thumbnails(limit=COMPARED)
        alike = [(one, apart) for one, apart in self._near(mine, newest, until) if apart <= ALIKE]
        page = self._told(
            {one: f"looks alike (differs in {apart} of 64 places); not the same pixels" for one, apart in alike}, limit
        )
        known = len(self._search.index().looks(newest))
        notes = [f"No picture of the library has the bytes or the pixels of {printable(path.name)}."]
        if known < len(newest):
            notes.append(
                f"Only {known} of the newest {counted(len(newest), 'picture')} were compared by their looks; call again to go on."
            )
        return replace(page, notes=(*page.notes, *notes))

    @property
    def _finder(self) -> Finder:
        return self._search.finder

    def _near(self, mine: int, thumbnails: dict[str, str], until: float | None) -> list[tuple[str, int]]:
        """Pictures by how little their looks differ from one, as far as there is time to look at those of unknown looks."""
        index = self._search.index()
        known = index.looks(thumbnails)
        fresh: dict[str, int] = {}
        for image_id, path in thumbnails.items():
            if until is not None and time.monotonic() > until:
                break
            small = self._store.disk.read_own(Path(path)) if image_id not in known else None
            if small is not None:
                with suppress(OSError, ValueError):  # a thumbnail that somebody damaged
                    fresh[image_id] = look_of(small)
        index.add_looks(fresh)
        apart = {one: distance(mine, look) for one, look in (known | fresh).items()}
        return sorted(apart.items(), key=lambda pair: (pair[1], pair[0]))

    def _shows(self, image_id: str, data: bytes) -> bool:
        record = self._library.get(image_id)
        ours = self._store.own_bytes(record)
        try:
            return ours is not None and same_pixels(ours, data)
        except NotAnImage:
            return False

    def _told(self, why: dict[str, str], limit: int) -> FoundPage:
        ids = list(why)[:limit]
        return FoundPage(pictures=self._search.told(ids, why), total=len(why))

    def _thumbnail(self, record: ImageRecord | None) -> bytes | None:
        path = record.thumbnail_path if record is not None else None
        return self._store.disk.read_own(Path(path)) if path is not None else None

    def _read(self, given: str) -> tuple[ImageRecord | None, bytes]:
        if is_file_id(given):
            found = self._library.find_by_upload(given)
            if found is None:
                raise RequestError(f"{shorten(given)} is not of a picture here; give its path or img_... id.")
            return found[0], self._store.read(found[0])
        if is_image_id(given):
            record = self._library.get(given)
            if record is None:
                raise no_such_picture(given, self._library)
            return record, self._store.read(record)
        _, data = self._store.disk.read_input(given, may_be_made=self._library.has_made)
        return self._library.find_by_content(hashlib.sha256(data).hexdigest()), data
