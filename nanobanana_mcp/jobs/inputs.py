"""Turns an input (a path, a Files API id or one of our image ids) into a picture that is known and may be sent."""

import asyncio
import hashlib
import re
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from nanobanana_mcp.domain.errors import NotAnImage, NotEnoughMemory, RequestError, SetupError, SourceNotFound
from nanobanana_mcp.domain.ids import is_file_id, is_image_id, new_id, new_image_id, now
from nanobanana_mcp.domain.provider import ImageModel
from nanobanana_mcp.domain.records import ImageRecord, Upload, made_here
from nanobanana_mcp.domain.terms import MAX_FILE_BYTES, REQUEST_BYTES, Backend, Role
from nanobanana_mcp.domain.text import printable, shorten
from nanobanana_mcp.domain.wire import InputPart
from nanobanana_mcp.jobs.files import UPLOAD_BYTES, bare, check_is_picture, no_such_picture
from nanobanana_mcp.jobs.store import PictureStore
from nanobanana_mcp.jobs.uploads import MARGIN_S, RETENTION, Uploads
from nanobanana_mcp.pixels.files.clean import clean, photograph_notes
from nanobanana_mcp.pixels.files.header import check_bounds, read_header
from nanobanana_mcp.storage.reading import too_large

VERTEX_BYTES = 7_000_000
"""The most that one inline picture may have on Vertex AI."""


