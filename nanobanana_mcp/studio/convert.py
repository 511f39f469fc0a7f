"""convert_image: another size, shape or format of a picture, or a set of asset files; free, and on this machine."""

import asyncio
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from nanobanana_mcp.domain.errors import NotEnoughMemory, RequestError, SetupError
from nanobanana_mcp.domain.ids import child_id, now
from nanobanana_mcp.domain.plan import Target
from nanobanana_mcp.domain.records import ImageRecord, Parent
from nanobanana_mcp.domain.requests import OutputSpec
from nanobanana_mcp.domain.sizing import check_name
from nanobanana_mcp.domain.terms import Fit, OutputFormat
from nanobanana_mcp.jobs.inputs import Source
from nanobanana_mcp.jobs.naming import ICON, kept_format, not_written, source_type
from nanobanana_mcp.jobs.origins import Derived
from nanobanana_mcp.pixels.files.clean import DECODES
from nanobanana_mcp.pixels.files.labels import Label, read_label
from nanobanana_mcp.pixels.outputs.assets import AssetOutline, asset_notes, asset_outlines, asset_set
from nanobanana_mcp.pixels.outputs.render import Outline, Shape, colour_of, outline, render
from nanobanana_mcp.storage.paths import slug
from nanobanana_mcp.storage.writing import check_room
from nanobanana_mcp.studio.studio import Studio

ROOM = 100_000_000


@dataclass(frozen=True, kw_only=True)
class ConvertRequest:
    """The file to make of `image`, a path or an img_... id. `crop` is left, top, right, bottom in pixels."""

    image: str
    width: int | None
    height: int | None
    fit: Fit
    output_format: OutputFormat | None
    quality: int
    crop: tuple[float, ...] | None
    rotate: float
    background: str | None
    assets: Literal["favicon", "app_icons", "social"] | None
    output_path: str | None


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A file as it is to be made: its name without the extension (None: named by day and words), its size in pixels."""

    stem: str | None
    width: int
    height: int
    mime_type: str


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """The files that a conversion would make, and where: in `folder`, or with `is_within` in one of their own there."""

    folder: Path
    is_within: bool
    drafts: tuple[Draft, ...]
    notes: tuple[str, ...]


async def rehearse(studio: Studio, request: ConvertRequest) -> Rehearsal:
    """Say what a conversion would make. The picture is decoded, and nothing is drawn or written. Raises what `convert`
    raises, except for errors that only writing can meet.
    """
    request, target, source = await _prepared(studio, request)
    drafts, notes = await asyncio.to_thread(_outlined, request, source.record, source.original or b"")
    return Rehearsal(
        folder=target.folder,
        is_within=_has_own_folder(request),
        drafts=tuple(replace(draft, stem=draft.stem or target.stem) for draft in drafts),
        notes=tuple(notes),
    )


async def convert(studio: Studio, request: ConvertRequest) -> tuple[list[ImageRecord], list[str]]:
    """The new pictures' records, and notes. Raises RequestError and its kin."""
    request, target, source = await _prepared(studio, request)
    name = _own_name(source)
    (source,) = await studio.sources.import_([source])
    try:
        return await asyncio.to_thread(_convert, studio, request, source.record, source.original or b"", target, name)
    except OSError as error:
        raise SetupError(
            f"{target.folder} could not take the file ({error.strerror}). Make room there, or give another output_path."
        ) from error
    except MemoryError as error:
        raise NotEnoughMemory(
            f"There is not enough memory free here to work on {source.record.width}x{source.record.height} pixels; nothing was "
            "written. Close other programs, raise the limit that this one runs under, or take a smaller picture."
        ) from error


async def _prepared(studio: Studio, request: ConvertRequest) -> tuple[ConvertRequest, Target, Source]:
    """The request with the format that its file name asks for, the target, and the picture."""
    target = await asyncio.to_thread(studio.disk.target, request.output_path)
    source = await studio.sources.resolve(request.image, offline=True)
    if source.original is None and source.record.path is not None:
        source = await studio.sources.resolve(source.record.id)  # a Files API id whose picture is also in the library
    if source.original is None:
        raise RequestError(f"{request.image} is only in the Files API; give a path or an img_... id.")
    shaped = (
        request.width
        or request.height
        or request.crop
        or request.rotate
        or request.output_format
        or target.output_format
    )
    if request.assets is None and not shaped and request.background is None:
        raise RequestError("Say what to make of it: width, height, crop, rotate, background, output_format or assets.")
    if request.assets is not None and target.stem is not None:
        raise RequestError("assets makes several files with names of their own; give a folder as output_path.")
    if request.assets is not None and shaped:
        raise RequestError(
            "assets makes files of fixed sizes; leave width, height, crop, rotate and output_format out."
        )
    check_name(
        OutputSpec(width=request.width, height=request.height, output_format=request.output_format),
        target.output_format,
    )
    kept = kept_format(source.mime_type)
    clear = request.background is not None and colour_of(request.background)[3] < 255
    fitting = target.output_format or ("png" if clear and kept == "jpeg" else None)
    if request.output_format is None and request.assets is None and fitting not in (None, kept):
        request = replace(request, output_format=fitting)
    await asyncio.to_thread(check_room, ROOM, target.folder)
    return request, target, source


def _has_own_folder(request: ConvertRequest) -> bool:
    return request.assets is not None and request.output_path is None


