"""The one way a picture is kept: bytes as delivered, thumbnail, record, then its row and lineage in one transaction."""

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from nanobanana_mcp.domain.errors import NotAnImage, RequestError, SetupError
from nanobanana_mcp.domain.ids import child_id, now
from nanobanana_mcp.domain.plan import Plan, Target
from nanobanana_mcp.domain.pricing import bill
from nanobanana_mcp.domain.records import ImageRecord, Parent, Upload, made_here
from nanobanana_mcp.domain.requests import OutputSpec
from nanobanana_mcp.domain.results import KeptImage
from nanobanana_mcp.domain.terms import Backend, Mode, Origin, OutputFormat
from nanobanana_mcp.domain.wire import ModelReply
from nanobanana_mcp.gemini.response import read_reply
from nanobanana_mcp.jobs.conversation import remember
from nanobanana_mcp.library.journal import Call, Journal, RequestRow
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.pixels.files.clean import DECODES
from nanobanana_mcp.pixels.files.formats import FORMATS, format_of
from nanobanana_mcp.pixels.files.header import Header, read_header
from nanobanana_mcp.pixels.files.labels import Label, SourceType
from nanobanana_mcp.pixels.outputs.thumbnails import Thumbnail, examine
from nanobanana_mcp.storage.disk import Disk
from nanobanana_mcp.storage.paths import picture_stem
from nanobanana_mcp.storage.writing import write_new