_FILE_ID = re.compile(r"files/[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_LIKE_AN_ID = re.compile(r"img[_-][0-9A-Za-z]{6,40}")
_INSTEAD = "Give the picture's path or its img_... id instead."


@dataclass(frozen=True, kw_only=True)
class Source:
    """One input. `data` is what would be sent, already cleaned; None for one that is only in the Files API, or of which
    only a part is sent.
    """

    given: str
    record: ImageRecord
    new: bool
    """True when the library does not have the record yet."""
    data: bytes | None = None
    mime_type: str = ""
    upload: Upload | None = None
    upload_is_new: bool = False
    notes: tuple[str, ...] = ()
    original: bytes | None = None
    """The file as it is, for work on this machine that must be exact about its pixels."""
    path: Path | None = None
    """The path of the file, when it was given by its path."""
    invisible: bool = False
    """True when every pixel is transparent."""
    role: Role | None = None
    """Its role, where its position among the inputs does not already say it."""


class Sources:
    """Finds inputs and puts them into a form that a request can carry."""

    def __init__(
        self,
        model: ImageModel,
        store: PictureStore,
        uploads: Uploads,
        backend: Backend,
        *,
        uploading: bool,
    ) -> None:
        """`uploading` says whether the Files API may be used for what does not fit into a request."""
        self._model = model
        self._store = store
        self._library = store.library
        self._uploads = uploads
        self._disk = store.disk
        self._backend: Backend = backend
        self._uploading = uploading
        self._max_bytes = VERTEX_BYTES if backend == "vertex_ai" else UPLOAD_BYTES if uploading else REQUEST_BYTES

    async def resolve(self, given: str, *, offline: bool = False, sent: bool = True) -> Source:
        """Find the picture that a caller's string names. Nothing is written, uploaded or paid for here; `offline` does not even look
        an unknown Files API id up. A photograph or a picture of ours that is not `sent` itself is not decoded here and has no
        `data`: whoever cuts out what is sent finds out whether it is whole.

        Raises SourceNotFound, NotAnImage, NotAllowed or RequestError, naming the input.
        """
        if is_file_id(given):
            return await self._by_file_id(given, offline=offline)
        if is_image_id(given):
            return await asyncio.to_thread(self._by_image_id, given, sent)
        return await asyncio.to_thread(self._by_path, given, sent)

    async def import_(self, sources: list[Source]) -> list[Source]:
        """Enter the callers' own pictures into the library: one row for each content, even when it is given twice at once."""
        return [await asyncio.to_thread(self._import, source) for source in sources]

    def inline(self, sources: list[Source]) -> tuple[InputPart, ...]:
        """The sources as a request carries them, as far as that is known before anything is uploaded."""
        size = sum(len(source.data) for source in sources if source.data is not None and source.upload is None)
        by_uri = size > REQUEST_BYTES
        return tuple(
            InputPart(mime_type=source.mime_type, data=None if by_uri or source.upload is not None else source.data)
            for source in sources
        )

    async def parts(self, sources: list[Source]) -> tuple[tuple[InputPart, ...], list[str]]:
        """The sources as a request carries them, and what to tell the caller: inline while they fit together, by the
        Files API beyond that; what has expired there is uploaded again from its local file.
        """
        inline = sum(len(source.data) for source in sources if source.data is not None and source.upload is None)
        if inline > REQUEST_BYTES and not self._uploading:
            raise RequestError(
                f"The input images have {inline / 1e6:.0f} MB together, and one request takes "
                f"{REQUEST_BYTES // 2**20} MiB. Give fewer or smaller ones, or allow the Files API "
                "(NANOBANANA_UPLOAD=on_demand)."
            )
        found, notes = [], []
        for source in sources:
            upload = source.upload
            if upload is not None and not upload.alive(now(), margin_s=MARGIN_S):
                upload = await self._uploads.ready(source.record, data=source.data, mime_type=source.mime_type)
                if source.upload is not None and upload.name != source.upload.name:
                    notes.append(_renewal_note(source, upload))
            elif upload is None and inline > REQUEST_BYTES:
                upload = await self._uploads.ready(source.record, data=source.data, mime_type=source.mime_type)
            if upload is not None:
                found.append(InputPart(mime_type=upload.mime_type, uri=upload.uri))
            else:
                found.append(InputPart(mime_type=source.mime_type, data=source.data))
        return tuple(found), notes

    async def renewed(self, sources: list[Source]) -> list[Source]:
        """The same inputs after the Files API said that it does not have one of them: local files uploaded again.

        Raises SourceNotFound when one of them has no local file.
        """
        found = []
        for source in sources:
            if source.upload is None:
                found.append(source)
                continue
            if await self._model.look_up(source.upload.name) is None:
                upload = await self._uploads.renew(source.record, display_name=source.upload.display_name)
                note = _renewal_note(source, upload)
                source = replace(source, upload=upload, upload_is_new=False, notes=(*source.notes, note))
            found.append(source)
        return found

    async def _by_file_id(self, given: str, *, offline: bool) -> Source:
        name = given.strip()
        if not _FILE_ID.fullmatch(name):
            raise SourceNotFound(
                f"{shorten(name)} is not a Files API id, which looks like files/abc-123. {_INSTEAD} For a file in "
                f"a folder called files write {shorten(f'./{name}')}."
            )
        known = await asyncio.to_thread(self._library.find_by_upload, name)
        if known is not None:
            record, upload = known
            if upload.backend != self._backend:
                raise SourceNotFound(
                    f"{name} was uploaded to {upload.backend}, not to {self._backend}. Give its path or id."
                )
            if not upload.alive(now(), margin_s=MARGIN_S):
                await asyncio.to_thread(self._store.sendable, record)  # raises now rather than after the reservation
            return Source(given=given, record=record, new=False, upload=upload)
        if offline:
            unseen = _imported(None, mime_type="", width=0, height=0, size=0, sha256="")
            return Source(given=given, record=unseen, new=True, notes=(f"{shorten(name)} was not looked up.",))
        remote = await self._model.look_up(name)
        if remote is None or remote.state != "active":
            raise SourceNotFound(
                f"The Files API does not have {shorten(name)}: it never did, it has expired (files live 48 hours) or it "
                f"belongs to another project. {_INSTEAD}"
            )
        if not remote.mime_type.startswith("image/"):
            raise NotAnImage(f"{name} is {remote.mime_type}, not an image.")
        found = await asyncio.to_thread(self._library.find_by_content, remote.sha256) if remote.sha256 else None
        record = found or _imported(
            None, mime_type=remote.mime_type, width=0, height=0, size=remote.bytes, sha256=remote.sha256 or ""
        )
        upload = Upload(
            id=new_id(),
            image_id=record.id,
            name=name,
            uri=remote.uri,
            mime_type=remote.mime_type,
            bytes=remote.bytes,
            sha256=remote.sha256 or "",
            display_name=None,
            state="active",
            created_at=now(),
            expires_at=remote.expires_at or now() + RETENTION - timedelta(hours=1),
            backend=self._backend,
        )
        return Source(given=given, record=record, new=found is None, upload=upload, upload_is_new=True)

    def _import(self, source: Source) -> Source:
        if source.new:
            record = self._library.add_import(source.record)
            self._write_record(record)
            upload = replace(source.upload, image_id=record.id) if source.upload is not None else None
            source = replace(source, record=record, new=False, upload=upload)
        elif self._moved(source):
            assert source.path is not None
            self._library.relink(source.record.id, source.path)
            source = replace(source, record=replace(source.record, path=str(source.path)))
            self._write_record(source.record)
        elif source.record.origin == "imported" and not self._disk.sidecars.has_record(source.record.id):
            self._write_record(source.record)  # the first attempt was cut short
        if source.upload is not None and source.upload_is_new:
            self._library.add_upload(source.upload)
            source = replace(source, upload_is_new=False)
        return source

    def _write_record(self, record: ImageRecord) -> None:
        try:
            self._disk.sidecars.write_record(record)
        except OSError as error:
            raise SetupError(
                f"The folder {self._disk.places.own} cannot be written ({error.strerror}), so pictures could not be kept; "
                "nothing was sent. Make room, or name another folder by NANOBANANA_OUTPUT_DIR."
            ) from error

    def _moved(self, source: Source) -> bool:
        """Tells whether a known picture was given at another path and its file is gone from the old one."""
        known = source.record.path
        if source.path is None or source.record.trash_path is not None or known == str(source.path):
            return False
        return known is None or not Path(known).exists()

    def _by_image_id(self, given: str, sent: bool) -> Source:
        record = self._library.get(given)
        if record is None:
            raise no_such_picture(given, self._library)
        source = Source(given=given, record=record, new=False, original=self._store.read(record))
        return self._with_data(source) if sent else self._as_it_is(source)

    def _by_path(self, given: str, sent: bool) -> Source:
        try:
            path, data = self._disk.read_input(given, may_be_made=self._library.has_made)
        except SourceNotFound as error:
            if _LIKE_AN_ID.fullmatch(given):
                raise no_such_picture(given, self._library) from error
            raise
        digest = hashlib.sha256(data).hexdigest()
        known = self._library.find_by_content(digest)
        made = known is not None and made_here(known.origin, known.parents)
        if len(data) > MAX_FILE_BYTES and not made:
            raise too_large(path, len(data))
        try:
            header = read_header(data)
            check_bounds(header, data, made=made)
            if known is not None and known.origin != "imported":
                ours = Source(given=given, record=known, new=False, original=data, path=path)
                return self._with_data(ours) if sent else self._as_it_is(ours)
            notes = None if sent else photograph_notes(data, header)
            cleaned = None if notes is not None else clean(data, max_bytes=self._max_bytes)
        except (NotAnImage, NotEnoughMemory) as error:
            raise type(error)(f"{printable(path)}: {error}") from error
        record = known or _imported(
            str(path),
            mime_type=header.mime_type,
            width=header.width,
            height=header.height,
            size=len(data),
            sha256=digest,
        )
        told = notes if cleaned is None else cleaned.notes
        return Source(
            given=given,
            record=record,
            new=known is None,
            data=None if cleaned is None else cleaned.data,
            mime_type=header.mime_type if cleaned is None else cleaned.mime_type,
            notes=tuple(f"{printable(path.name)}: {note}." for note in told or ()),
            original=data,
            path=path,
            invisible=cleaned is not None and cleaned.invisible,
        )

    def _as_it_is(self, source: Source) -> Source:
        check_is_picture(source.record)
        return replace(source, mime_type=source.record.mime_type)

    def _with_data(self, source: Source) -> Source:
        """One of the library's pictures with what is sent of it: as delivered, or, where that is beyond what a request
        takes, smaller.
        """
        assert source.original is not None
        data, mime_type = bare(source.record, source.original)
        if len(data) <= self._max_bytes:
            return replace(source, data=data, mime_type=mime_type)
        made = made_here(source.record.origin, source.record.parents)
        cleaned = clean(data, max_bytes=self._max_bytes, made=made)
        notes = tuple(f"{source.given}: {note}." for note in cleaned.notes)
        return replace(source, data=cleaned.data, mime_type=cleaned.mime_type, notes=notes)


SMALLEST_SIDE = 8
"""Pixels of the longer side below which a picture shows a model nothing: an icon of the smallest kind has 16."""


LEAST_SIDE = 4
"""Pixels of the shorter side: a line of pixels is no picture."""


def check_something_is_seen(sources: list[Source]) -> None:
    """Raises RequestError for an input that no model could see anything in, before it is paid for."""
    for source in sources:
        width, height = source.record.width, source.record.height
        if source.role == "mask" or not width:  # a Files API id that nobody looked up has no size
            continue
        if max(width, height) < SMALLEST_SIDE or min(width, height) < LEAST_SIDE:
            raise RequestError(
                f"{shorten(source.given)} has {width} x {height} pixels, too few for a model to see anything; "
                "nothing was charged. Give a larger picture."
            )
        if source.invisible:
            raise RequestError(
                f"Every pixel of {shorten(source.given)} is transparent, so a model would see nothing; nothing was "
                "charged. Give the picture with its content, or save it without its alpha channel."
            )


def _renewal_note(source: Source, upload: Upload) -> str:
    return f"{source.given} had expired in the Files API; {source.record.path} was uploaded again as {upload.name}."


def _imported(path: str | None, *, mime_type: str, width: int, height: int, size: int, sha256: str) -> ImageRecord:
    return ImageRecord(
        id=new_image_id(),
        created_at=now(),
        origin="imported",
        path=path,
        thumbnail_path=None,
        mime_type=mime_type,
        width=width,
        height=height,
        bytes=size,
        sha256=sha256,
    )
