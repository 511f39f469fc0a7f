"""Keeps the picture that a recipe put together, finds it again, or puts it together from what a dead process kept."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from nanobanana_mcp.domain.errors import RequestError, SetupError
from nanobanana_mcp.domain.ids import child_id
from nanobanana_mcp.domain.plan import Plan
from nanobanana_mcp.domain.records import ImageRecord, Parent
from nanobanana_mcp.domain.results import KeptImage
from nanobanana_mcp.jobs.store import exact_file, keep_made, made_label
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.pixels.outputs.thumbnails import Thumbnail
from nanobanana_mcp.storage.disk import Disk


def keep_finished(
    plan: Plan,
    part: KeptImage,
    data: bytes,
    *,
    parents: tuple[Parent, ...],
    report: tuple[tuple[str, float | str], ...],
    number: int | None,
    disk: Disk,
    library: Library,
    preview: Thumbnail | None = None,
) -> tuple[KeptImage, list[str]]:
    """Keep a picture that was put together from `part` and others, and its exact file where one was asked for.

    `number` counts the pictures of one request from 1. Raises SetupError when no disk takes it.
    """
    exact = plan.exact_of("image/png")
    try:
        record, notes = keep_made(
            data,
            image_id=child_id(part.record.id, "made"),
            origin="edited" if plan.mode == "edit" else "generated",
            prompt=plan.request.prompt,
            like=part.record,
            parents=parents,
            target=plan.target if exact is None else plan.target.without_name(disk.places.output),
            disk=disk,
            library=library,
            number=number,
            preview=preview,
        )
    except OSError as error:
        raise SetupError(
            f"The finished picture could not be written to {plan.target.folder} ({error.strerror}). The model's answer is "
            f"kept at {part.record.path}. Make room there and ask once more."
        ) from error
    image = KeptImage(record=record, upload=None, cost_usd=part.cost_usd, report=report, emulated=part.emulated)
    if exact is None:
        return image, notes
    image, more = exact_file(image, data, exact, plan.target, disk, library, number=number)
    return image, [*notes, *more]


def exact_again(
    plan: Plan, image: KeptImage, library: Library, disk: Disk | None, *, number: int | None
) -> tuple[KeptImage, list[str]]:
    """The exact file of a picture: found, or made now where a kill came between the two; else the picture and a note.

    Without `disk` it is only looked for.
    """
    exact = library.get(child_id(image.record.id, "exact"))
    if exact is not None:
        return replace(image, record=exact, master=image.record), []
    wanted = plan.exact_of(image.record.mime_type)
    data = _file(image.record, disk) if disk is not None else None
    if wanted is None or disk is None or data is None:
        return image, ["The exact file was not made; this is the picture as delivered."]
    return exact_file(image, data, wanted, plan.target, disk, library, number=number)


def found_again(plan: Plan, part: ImageRecord, library: Library, *, cost_usd: float | None) -> KeptImage | None:
    """The picture that was put together from `part`, None when there is none."""
    made = library.get(child_id(part.id, "made"))
    if made is None:
        return None
    image = KeptImage(record=made, upload=None, cost_usd=cost_usd)
    exact = library.get(child_id(made.id, "exact"))
    return image if exact is None else replace(image, record=exact, master=made)


def put_together(
    plan: Plan, part: ImageRecord, library: Library, disk: Disk, *, cost_usd: float | None
) -> KeptImage | None:
    """A region edit from its answer and its source as they are on the disk; None for other recipes, for an answer
    that does not fit, and where a file is gone or changed. Raises SetupError when no disk takes the picture.
    """
    recipe = json.loads(plan.recipe or "{}")
    if recipe.get("edit") != "region":
        return None
    from nanobanana_mcp.pixels.edits.patch import join, prepared  # numpy: 40 ms and 12 MB that only edits pay

    files = {parent.role: _file(library.get(parent.image_id), disk) for parent in plan.parents}
    source, mask, answer = files.get("base"), files.get("mask"), _file(part, disk)
    if source is None or answer is None or (recipe["mask"] and mask is None):
        return None
    left, top, right, bottom = recipe["crop"]
    try:
        patch = prepared(
            source,
            box=recipe["box"],
            mask=mask,
            grow=recipe["grow"],
            feather=recipe["feather"],
            crop=(left, top, right, bottom),
        )
        joined = join(source, answer, patch, label=made_label(part, plan))
    except RequestError:
        return None
    if joined.data is None:
        return None
    image, _ = keep_finished(
        plan,
        KeptImage(record=part, upload=None, cost_usd=cost_usd),
        joined.data,
        parents=(*plan.parents, Parent(image_id=part.id, role="part")),
        report=(),
        number=None,
        disk=disk,
        library=library,
        preview=joined.preview,
    )
    return image


def _file(record: ImageRecord | None, disk: Disk) -> bytes | None:
    """A picture's own bytes, None where they are no longer what they were."""
    path = (record.trash_path or record.path) if record is not None else None
    data = disk.read_own(Path(path)) if path is not None else None
    return data if data is not None and record is not None and sha256(data).hexdigest() == record.sha256 else None
