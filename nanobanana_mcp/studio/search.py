"""Searches the library, notes what people say about pictures, and tells what changed.

The words are in an index of their own (see library.index), which follows the library: a search first enters what changed
since the last one, and a library that had no index yet gets it from a thread behind, the newest pictures first, while
searches answer from what is there and say how much is missing.
"""

import logging
import os
import shutil
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nanobanana_mcp.domain.errors import RequestError, SetupError, StudioError
from nanobanana_mcp.domain.finding import (
    KIND_OF,
    MAX_FOUND,
    MAX_NOTE,
    MAX_QUERY,
    MAX_RATING,
    MAX_TAG,
    MAX_TAGS,
    Annotation,
    Changes,
    FindRequest,
    Found,
    FoundPage,
    Landmarks,
    State,
)
from nanobanana_mcp.domain.ids import is_image_id
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.domain.terms import Backend
from nanobanana_mcp.domain.text import counted, shorten
from nanobanana_mcp.jobs.files import no_such_picture
from nanobanana_mcp.jobs.store import PictureStore
from nanobanana_mcp.library.annotations import Annotations
from nanobanana_mcp.library.finding import Finder, Place, fingerprint
from nanobanana_mcp.library.index import PLACES_A_MS, Hit, Index, Standing, as_expression, as_words, is_expression
from nanobanana_mcp.storage.disk import Disk

logger = logging.getLogger(__name__)

BATCH = 500
"""Pictures that are read from the library (about 10 ms) and entered into the index (about 50 ms) at once."""

AT_ONCE_S = 1.0
"""Seconds that a search goes on entering changes before it answers from what there is."""

HITS = 5000
"""Pictures that fit the words and are checked against the filters at once; also the most that are put in order of the
best."""

MARKED = 50_000
"""The most pictures that fit the words and of which each page's beginning is told: half a second's work."""

SPARE = 20
"""Pictures beyond a page that are looked for at first; without other filters most of them fit."""

SPARSE = 400
"""Pictures that are looked for at first where a filter may leave few of them."""

OPERATORS = (" -", "(", ")", ":", '"', "^", " AND ", " OR ", " NOT ", "NEAR")


