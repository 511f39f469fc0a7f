"""The one way a picture is kept: the bytes as delivered, the thumbnail, the record, then its row and lineage in one
transaction.

After a kill between two of these steps, the same steps are repeated with the same ids and lead to the same files, so
that there is one picture in the end, and not two or none.
"""

import hashlib
import json
import logging
from concurrent.futures import Executor, Future
from dataclasses import asdict, replace
from pathlib import Path

from nanobanana_mcp.domain.errors import NoPicture, NotAnImage, NotEnoughMemory, RequestError, SetupError, Unreadable
from nanobanana_mcp.domain.ids import child_id, now
from nanobanana_mcp.domain.plan import Plan, Target
from nanobanana_mcp.domain.pricing import bill
from nanobanana_mcp.domain.records import ImageRecord, Parent, made_here
from nanobanana_mcp.domain.requests import OutputSpec
from nanobanana_mcp.domain.results import KeptImage
from nanobanana_mcp.domain.terms import Backend
from nanobanana_mcp.domain.wire import ModelReply
from nanobanana_mcp.jobs.conversation import remember
from nanobanana_mcp.jobs.files import sendable, stored_bytes
from nanobanana_mcp.jobs.naming import ICON, kept_format, named_by_magic, naming_notes, source_type
from nanobanana_mcp.jobs.origins import Derived, Family, PaidCall, PrepareUpload, Reading, ReadReply
from nanobanana_mcp.jobs.outcomes import price_of
from nanobanana_mcp.library.journal import Journal
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.pixels.files.clean import DECODES
from nanobanana_mcp.pixels.files.header import Header, read_header
from nanobanana_mcp.pixels.files.labels import Label
from nanobanana_mcp.pixels.outputs.thumbnails import Thumbnail, examine
from nanobanana_mcp.storage.disk import Disk
from nanobanana_mcp.storage.paths import picture_stem
from nanobanana_mcp.storage.writing import write_new, write_new_in_any

logger = logging.getLogger(__name__)


