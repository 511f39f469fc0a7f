"""Joins a region edit again from the answer that is kept: with another box or mask, grow or feather; free, and here."""

import asyncio
import json
from dataclasses import asdict, dataclass, replace

from nanobanana_mcp.domain.errors import NotPutTogether, RequestError
from nanobanana_mcp.domain.ids import child_id, now
from nanobanana_mcp.domain.plan import Plan, RegionRecipe
from nanobanana_mcp.domain.records import ImageRecord, Parent
from nanobanana_mcp.domain.requests import OutputSpec
from nanobanana_mcp.domain.results import KeptImage
from nanobanana_mcp.domain.terms import Grow
from nanobanana_mcp.jobs.naming import made_label
from nanobanana_mcp.jobs.recipes.region import measured, notes_of
from nanobanana_mcp.jobs.recipes.rejoin import kept_answer
from nanobanana_mcp.pixels.edits.patch import Joined, join, prepared
from nanobanana_mcp.storage.writing import check_room
from nanobanana_mcp.studio.edits import exact_source
from nanobanana_mcp.studio.studio import Studio

ROOM = 100_000_000


@dataclass(frozen=True, kw_only=True)
class RejoinRequest:
    """`image` is a region edit or its answer; without `box` and `mask` the region is that of then. `instruction` becomes the
    words of the picture in the library.
    """

    image: str
    instruction: str
    box: tuple[float, float, float, float] | None
    mask: str | None
    grow: Grow
    feather: int
    output_path: str | None
    exact: OutputSpec | None


async def rejoin_edit(studio: Studio, request: RejoinRequest) -> KeptImage:
    """The picture, with its measurements and notes. The same wish again is the same picture. Raises RequestError, and
    NotPutTogether where the answer shows something else than the source.
    """
    if request.box is not None and request.mask is not None:
        raise RequestError("Say which region to join by box or by mask, by one of them.")
    part, plan, recipe = await asyncio.to_thread(kept_answer, request.image, studio.store)
    target = await asyncio.to_thread(studio.disk.target, request.output_path)
    await asyncio.to_thread(check_room, ROOM, target.folder, studio.places.state)
    mask_id: str | None = None
    if request.mask is not None:
        source, _ = await exact_source(studio, request.mask)
        (source,) = await studio.sources.import_([source])
        mask_id = source.record.id
    elif request.box is None:
        mask_id = next((parent.image_id for parent in part.parents if parent.role == "mask"), None)
    recipe = replace(
        recipe,
        box=request.box if request.box is not None else None if request.mask is not None else recipe.box,
        mask=mask_id is not None,
        grow=request.grow,
        feather=request.feather,
    )
    asked = replace(plan.request, prompt=request.instruction, exact=request.exact)
    plan = replace(plan, request=asked, recipe=recipe, target=target, warnings=())
    parents = tuple(parent for parent in part.parents if parent.role != "mask")
    parents += (Parent(image_id=mask_id, role="mask"),) if mask_id is not None else ()
    return await asyncio.to_thread(_rejoined, studio, part, plan, recipe, parents)


async def will_rejoin(studio: Studio, request: RejoinRequest) -> str:
    """Says in words what `rejoin_edit` would do. Raises RequestError where there is no answer to join."""
    part, _, _ = await asyncio.to_thread(kept_answer, request.image, studio.store)
    return f"Dry run: nothing was made. It would join answer {part.id} again, without asking a model and for nothing."


def _rejoined(
    studio: Studio, part: ImageRecord, plan: Plan, recipe: RegionRecipe, parents: tuple[Parent, ...]
) -> KeptImage:
    store = studio.store
    files: dict[str, bytes] = {}
    for role, image_id in [*((parent.role, parent.image_id) for parent in parents), ("answer", part.id)]:
        data = store.own_bytes(store.library.get(image_id))
        if data is None and role in ("base", "mask", "answer"):
            raise RequestError(f"The {role} {image_id} is gone or has changed, so nothing can be joined.")
        files[role] = data or b""
    patch = prepared(
        files["base"],
        box=recipe.box,
        mask=files.get("mask"),
        grow=recipe.grow,
        feather=recipe.feather,
        crop=recipe.crop,
    )
    joined: Joined = join(files["base"], files["answer"], patch, label=made_label(part, plan), anyway=True)
    if joined.data is None:
        raise NotPutTogether(
            f"Answer {part.id} shows something else than the picture around the region, so it cannot be joined; nothing was charged."
        )
    wish = json.dumps(
        [asdict(recipe), [parent.image_id for parent in parents], str(plan.target), asdict(plan.request)["exact"]]
    )
    with studio.disk.making():  # two equal requests at once would else write one file and add its row twice
        there = store.library.get(child_id(part.id, wish))
        if there is not None and store.own_bytes(there) is None:
            wish += now().isoformat()  # that file is gone or was changed
        made = store.keep_composed(
            KeptImage(record=part, cost_usd=0.0),
            plan,
            joined.data,
            (*parents, Parent(image_id=part.id, role="part")),
            number=None,
            preview=joined.preview,
            wish=wish,
        )
    notes = (*patch.region.notes, *notes_of(joined, part.id), *made.notes)
    return replace(made, report=measured(joined), notes=notes)