class Search:
    """The search of one library; `index_prompts` says whether prompts, and what models wrote, can be searched."""

    def __init__(self, store: PictureStore, backend: Backend, *, index_prompts: bool) -> None:
        self._store = store
        self._disk: Disk = store.disk
        self.finder = Finder(database=store.library.database, backend=backend)
        self.annotations = Annotations(database=store.library.database)
        self._index_prompts = index_prompts
        self._lock = threading.Lock()
        self._index: Index | None = None
        self._folder: Path | None = None
        """The folder of an index for this process alone, where the library may only be read."""
        self._counted: tuple[tuple[str, int] | None, int | None] = None, None
        self._read: tuple[tuple[str, int] | None, list[Place] | None] = None, None
        self._stop = threading.Event()
        self._behind: threading.Thread | None = None

    def find(self, wanted: FindRequest) -> FoundPage:
        """One page of the pictures that are wanted. Raises RequestError, SourceNotFound, SetupError."""
        check(wanted)
        if wanted.made_from is not None and self._store.library.get(wanted.made_from) is None:
            raise no_such_picture(wanted.made_from, self._store.library)
        words = (wanted.query or "").strip()
        if wanted.order == "best":
            return self._best(wanted, words)
        if words:
            return self._fitting_words(wanted, words)
        after = _place(wanted)
        found, is_all = self._newest(wanted, after, wanted.limit + 1)
        places = found[: wanted.limit]
        total = None
        if after is None:
            total = len(places) if is_all else self._count(wanted)
        cursor = None if is_all else _cursor(wanted, places[-1])
        return FoundPage(pictures=self.told([one.image_id for one in places]), cursor=cursor, total=total)

    def landmarks(self, wanted: FindRequest, every: int) -> Landmarks:
        """Returns the places where each page of `every` pictures begins, newest first; none when the words fit more than
        `MARKED` pictures, or are not all in the index yet. Raises RequestError.
        """
        check(wanted)
        words = (wanted.query or "").strip()
        if words:
            return self._landmarks_of_words(wanted, words, every)
        few = self._few(wanted)
        if few is not None:
            total, marks = len(few), few[::-1][every - 1 :: every]
        else:
            total, marks = self.finder.landmarks(wanted, every)
        begins = marks[:-1] if total == len(marks) * every else marks
        return Landmarks(total=total, cursors=tuple(_cursor(wanted, mark) for mark in begins))

    def _landmarks_of_words(self, wanted: FindRequest, words: str, every: int) -> Landmarks:
        if self._followed():  # what is not in the index yet would be left out
            return Landmarks()
        found: list[Hit] = []
        looked_at = 0
        for fitting, _last in self._hits(wanted, self._expression(words)[0], HITS):
            found += fitting
            looked_at += HITS
            if looked_at > MARKED:
                return Landmarks()
        begins = [found[place] for place in range(every - 1, len(found) - 1, every)]
        return Landmarks(total=len(found), cursors=tuple(_word_cursor(wanted, hit) for hit in begins))

    def _newest(self, wanted: FindRequest, after: Place | None, count: int) -> tuple[list[Place], bool]:
        """The places of the next `count` pictures that are wanted, and whether there are no more."""
        few = self._few(wanted)
        if few is None:
            return self.finder.newest(wanted, after, count)
        end = len(few) if after is None else bisect_left(few, after)
        return few[max(0, end - count) : end][::-1], end < count

    def _few(self, wanted: FindRequest) -> list[Place] | None:
        """Returns `Finder.few`, read once as long as nothing changes: its pages are asked for one after the other."""
        if (wanted.tag, wanted.min_rating, wanted.made_from) == (None,) * 3:
            return None
        asked = (fingerprint(wanted), self.annotations.changes(None).last)
        remembered, few = self._read
        if asked != remembered:
            few = self.finder.few(wanted)
            self._read = asked, few  # as one: another search may ask for something else at the same moment
        return few

    def _among(self, wanted: FindRequest) -> set[str] | None:
        few = self._few(wanted)
        return None if few is None else {place.image_id for place in few}

    def _count(self, wanted: FindRequest) -> int | None:
        """Counts the pictures that are wanted, once as long as nothing changes: of 100,000 it takes 15 ms."""
        few = self._few(wanted)
        if few is not None:
            return len(few)
        asked = (fingerprint(wanted), self.annotations.changes(None).last)
        if asked != self._counted[0]:
            self._counted = asked, self.finder.count(wanted)
        return self._counted[1]

    def told(self, ids: Sequence[str], why: Mapping[str, str] | None = None) -> tuple[Found, ...]:
        """The full descriptions of some pictures, without those that are gone meanwhile."""
        with self._store.library.database.read():  # one read of the database; the files are looked at afterwards
            noted, page = self.annotations.of(ids), self.finder.page(ids)
        found = []
        for record, cost in page:
            annotation = noted.get(record.id, Annotation())
            found.append(
                Found(
                    record=record,
                    kind=KIND_OF[record.origin],
                    state=state_of(record),
                    cost_usd=cost,
                    rating=annotation.rating,
                    tags=annotation.tags,
                    note=annotation.note,
                    why=(why or {}).get(record.id),
                )
            )
        return tuple(found)

    def annotate(self, image_id: str, changed: Mapping[str, Any]) -> Found:
        """Changes the notes on a picture, in the library and in the file beside it. Raises RequestError,
        SourceNotFound, SetupError.
        """
        if self._store.library.get(image_id) is None:
            raise no_such_picture(image_id, self._store.library)
        annotation = self.annotations.change(image_id, _sound(changed))
        try:
            # Another window may change the row before this one writes the file, which is then written again from the row.
            while True:
                said = asdict(annotation)
                self._disk.sidecars.write_notes(image_id, said if any(said.values()) else None)
                newer = self.annotations.of([image_id]).get(image_id, Annotation())
                if newer == annotation:
                    break
                annotation = newer
        except OSError as error:
            raise SetupError(
                f"It is noted in the library, but not beside the picture ({error.strerror}: {self._disk.places.own}), so a "
                "rebuild would not have it."
            ) from error
        told = self.told([image_id])
        if not told:  # another window has deleted the picture meanwhile
            self._disk.sidecars.forget(image_id)
            raise no_such_picture(image_id, self._store.library)
        return told[0]

    def changes(self, after: int | None) -> Changes:
        return self.annotations.changes(after)

    def begin(self) -> None:
        """Starts a thread that enters what the index lacks, unless one is running."""
        with self._lock:
            if self._stop.is_set() or (self._behind is not None and self._behind.is_alive()):
                return
            self._behind = threading.Thread(target=self._enter_all, name="search index", daemon=True)
            self._behind.start()

    def close(self) -> None:
        self._stop.set()
        behind = self._behind
        if behind is not None:
            behind.join()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def index(self) -> Index:
        """The index beside the library, or one for this process alone where nothing may be written there."""
        with self._lock:
            if self._index is None:
                path = self._store.library.database.path
                if not os.access(path.parent, os.W_OK | os.X_OK):
                    self._folder = Path(tempfile.mkdtemp(prefix="nanobanana-search-"))
                    path = self._folder / path.name
                beside = path.with_name(f"{path.name}.search")
                self._index = Index(beside, library=self.finder.identity(), prompts=self._index_prompts)
            return self._index

    def follow(self, enough: Callable[[], bool]) -> Standing:
        """Enters changes until all are in, or `enough` says so: the new ones first, some of them in any case, then the old
        ones from the newest back.
        """
        index = self.index()
        newest = self.annotations.changes(None).last
        standing, entered = index.begin(newest), False
        while standing.top < newest or not standing.is_whole:
            if enough() and (entered or standing.top == newest):
                break
            entered = True
            if standing.top < newest:
                texts = self.finder.texts(standing.top, newest, BATCH)
                now = Standing(texts[-1].number if len(texts) == BATCH else newest, standing.bottom)
            else:
                texts = self.finder.texts(0, standing.bottom - 1, BATCH, newest_first=True)
                now = Standing(standing.top, texts[-1].number if len(texts) == BATCH else 0)
            standing = now if index.add(texts, was=standing, now=now) else index.begin(newest)
        return standing

    def forget_deleted(self) -> None:
        """Takes deleted pictures out of the index and out of its file. Raises SetupError."""
        newest = self.annotations.changes(None).last
        self.follow(lambda: self.index().begin(newest).top >= newest)
        self.index().forget_deleted()

    def _enter_all(self) -> None:
        try:
            self.follow(self._stop.is_set)
        except StudioError as error:  # the next search raises the same error
            logger.warning("The search index could not be made: %s", error)

    def _followed(self) -> list[str]:
        """Enters the new changes, and says how many pictures the index does not have yet."""
        until, newest = time.monotonic() + AT_ONCE_S, self.annotations.changes(None).last
        standing = self.follow(lambda: time.monotonic() > until)
        # Scenario: the machine stands still for a second, and what was made last is not in the index yet.
        newer = (
            self.finder.changes_up_to(newest) - self.finder.changes_up_to(standing.top) if standing.top < newest else 0
        )
        older = 0 if standing.is_whole else self.finder.changes_up_to(standing.bottom - 1)
        if not newer and standing.is_whole:
            return []
        self.begin()
        missing = [counted(number, f"{age} picture") for number, age in ((newer, "newer"), (older, "older")) if number]
        return [f"The search index is still being made: {' and '.join(missing)} not searched yet."] if missing else []

    def _fitting_words(self, wanted: FindRequest, words: str) -> FoundPage:
        notes = self._followed()
        expression, said = self._expression(words)
        notes += said
        found: list[Hit] = []
        is_all = False
        usual = replace(wanted, query=None, cursor=None, limit=FindRequest.limit) == FindRequest()
        for fitting, last in self._hits(wanted, expression, wanted.limit + SPARE if usual else SPARSE):
            found += fitting
            is_all = last
            if len(found) > wanted.limit:
                break
        shown = found[: wanted.limit]
        cursor = _word_cursor(wanted, shown[-1]) if len(found) > wanted.limit else None
        total = len(found) if is_all and wanted.cursor is None else None
        pictures = self.told([hit.image_id for hit in shown])
        return FoundPage(pictures=pictures, cursor=cursor, total=total, notes=tuple(notes))

    def _hits(self, wanted: FindRequest, expression: str, size: int) -> Iterator[tuple[list[Hit], bool]]:
        """Yields the pictures that fit the words and are wanted, newest first, a piece at a time, and whether it is the
        last piece. The first piece has at most `size` pictures, the later ones more.
        """
        before = _number(wanted)
        if before is None and wanted.until is not None:
            before = round(wanted.until.timestamp() * 1000) * PLACES_A_MS
        oldest = round(wanted.since.timestamp() * 1000) * PLACES_A_MS if wanted.since is not None else 0
        among, is_all = self._among(wanted), False
        while not is_all:
            hits = self.index().search(expression, before=before, limit=size)
            is_all = len(hits) < size or hits[-1].number < oldest
            yield self._fitting(hits, wanted, among), is_all
            before, size = (hits[-1].number if hits else None), min(HITS, 4 * size)

    def _fitting(self, hits: list[Hit], wanted: FindRequest, among: set[str] | None) -> list[Hit]:
        ids = [hit.image_id for hit in hits]
        fitting = self.finder.fitting(ids, wanted) if among is None else among
        return [hit for hit in hits if hit.image_id in fitting]

    def _best(self, wanted: FindRequest, words: str) -> FoundPage:
        """The highest rated first, then those that fit the words best, then the newest, out of at most HITS."""
        notes: list[str] = []
        if words:
            notes = self._followed()
            expression, said = self._expression(words)
            notes += said
            hits = self.index().search(expression, before=None, limit=HITS, ranked=True)
            is_all = len(hits) < HITS
            hits = self._fitting(hits, wanted, self._among(wanted))
            ratings = self.finder.ratings([hit.image_id for hit in hits])
            hits.sort(key=lambda hit: (-ratings.get(hit.image_id, 0), hit.rank, -hit.number))
            ids = [hit.image_id for hit in hits]
        else:
            places, is_all = self._newest(wanted, None, HITS)
            best = self.finder.best(wanted, self._among(wanted), HITS)
            ids = list(dict.fromkeys([*best, *(one.image_id for one in places)]))
        if not is_all:
            notes.append(f"The best of the newest {HITS} that fit.")
        start = _offset(wanted)
        end = start + wanted.limit
        return FoundPage(
            pictures=self.told(ids[start:end]),
            cursor=f"b.{fingerprint(wanted)}.{end}" if len(ids) > end else None,
            total=len(ids) if is_all else None,
            notes=tuple(notes),
        )

    def _expression(self, words: str) -> tuple[str, list[str]]:
        """The expression to search for, and a note where the query was no valid one and became plain words."""
        expression = as_expression(words)
        if not words.startswith("*") and is_expression(expression):  # FTS5 keeps a leading * for questions about itself
            return expression, []
        plain = as_words(words)
        if not plain:
            raise RequestError(f"{shorten(words)} has no word that could be searched for.")
        meant = any(operator in f" {words} " for operator in OPERATORS)
        return plain, [f"{shorten(words)} is not a valid expression and was searched as plain words."] if meant else []