ICON = "image/vnd.microsoft.icon"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A kept picture, the USD it cost (None when the price is unknown) and what a caller should be told."""

    record: ImageRecord
    cost_usd: float | None
    upload: Upload | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Shared:
    """The facts that pictures of one call have in common."""

    call_id: str
    created_at: datetime
    mode: Mode | None = None
    tier: str | None = None
    model_id: str | None = None
    backend: Backend | None = None


PrepareUpload = Callable[[ImageRecord, bytes, str, str | None], Upload]


def keep(
    reply: ModelReply,
    examined: Future[tuple[Header, Thumbnail]],
    *,
    plan: Plan,
    request_row: RequestRow,
    call: Call,
    disk: Disk,
    journal: Journal,
    again: bool = False,
    spent_usd: float = 0.0,
    prepare_upload: PrepareUpload | None = None,
) -> Kept:
    """Bytes first, row second: what is cut short here is repeated from the raw answer, with the same outcome.

    `examined` is the picture's header and thumbnail, which another thread makes meanwhile. `prepare_upload` makes the
    row of the upload that is to follow. `again` says that this is a repetition, so that files of the first attempt are
    taken up and not doubled. `spent_usd` is what the call cost before this answer.
    Raises SetupError when no disk takes the picture; its raw answer is then still in the spool.
    """
    image_id = f"img_{call.id}"
    warnings: list[str] = []
    mime_type, extension = _named_by_magic(reply.image)
    path, warning = _write_master(reply.image, mime_type, extension, image_id, plan, call, disk, again=again)
    sha256 = hashlib.sha256(reply.image).hexdigest()
    warnings += warning
    try:
        header, preview = examined.result()
        width, height = header.width, header.height
    except NotAnImage:  # a row of 0 x 0 pixels says so, and whoever asked is told
        preview, width, height = None, 0, 0
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
        backend=request_row.backend,
        call_id=call.id,
        parents=plan.parents,
    )
    billed = bill(plan.choice, reply.usage, estimate_usd=call.estimate_usd, drew=True)
    price = None if billed.usd is None else round(spent_usd + billed.usd, 9)
    warnings += [billed.note] if billed.note else []
    try:
        if preview is not None:
            suffix = "." + preview.mime_type.removeprefix("image/").replace("jpeg", "jpg")
            thumbnail = disk.sidecars.write_thumbnail(image_id, preview.data, suffix)
            record = replace(record, thumbnail_path=str(thumbnail))
        disk.sidecars.write_record(record, extra={"request": plan.dump(), "cost_usd": price})
        if plan.recipe is None:
            remember(record, reply, plan, disk)
    except OSError as error:
        warnings.append(f"The picture is kept, but not its preview or record: {error.strerror} ({disk.places.own}).")
    upload = None
    if prepare_upload is not None and preview is not None:
        upload = prepare_upload(record, reply.image, mime_type, record.prompt)
    try:
        journal.saved(call.id, record, price, upload=upload)
    except SetupError as error:
        told = f" It cost ${price:.4f}." if price is not None else ""
        raise SetupError(
            f"{error} The picture was drawn and is at {path}.{told} It enters the library by maintenance with operation "
            "'recover', or when the server starts next."
        ) from error
    disk.spool.drop(call.id)
    return Kept(record=record, cost_usd=price, upload=upload, warnings=tuple(warnings))


def keep_made(
    data: bytes,
    *,
    image_id: str,
    origin: Origin,
    prompt: str | None,
    like: ImageRecord | Shared,
    parents: tuple[Parent, ...],
    target: Target,
    disk: Disk,
    library: Library,
    number: int | None = None,
    icon: tuple[int, int] | None = None,
    preview: Thumbnail | None = None,
) -> tuple[ImageRecord, list[str]]:
    """Keep a picture that was made on this machine out of others; `like` is the one it shares its facts with.

    Repeating it with the same id is harmless. `number` tells several files of one name apart. `icon` is the width and
    height of an .ico file, which is none of the formats that are read here; `preview` is its thumbnail where there is
    one already.
    """
    known = library.get(image_id)
    if known is not None:
        return known, []
    thumbnail: Path | None = None
    if icon is not None:
        (width, height), mime_type, extension = icon, ICON, ".ico"
    else:
        header, preview = (
            (read_header(data), preview) if preview is not None else examine(data, made=made_here(origin, parents))
        )
        width, height, mime_type, extension = header.width, header.height, header.mime_type, header.extension
        suffix = "." + preview.mime_type.removeprefix("image/").replace("jpeg", "jpg")
        thumbnail = disk.sidecars.write_thumbnail(image_id, preview.data, suffix)
    extension = target.extension(extension)
    # The time of what it is made of, since a repetition after a death has to come to the same name.
    stem = target.stem or picture_stem(prompt or "", image_id, like.created_at)
    if number is not None and target.stem is not None:
        stem = f"{stem}-{number}"
    disk.note_folder(target.folder)
    # A repetition after a death takes up what the first attempt wrote; a file with the same bytes may also be the user's.
    since = like.created_at.timestamp() - 1 if disk.sidecars.begin(image_id) else None
    path = write_new(target.folder, stem, extension, data, key=image_id, written_after=since)
    warnings = []
    if target.stem is not None and path.stem != stem:
        warnings.append(f"{stem}{extension} was there already and was left alone; the new picture is {path.name}.")
    if target.suffix and target.output_format is None:
        warnings.append(not_written(target, path))
    record = ImageRecord(
        id=image_id,
        created_at=now(),
        origin=origin,
        path=str(path),
        thumbnail_path=str(thumbnail) if thumbnail is not None else None,
        mime_type=mime_type,
        width=width,
        height=height,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        prompt=prompt,
        mode=like.mode,
        tier=like.tier,
        model_id=like.model_id,
        backend=like.backend,
        call_id=like.call_id,
        parents=parents,
    )
    disk.sidecars.write_record(record)
    library.add(record)
    disk.sidecars.ended(image_id)
    return record, warnings


def exact_file(
    image: KeptImage,
    data: bytes,
    exact: OutputSpec,
    target: Target,
    disk: Disk,
    library: Library,
    *,
    number: int | None = None,
) -> tuple[KeptImage, list[str]]:
    """The file in the size and format that was asked for, derived from a picture and recorded as its child.

    The picture is paid for and kept by now: where the file cannot be made, the picture itself is the answer, with a
    note.
    """
    try:
        return _exact_file(image, data, exact, target, disk, library, number)
    except (RequestError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        return image, [f"The exact file could not be made ({why}); this is the picture as delivered."]


def _exact_file(
    image: KeptImage,
    data: bytes,
    exact: OutputSpec,
    target: Target,
    disk: Disk,
    library: Library,
    number: int | None,
) -> tuple[KeptImage, list[str]]:
    from nanobanana_mcp.pixels.outputs.render import render  # numpy: 40 ms and 12 MB that only exact files pay

    master = image.record
    recipe = {"from": master.id, **{name: value for name, value in asdict(exact).items() if value is not None}}
    with DECODES:
        rendered = render(
            data,
            width=exact.width,
            height=exact.height,
            fit=exact.fit,
            output_format=exact.output_format or kept_format(master.mime_type),
            quality=exact.quality,
            label=Label(source_type=source_type(master), recipe=json.dumps(recipe)),
        )
    record, warnings = keep_made(
        rendered.data,
        image_id=child_id(master.id, "exact"),
        origin="derived",
        prompt=master.prompt,
        like=master,
        parents=(Parent(image_id=master.id, role="base"),),
        target=target,
        disk=disk,
        library=library,
        number=number,
    )
    return replace(image, record=record, master=master), [*rendered.notes, *warnings]


def keep_orphan(call_id: str, raw: bytes, disk: Disk, library: Library) -> ImageRecord:
    """Keep the picture of a raw answer of which nothing else is known any more: neither its prompt nor its parents.

    Raises Unreadable or NoPicture for an answer that has none, NotAnImage or SetupError where it cannot be kept.
    """
    reply = read_reply(raw)
    try:
        record, _ = keep_made(
            reply.image,
            image_id=f"img_{call_id}",
            origin="generated",
            prompt=None,
            like=Shared(call_id=call_id, created_at=now(), model_id=reply.model_version),
            parents=(),
            target=Target(folder=disk.places.output),
            disk=disk,
            library=library,
        )
    except OSError as error:
        raise SetupError(f"{disk.places.output} cannot take a recovered picture ({error.strerror}).") from error
    return record


def made_label(part: ImageRecord, plan: Plan) -> Label:
    """The label of a picture that was put together."""
    recipe = {"from": [parent.image_id for parent in plan.parents], "part": part.id, "prompt": plan.request.prompt}
    recipe |= json.loads(plan.recipe or "{}")
    return Label(source_type="compositeWithTrainedAlgorithmicMedia", recipe=json.dumps(recipe, ensure_ascii=False))


def source_type(record: ImageRecord) -> SourceType:
    """The IPTC term: made by a model, or put together from a model's answer and something else."""
    made_whole = record.origin in ("generated", "part", "derived") and record.mode == "generate"
    return "trainedAlgorithmicMedia" if made_whole else "compositeWithTrainedAlgorithmicMedia"


