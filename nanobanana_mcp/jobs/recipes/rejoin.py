"""Puts a region edit together again from the answer that is kept and its source, without asking the model."""

from nanobanana_mcp.domain.errors import RequestError, SetupError
from nanobanana_mcp.domain.plan import Plan, RegionRecipe, load_plan
from nanobanana_mcp.domain.records import ImageRecord, Parent
from nanobanana_mcp.domain.results import KeptImage
from nanobanana_mcp.jobs.naming import made_label
from nanobanana_mcp.jobs.store import PictureStore


def rejoin(plan: Plan, part: ImageRecord, store: PictureStore, *, cost_usd: float | None) -> KeptImage | None:
    """The picture of an earlier region edit; None for other recipes, for an answer that is not delivered as one, and where a
    file is gone or changed. Raises SetupError when no disk takes the picture.
    """
    recipe = plan.recipe
    if not isinstance(recipe, RegionRecipe):
        return None
    from nanobanana_mcp.pixels.edits.patch import join, prepared  # numpy: 40 ms and 12 MB that only edits pay

    files = {parent.role: store.own_bytes(store.library.get(parent.image_id)) for parent in part.parents}
    source, mask, answer = files.get("base"), files.get("mask"), store.own_bytes(part)
    if source is None or answer is None or (recipe.mask and mask is None):
        return None
    try:
        patch = prepared(source, box=recipe.box, mask=mask, grow=recipe.grow, feather=recipe.feather, crop=recipe.crop)
        joined = join(source, answer, patch, label=made_label(part, plan))
    except RequestError:
        return None
    if joined.data is None:
        return None
    return store.keep_composed(
        KeptImage(record=part, cost_usd=cost_usd),
        plan,
        joined.data,
        (*part.parents, Parent(image_id=part.id, role="part")),
        number=None,
        preview=joined.preview,
    )


def kept_answer(image_id: str, store: PictureStore) -> tuple[ImageRecord, Plan, RegionRecipe]:
    """The model's answer that a region edit, or its exact file, was joined from, or that is named itself, with the plan of
    then. Raises RequestError where there is none.
    """
    none = RequestError(
        f"rejoin takes a region edit made here, or the answer of one, by its img_... id; {image_id} is neither. Nothing was sent."
    )
    record, seen = store.library.get(image_id), 0
    while record is not None and record.origin != "part" and seen < 3:  # an exact file, its picture, the answer
        roles = {parent.role: parent.image_id for parent in record.parents}
        next_id = roles.get("part") or (roles.get("base") if record.origin == "derived" else None)
        record, seen = (store.library.get(next_id) if next_id is not None else None), seen + 1
    if record is None or record.call_id is None or record.origin != "part":
        raise none
    found = store.journal.with_call(record.call_id)
    if found is None:
        raise RequestError(
            f"What {image_id} was asked with is not in the library any more, so it cannot be joined again."
        )
    try:
        plan = load_plan(found[0].plan)
    except SetupError as error:
        raise RequestError(f"{image_id} cannot be joined again: what it was asked with is gone.") from error
    if not isinstance(plan.recipe, RegionRecipe):
        raise none
    return record, plan, plan.recipe