def check(wanted: FindRequest) -> None:
    """Raises RequestError for a search that cannot be answered, or not as it was meant."""
    for name in ("query", "tag", "made_from", "tier", "cursor"):
        text = getattr(wanted, name) or ""
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise RequestError(f"{name} has characters that cannot be searched for: a NUL, or half of a character.")
    if wanted.query is not None and len(wanted.query) > MAX_QUERY:
        raise RequestError(f"The query has {len(wanted.query)} characters; at most {MAX_QUERY} are searched for.")
    if not 1 <= wanted.limit <= MAX_FOUND:
        raise RequestError(f"limit is {wanted.limit}; it goes from 1 to {MAX_FOUND}.")
    if wanted.min_rating is not None and not 1 <= wanted.min_rating <= MAX_RATING:
        raise RequestError(f"min_rating is {wanted.min_rating}; ratings go from 1 to {MAX_RATING}.")
    if wanted.since is not None and wanted.until is not None and wanted.since >= wanted.until:
        raise RequestError("since is not before until, so nothing could be found.")
    costs = (wanted.min_cost_usd, wanted.max_cost_usd)
    if None not in costs and costs[0] > costs[1]:  # type: ignore[operator]  # neither is None
        raise RequestError("min_cost_usd is above max_cost_usd, so nothing could be found.")