class PictureStore:
    """Keeps what Gemini drew and what is derived from it, and reads both again. `journal` and `library` share one
    database.
    """

    def __init__(self, disk: Disk, library: Library, journal: Journal, read_reply: ReadReply) -> None:
        self.disk = disk
        self.library = library
        self.journal = journal
        self._read_reply = read_reply

    def reading(self, raw: bytes, threads: Executor) -> Reading:
        """A raw answer that `threads` have begun to read."""
        return Reading(raw, self._read_reply, threads)

    def read(self, record: ImageRecord) -> bytes:
        """A picture's bytes, if its file still has the contents of its record; see `files.stored_bytes` for what is
        raised.
        """
        return stored_bytes(record, self.disk)

    def sendable(self, record: ImageRecord) -> tuple[bytes, str]:
        """The bytes of a picture that may leave the machine, with their mime type; see `files.sendable`."""
        return sendable(record, self.disk)

    def own_bytes(self, record: ImageRecord | None) -> bytes | None:
        """A picture's bytes; None when the file is gone or has changed."""
        path = (record.trash_path or record.path) if record is not None else None
        data = self.disk.read_own(Path(path)) if path is not None else None
        return data if data and record and hashlib.sha256(data).hexdigest() == record.sha256 else None

    def keep(
        self, reading: Reading, paid: PaidCall, *, again: bool = False, prepare_upload: PrepareUpload | None = None
    ) -> KeptImage:
        """Keep the picture of a raw answer that is in the spool. The journal has the outcome when this returns. `again`
        says that an earlier attempt was cut short, so that its files are taken over and not written twice.

        Raises NoPicture with Gemini's reason, Unreadable (the raw answer then stays in the spool), or SetupError when
        no disk takes the picture.
        """
        plan, call = paid.plan, paid.call
        try:
            reply = reading.reply.result()
        except NoPicture as error:
            price = _plus(paid.spent_usd, price_of(error, plan, call))
            self.journal.mark_failed(call.id, reason=error.reason, message=str(error), cost_usd=price)
            self.disk.spool.drop(call.id)
            raise
        except Unreadable as error:
            self.journal.mark_unknown(call.id, message=str(error))
            raise
        others, notes = self._keep_others(reply, paid)
        kept = self._keep_master(reply, reading.examined, paid, again=again, prepare_upload=prepare_upload)
        notes += kept.notes
        if reply.thought:
            notes.append("Gemini marked its only picture as a draft; it is kept as the result.")
        answered = (reply.model_version or "").removeprefix("models/")
        if answered and not answered.startswith(plan.choice.spec.id):
            notes.append(f"{plan.choice.spec.id} was asked, but {answered[:80]!r} answered.")
        image = replace(kept, notes=tuple(notes), others=others)
        if plan.recipe is None and kept.record.width:
            image = self.add_exact(image, plan, reply.image, number=plan.number(call.position))
        return image

    def derive(self, data: bytes, derived: Derived) -> tuple[ImageRecord, list[str]]:
        """Keep a picture that was made on this machine from others; return its record and notes. Repeating it with the
        same id is harmless.

        Raises OSError where it cannot be written, NotAnImage for bytes that are no picture.
        """
        image_id, like, target = derived.image_id, derived.like, derived.target
        known = self.library.get(image_id)
        if known is not None:
            return known, []
        thumbnail: Path | None = None
        if derived.icon is not None:
            (width, height), mime_type, extension = derived.icon, ICON, ".ico"
        else:
            made = made_here(derived.origin, derived.parents)
            header, preview = (
                (read_header(data), derived.preview) if derived.preview is not None else examine(data, made=made)
            )
            width, height, mime_type, extension = header.width, header.height, header.mime_type, header.extension
            thumbnail = self._write_thumbnail(image_id, preview)
        extension = target.extension(extension)
        # The time of its source, so that a repetition after a kill comes to the same name.
        stem = target.stem or picture_stem(derived.prompt or "", image_id, like.created_at)
        if derived.number is not None and target.stem is not None:
            stem = f"{stem}-{derived.number}"
        self.disk.note_folder(target.folder)
        # A kill between the file and its row leaves a file that this attempt adopts. Without a note of an earlier attempt,
        # a file with the same bytes is somebody else's.
        since = like.created_at.timestamp() - 1 if self.disk.sidecars.begin(image_id) else None
        path = write_new(target.folder, stem, extension, data, key=image_id, written_after=since)
        record = ImageRecord(
            id=image_id,
            created_at=now(),
            origin=derived.origin,
            path=str(path),
            thumbnail_path=str(thumbnail) if thumbnail is not None else None,
            mime_type=mime_type,
            width=width,
            height=height,
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            prompt=derived.prompt,
            mode=like.mode,
            tier=like.tier,
            model_id=like.model_id,
            backend=like.backend,
            call_id=like.call_id,
            words=like.words if isinstance(like, ImageRecord) and derived.origin != "derived" else None,
            parents=derived.parents,
        )
        self.disk.sidecars.write_record(record)
        self.library.add(record)
        self.disk.sidecars.ended(image_id)
        return record, naming_notes(target, stem, extension, path)

    def keep_mask(self, record: ImageRecord, data: bytes, backend: Backend, promised: str | None = None) -> ImageRecord:
        """Keep the mask painted over a picture; without a `promised` id the same mask once. Raises RequestError, SetupError."""
        from nanobanana_mcp.pixels.edits.painted import painted_mask  # Pillow's own time, which only masks pay

        plane = painted_mask(data, (record.width, record.height))
        with self.disk.making():  # two windows may keep the same mask at once
            return self._keep_mask(record, plane, backend, promised)

    def _keep_mask(self, record: ImageRecord, plane: bytes, backend: Backend, promised: str | None) -> ImageRecord:
        mask_id = promised or child_id(record.id, f"mask {hashlib.sha256(plane).hexdigest()}")
        known = self.library.get(mask_id)
        if known is not None and promised is not None:
            raise RequestError(f"Your assistant has a mask already, {promised}; it was not replaced.")
        if known is not None:
            if self.own_bytes(known) is not None and known.trash_path is None:
                return known
            mask_id = child_id(record.id, f"{mask_id} {now().isoformat()}")  # that file is gone or was changed
        derived = Derived(
            image_id=mask_id,
            origin="mask",
            prompt=None,
            like=Family(call_id=None, created_at=now(), backend=record.backend or backend),
            parents=(Parent(image_id=record.id, role="base"),),
            target=Target(folder=self.disk.places.masks, stem=f"mask_{mask_id}"),
        )
        try:
            return self.derive(plane, derived)[0]
        except OSError as error:
            raise SetupError(f"The mask could not be written ({error.strerror}: {self.disk.places.masks}).") from error

    def add_exact(self, image: KeptImage, plan: Plan, data: bytes, *, number: int | None) -> KeptImage:
        """Add the file in the size and format that was asked for, recorded as the picture's child; unchanged where none
        was asked for. The picture is already paid for and kept: when the exact file cannot be made, the picture itself
        is the answer, with a note.
        """
        wanted = plan.exact_of(image.record.mime_type)
        if wanted is None:
            return image
        try:
            return self._make_exact(image, data, wanted, plan.target, number)
        except (RequestError, NotEnoughMemory, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
            note = f"The exact file could not be made ({why}); this is the picture as delivered."
            return replace(image, notes=(*image.notes, note))

    def find_exact(self, record: ImageRecord) -> ImageRecord | None:
        """The exact file that was made of a picture earlier, None when there is none."""
        return self.library.get(child_id(record.id, "exact"))

    def ensure_exact(self, image: KeptImage, plan: Plan, *, number: int | None) -> KeptImage:
        """The picture with its exact file: the one found, or one made now after a kill between the two."""
        if plan.exact_of(image.record.mime_type) is None:
            return image
        exact = self.find_exact(image.record)
        if exact is not None:
            return replace(image, record=exact, master=image.record)
        data = self.own_bytes(image.record)
        if data is None:
            note = "The exact file was not made; this is the picture as delivered."
            return replace(image, notes=(*image.notes, note))
        return self.add_exact(image, plan, data, number=number)

    def keep_composed(
        self, part: KeptImage, plan: Plan, data: bytes, derived_from: tuple[Parent, ...], *, number: int | None,
        preview: Thumbnail | None = None, wish: str = "made",
    ) -> KeptImage:  # fmt: skip
        """Keep the picture that a recipe composed from `part` and others, with its exact file where one was asked for.
        `wish` tells several pictures of one answer apart.

        Raises SetupError when no disk takes it; the answers are kept even then.
        """
        named_by_exact = plan.exact_of("image/png") is not None
        derived = Derived(
            image_id=child_id(part.record.id, wish),
            origin="edited" if plan.mode == "edit" else "generated",
            prompt=plan.request.prompt,
            like=part.record,
            parents=derived_from,
            target=plan.target.without_name(self.disk.places.output) if named_by_exact else plan.target,
            number=number,
            preview=preview,
        )
        try:
            record, notes = self.derive(data, derived)
        except OSError as error:
            raise SetupError(
                f"The finished picture could not be written to {plan.target.folder} ({error.strerror}). The "
                f"model's answer is kept at {part.record.path}. Make room there and ask again."
            ) from error
        image = KeptImage(record=record, cost_usd=part.cost_usd, emulated=part.emulated, notes=tuple(notes))
        return self.add_exact(image, plan, data, number=number)

    def find_composed(self, part: ImageRecord, *, cost_usd: float | None) -> KeptImage | None:
        """The picture that was composed from `part` earlier, None when there is none."""
        made = self.library.get(child_id(part.id, "made"))
        if made is None:
            return None
        exact = self.find_exact(made)
        image = KeptImage(record=made, cost_usd=cost_usd)
        return image if exact is None else replace(image, record=exact, master=made)

    def adopt(self, call_id: str) -> ImageRecord:
        """Keep the picture of a spooled answer of which nothing else is known, neither its prompt nor its parents.

        Raises Unreadable or NoPicture for an answer that has none, NotAnImage or SetupError where it cannot be kept.
        """
        reply = self._read_reply(self.disk.spool.read(call_id) or b"")
        derived = Derived(
            image_id=f"img_{call_id}",
            origin="generated",
            prompt=None,
            like=Family(call_id=call_id, created_at=now(), model_id=reply.model_version),
            parents=(),
            target=Target(folder=self.disk.places.output),
        )
        try:
            record, _ = self.derive(reply.image, derived)
        except OSError as error:
            folder = self.disk.places.output
            raise SetupError(f"The recovered picture cannot be written to {folder} ({error.strerror}).") from error
        self.disk.spool.drop(call_id)
        return record

    def _keep_master(
        self,
        reply: ModelReply,
        examined: Future[tuple[Header, Thumbnail]],
        paid: PaidCall,
        *,
        again: bool,
        prepare_upload: PrepareUpload | None,
    ) -> KeptImage:
        """Write the bytes first, the row second: after a kill in between the raw answer is there, and this is done again."""
        plan, call, image_id = paid.plan, paid.call, f"img_{paid.call.id}"
        mime_type, extension = named_by_magic(reply.image)
        path, notes = self._write_master(reply.image, mime_type, extension, paid, again=again)
        sha256 = hashlib.sha256(reply.image).hexdigest()
        try:
            header, preview = examined.result()
            width, height = header.width, header.height
        except NotAnImage:  # a row of 0 x 0 pixels says so, and the caller is told
            preview, width, height = None, 0, 0
        except NotEnoughMemory as error:
            header, preview = read_header(reply.image), None
            width, height = header.width, header.height
            notes.append(f"The picture is kept as it came, without a preview. {error}")
        record = ImageRecord(
            id=image_id,
            created_at=now(),
            origin=plan.origin,
            path=str(path),
            thumbnail_path=None,
            mime_type=mime_type,
            width=width,
            height=height,
            bytes=len(reply.image),
            sha256=sha256,
            prompt=plan.request.prompt,
            mode=plan.mode,
            tier=plan.choice.spec.tier,
            model_id=plan.choice.spec.id,
            backend=paid.request_row.backend,
            call_id=call.id,
            words=reply.text or None,
            parents=paid.parents,
        )
        billed = bill(plan.choice, reply.usage, estimate_usd=call.estimate_usd, drew=True)
        price = _plus(paid.spent_usd, billed.usd)
        notes += [billed.note] if billed.note else []
        try:
            if preview is not None:
                record = replace(record, thumbnail_path=str(self._write_thumbnail(image_id, preview)))
            self.disk.sidecars.write_record(record, extra={"request": plan.body(), "cost_usd": price})
            if plan.recipe is None:
                remember(record, reply, plan.request, paid.continues, self.disk)
        except OSError as error:
            where = f"{self.disk.places.own} ({error.strerror})"
            notes.append(f"The picture is kept, but its preview or its record could not be written to {where}.")
        upload = None
        if prepare_upload is not None and preview is not None:
            upload = prepare_upload(record, reply.image, mime_type, record.prompt)
        try:
            self.journal.mark_saved(call.id, record, price, upload=upload)
        except SetupError as error:
            told = f" It cost ${price:.4f}." if price is not None else ""
            raise SetupError(
                f"{error} The picture was drawn and is at {path}.{told} To enter it into the library, run "
                "maintenance with operation 'recover' or restart the server."
            ) from error
        self.disk.spool.drop(call.id)
        return KeptImage(
            record=record,
            cost_usd=price,
            upload=upload,
            text=reply.text,
            sources=reply.sources,
            emulated=reply.emulated,
            notes=tuple(notes),
            data=reply.image,
        )

    def _keep_others(self, reply: ModelReply, paid: PaidCall) -> tuple[tuple[KeptImage, ...], list[str]]:
        """Keep the further pictures of an answer: they are paid for, too."""
        plan, call = paid.plan, paid.call
        family = Family(
            call_id=call.id,
            created_at=call.reserved_at,
            mode=plan.mode,
            tier=plan.choice.spec.tier,
            model_id=plan.choice.spec.id,
            backend=paid.request_row.backend,
        )
        folder = plan.target.folder if plan.recipe is None else self.disk.places.parts
        kept, notes = [], []
        for number, data in enumerate(reply.others, 2):
            derived = Derived(
                image_id=other_id(call.id, number),
                origin=plan.origin,
                prompt=plan.request.prompt,
                like=family,
                parents=paid.parents,
                target=Target(folder=folder),
            )
            try:
                record, more = self.derive(data, derived)
            except (NotAnImage, NotEnoughMemory, OSError) as error:
                path = self._rescue(data, derived)
                where = f"Its bytes are at {path}." if path is not None else "No disk could take it."
                why = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
                notes.append(f"Picture {number} of Gemini's answer is not in the library: {why}. {where}")
                continue
            kept.append(KeptImage(record=record, cost_usd=0.0))
            notes += more
        if kept:
            names = ", ".join(image.record.id for image in kept)
            notes.append(
                f"Gemini drew {len(kept) + 1} pictures in one answer, and its cost is for all of them; also kept: "
                f"{names}."
            )
        return tuple(kept), notes

    def _make_exact(
        self, image: KeptImage, data: bytes, wanted: OutputSpec, target: Target, number: int | None
    ) -> KeptImage:
        from nanobanana_mcp.pixels.outputs.render import render  # numpy: 40 ms and 12 MB that only exact files pay

        master = image.record
        recipe = {"from": master.id, **{name: value for name, value in asdict(wanted).items() if value is not None}}
        with DECODES:
            rendered = render(
                data,
                width=wanted.width,
                height=wanted.height,
                fit=wanted.fit,
                output_format=wanted.output_format or kept_format(master.mime_type),
                quality=wanted.quality,
                label=Label(source_type=source_type(master), recipe=json.dumps(recipe)),
            )
        derived = Derived(
            image_id=child_id(master.id, "exact"),
            origin="derived",
            prompt=master.prompt,
            like=master,
            parents=(Parent(image_id=master.id, role="base"),),
            target=target,
            number=number,
        )
        record, notes = self.derive(rendered.data, derived)
        return replace(image, record=record, master=master, notes=(*image.notes, *rendered.notes, *notes))

    def keep_thumbnail(self, record: ImageRecord, preview: Thumbnail) -> None:
        """Keep the thumbnail of a picture that had none, a caller's own, so that the next look need not decode it again."""
        try:
            path = self._write_thumbnail(record.id, preview)
            self.library.note_thumbnail(record.id, path)
        except (OSError, SetupError) as error:  # on a disk or of a library that may only be read
            logger.info("The thumbnail of %s was not kept: %s", record.id, error)

    def _write_thumbnail(self, image_id: str, preview: Thumbnail) -> Path:
        suffix = "." + preview.mime_type.removeprefix("image/").replace("jpeg", "jpg")
        return self.disk.sidecars.write_thumbnail(image_id, preview.data, suffix)

    def _write_master(
        self, data: bytes, mime_type: str, extension: str, paid: PaidCall, *, again: bool
    ) -> tuple[Path, list[str]]:
        plan, call, places = paid.plan, paid.call, self.disk.places
        image_id = f"img_{call.id}"
        target = plan.target if plan.recipe is None else Target(folder=places.parts)
        if plan.exact_of(mime_type) is not None:
            target = target.without_name(places.output)
        stem = target.stem or picture_stem(plan.request.prompt, image_id, call.reserved_at)
        if target.stem is not None and plan.request.n > 1:
            stem = f"{target.stem}-{call.position + 1}"
        extension = target.extension(extension)
        since = call.reserved_at.timestamp() - 1 if again else None
        try:
            path = write_new(target.folder, stem, extension, data, key=image_id, written_after=since)
        except OSError as error:
            others = (places.output, places.state / "rescued")
            rescued = write_new_in_any(others, stem, extension, data, key=image_id, written_after=since)
            if rescued is None:
                raise self._no_disk(call.id, error) from error
            return rescued, [
                f"{target.folder} could not take the picture ({error.strerror}); it is at {rescued} instead."
            ]
        return path, naming_notes(target, stem, extension, path)

    def _no_disk(self, call_id: str, error: OSError) -> SetupError:
        raw, places = self.disk.spool.path(call_id), self.disk.places
        if raw is None:
            return SetupError(
                f"Neither the picture nor its raw answer could be written to any disk ({error.strerror}): it is "
                f"lost, although it was paid for. Make room on the disks of {places.output} and {places.state} "
                "before asking again."
            )
        return SetupError(
            f"The picture could not be written to any disk ({error.strerror}). Its raw answer is kept as {raw}; "
            "make room and run maintenance with operation 'recover', which finishes it without paying again."
        )

    def _rescue(self, data: bytes, derived: Derived) -> Path | None:
        """Write the bytes to any folder that takes them, when they cannot go into the library, and say where; None when
        none does.
        """
        since = derived.like.created_at
        stem, extension = picture_stem(derived.prompt or "", derived.image_id, since), named_by_magic(data)[1]
        folders = (derived.target.folder, self.disk.places.output, self.disk.places.state / "rescued")
        return write_new_in_any(
            folders, stem, extension, data, key=derived.image_id, written_after=since.timestamp() - 1
        )


def other_id(call_id: str, number: int) -> str:
    """The id of a further picture of one answer; these are counted from 2."""
    return child_id(f"img_{call_id}", f"picture {number}")


def _plus(spent_usd: float, usd: float | None) -> float | None:
    return None if usd is None else round(spent_usd + usd, 9)