def kept_format(mime_type: str) -> OutputFormat:
    """The format of a file made of a picture when none is asked for: the picture's own where it can be written."""
    formats: dict[str, OutputFormat] = {"image/jpeg": "jpeg", "image/webp": "webp", "image/avif": "avif"}
    return "jpeg" if mime_type == "image/heic" else formats.get(mime_type, "png")


def _write_master(
    data: bytes, mime_type: str, extension: str, image_id: str, plan: Plan, call: Call, disk: Disk, *, again: bool
) -> tuple[Path, list[str]]:
    target = plan.target if plan.recipe is None else Target(folder=disk.places.parts)
    stem = picture_stem(plan.request.prompt, image_id, call.reserved_at)
    if plan.exact_of(mime_type) is not None:
        target = target.without_name(disk.places.output)
    if target.stem is not None:
        stem = target.stem if plan.request.n == 1 else f"{target.stem}-{call.position + 1}"
    extension = target.extension(extension)
    since = call.reserved_at.timestamp() - 1 if again else None
    warnings = []
    try:
        path = write_new(target.folder, stem, extension, data, key=image_id, written_after=since)
    except OSError as error:
        path = _write_elsewhere(data, stem, extension, image_id, disk, error, written_after=since)
        warnings.append(f"{target.folder} could not take the picture ({error.strerror}); it is at {path} instead.")
        return path, warnings
    if target.stem is not None and path.stem != stem:
        warnings.append(f"{stem}{extension} was there already and was left alone; the new picture is {path.name}.")
    if target.suffix and target.output_format is None:
        warnings.append(not_written(target, path))
    return path, warnings


def _named_by_magic(data: bytes) -> tuple[str, str]:
    """Mime type and extension by the first bytes alone, for a picture that is damaged further on."""
    try:
        names = FORMATS[format_of(data)]
    except NotAnImage:
        return "application/octet-stream", ".bin"
    return names.mime_type, names.extension


def _write_elsewhere(
    data: bytes,
    stem: str,
    extension: str,
    image_id: str,
    disk: Disk,
    error: OSError,
    *,
    written_after: float | None,
) -> Path:
    others = (disk.places.output, disk.places.state / "rescued")
    path = _rescued(data, stem, extension, image_id, others, written_after=written_after)
    if path is not None:
        return path
    raw = disk.spool.path(image_id.removeprefix("img_"))
    if raw is None:
        raise SetupError(
            f"No disk takes the picture ({error.strerror}), nor its raw answer: it is lost, although it was paid for. "
            f"Make room on the disks of {disk.places.output} and {disk.places.state} before asking again."
        ) from error
    raise SetupError(
        f"No disk takes the picture ({error.strerror}). Its raw answer is kept as {raw}; make room and run "
        "maintenance with operation 'recover', which finishes it without paying again."
    ) from error


def rescued(data: bytes, image_id: str, prompt: str, folder: Path, disk: Disk, *, since: datetime) -> Path | None:
    """Where the bytes are that keep_made() did not bring into the library; None when no disk takes them."""
    stem, extension = picture_stem(prompt, image_id, since), _named_by_magic(data)[1]
    folders = (folder, disk.places.output, disk.places.state / "rescued")
    return _rescued(data, stem, extension, image_id, folders, written_after=since.timestamp() - 1)


def _rescued(
    data: bytes, stem: str, extension: str, image_id: str, folders: tuple[Path, ...], *, written_after: float | None
) -> Path | None:
    for folder in folders:
        try:
            return write_new(folder, stem, extension, data, key=image_id, written_after=written_after)
        except OSError:
            continue
    return None


def not_written(target: Target, path: Path) -> str:
    """The note on a file whose name asked for a format that is only read here."""
    kind = path.suffix.lstrip(".").upper()
    return (
        f"The file is {path.name}, in {kind}: {target.suffix} is no format that is written here (png, jpg, webp, avif)."
    )