def _recipe(request: ConvertRequest, source: ImageRecord) -> str:
    asked = {name: value for name, value in asdict(request).items() if value is not None and name != "output_path"}
    return json.dumps({"from": source.id, **asked, "image": source.id}, ensure_ascii=False)


def _shape(request: ConvertRequest, source: ImageRecord) -> Shape:
    return {
        "width": request.width,
        "height": request.height,
        "fit": request.fit,
        "crop": request.crop,
        "rotate": request.rotate,
        "output_format": request.output_format or kept_format(source.mime_type),
        "quality": request.quality,
        "background": request.background,
    }


def _outlined(request: ConvertRequest, source: ImageRecord, data: bytes) -> tuple[list[Draft], list[str]]:
    """The files that would be made, without their bytes, and notes on them."""
    with DECODES:
        if request.assets is not None:
            assets = asset_outlines(data, request.assets, background=request.background)
            return [_asset_draft(asset) for asset in assets], asset_notes(assets, data)
        planned = outline(data, **_shape(request, source))
    return [_draft(planned)], list(planned.notes)


def _drawn(
    request: ConvertRequest, source: ImageRecord, data: bytes, recipe: str
) -> tuple[list[tuple[Draft, bytes]], list[str]]:
    """The files, and notes on them."""
    label = _label(source, data, recipe)
    with DECODES:
        if request.assets is not None:
            assets = asset_set(data, request.assets, background=request.background, label=label)
            return [(_asset_draft(asset), asset.data) for asset in assets], asset_notes(assets, data)
        rendered = render(data, label=label, **_shape(request, source))
    return [(_draft(rendered), rendered.data)], list(rendered.notes)


def _draft(file: Outline) -> Draft:
    return Draft(stem=None, width=file.width, height=file.height, mime_type=file.mime_type)


def _asset_draft(asset: AssetOutline) -> Draft:
    stem, _, _ = asset.name.rpartition(".")
    return Draft(stem=stem, width=asset.width, height=asset.height, mime_type=asset.mime_type)


def _convert(
    studio: Studio, request: ConvertRequest, source: ImageRecord, data: bytes, target: Target, name: str | None
) -> tuple[list[ImageRecord], list[str]]:
    recipe = _recipe(request, source)
    drafts, notes = _drawn(request, source, data, recipe)
    if _has_own_folder(request):  # a folder for each request, so that no name gets a number
        set_id = child_id(source.id, recipe)[-6:]
        target = Target(folder=target.folder / f"{slug(name or source.prompt or '')}_{request.assets}_{set_id}")
    with studio.disk.making():  # two equal requests at once would else write one file and add its row twice
        made = _kept(studio, request, source, drafts, target, recipe, name, notes)
    return made, notes


def _kept(
    studio: Studio,
    request: ConvertRequest,
    source: ImageRecord,
    drafts: list[tuple[Draft, bytes]],
    target: Target,
    recipe: str,
    name: str | None,
    notes: list[str],
) -> list[ImageRecord]:
    made = []
    for draft, file in drafts:
        stem = draft.stem or target.stem
        there = _there(file, source, target.folder, stem, studio)
        if there is not None:
            made.append(there)
            if target.suffix and target.output_format is None and there.path is not None:
                notes.append(not_written(target, Path(there.path)))
            continue
        image_id = child_id(source.id, f"{recipe} {stem} {target.folder}")
        earlier = studio.library.get(image_id)
        if earlier is not None and studio.disk.read_own(Path(earlier.path or "")) != file:
            image_id = child_id(source.id, f"{image_id} {now().isoformat()}")  # that file is gone or was changed
        derived = Derived(
            image_id=image_id,
            origin="derived",
            prompt=source.prompt,
            like=replace(source, backend=source.backend or studio.backend),
            parents=(Parent(image_id=source.id, role="base"),),
            target=Target(
                folder=target.folder,
                stem=stem or name,
                suffix=target.suffix if request.assets is None else "",
            ),
            icon=(draft.width, draft.height) if draft.mime_type == ICON else None,
        )
        record, warnings = studio.store.derive(file, derived)
        made.append(record)
        notes += warnings
    return made


def _own_name(source: Source) -> str | None:
    """The file name of a caller's own picture, which its conversions keep; None for a picture that a model drew."""
    path = source.path or (Path(source.record.path) if source.record.path is not None else None)
    return path.stem if path is not None and source.record.model_id is None else None


def _there(file: bytes, source: ImageRecord, folder: Path, stem: str | None, studio: Studio) -> ImageRecord | None:
    """The record of the same file, made earlier from the same picture into the same folder and still unchanged."""
    known = studio.library.find_by_content(hashlib.sha256(file).hexdigest())
    if known is None or known.path is None or source.id not in {parent.image_id for parent in known.parents}:
        return None
    path = Path(known.path)
    named = path.parent == folder and stem in (None, path.stem)
    return known if named and studio.disk.read_own(path) == file else None


def _label(source: ImageRecord, data: bytes, recipe: str) -> Label | None:
    """The label for the file; only for a picture that a model made, here or, as its file says, elsewhere."""
    if source.model_id is not None:
        return Label(source_type=source_type(source), recipe=recipe)
    said = read_label(data)
    return Label(source_type=said.source_type, recipe=recipe) if said is not None else None