def state_of(record: ImageRecord) -> State:
    if record.trash_path is not None:
        return "trashed"
    return "present" if record.path is not None and os.path.lexists(record.path) else "missing"


def as_tag(text: str) -> str:
    """A tag as it is kept. Raises RequestError."""
    tag = " ".join(text.split()).lower()
    if not tag or len(tag) > MAX_TAG or not tag.isprintable() or "," in tag:
        raise RequestError(f"{shorten(text)} is not a tag: a tag has 1 to {MAX_TAG} characters, none of them a comma.")
    return tag


def read_annotation(body: Mapping[str, Any] | None) -> Annotation | None:
    """Reads the notes from a file that anybody may have edited; None where there are none."""
    try:
        found = replace(Annotation(), **_sound(body or {}))
    except (RequestError, TypeError, ValueError, AttributeError):
        return None
    return found if found != Annotation() else None


def _sound(changed: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the notes as they are kept. Raises RequestError."""
    found = dict(changed)
    if found.get("note") is not None:
        note = str(found["note"]).strip()
        if len(note) > MAX_NOTE:
            raise RequestError(f"The note has {len(note)} characters; at most {MAX_NOTE} are kept.")
        if "\0" in note or any("\ud800" <= character <= "\udfff" for character in note):
            raise RequestError("The note has characters that no library can keep.")
        found["note"] = note or None
    if "tags" in found:
        found["tags"] = tuple(sorted({as_tag(tag) for tag in found["tags"] or ()}))
        if len(found["tags"]) > MAX_TAGS:
            raise RequestError(f"{len(found['tags'])} tags were given; a picture has at most {MAX_TAGS}.")
    rating = found.get("rating")
    if rating is not None and (not isinstance(rating, int) or not 1 <= rating <= MAX_RATING):
        raise RequestError(f"The rating is {shorten(str(rating))}; it goes from 1 to {MAX_RATING}.")
    return found


def _cursor(wanted: FindRequest, last: Place) -> str:
    """The cursor that leads to the pictures after `last`, newest first."""
    return f"n.{fingerprint(wanted)}.{last.created_ms}.{last.image_id}"


def _word_cursor(wanted: FindRequest, last: Hit) -> str:
    """The cursor that leads to the pictures after one that the words fit."""
    return f"w.{fingerprint(wanted)}.{last.number}"


def _parts(wanted: FindRequest, kind: str, count: int) -> list[str] | None:
    """The parts of a cursor. Raises RequestError for a cursor of another search."""
    if wanted.cursor is None:
        return None
    found = wanted.cursor.split(".")
    if len(found) != count + 2 or found[0] != kind or found[1] != fingerprint(wanted):
        raise RequestError(
            f"The cursor {shorten(wanted.cursor)} belongs to another search. Give it with the same arguments as "
            "the call that returned it, or leave it out."
        )
    return found[2:]


def _place(wanted: FindRequest) -> Place | None:
    parts = _parts(wanted, "n", 2)
    if parts is None:
        return None
    made, image_id = parts
    if not _is_number(made) or len(made) > 14 or not is_image_id(image_id):
        raise RequestError(f"{shorten(str(wanted.cursor))} is not a cursor.")
    return Place(int(made), image_id)


def _number(wanted: FindRequest) -> int | None:
    parts = _parts(wanted, "w", 1)
    return None if parts is None else _digits(wanted, parts[0])


def _offset(wanted: FindRequest) -> int:
    parts = _parts(wanted, "b", 1)
    return 0 if parts is None else _digits(wanted, parts[0])


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _digits(wanted: FindRequest, text: str) -> int:
    if not _is_number(text) or len(text) > 18:
        raise RequestError(f"{shorten(str(wanted.cursor))} is not a cursor.")
    return int(text)
