"""Puts a region edit together again from the answer that is kept and its source, without asking the model."""

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.domain.plan import Plan, RegionRecipe
from nanobanana_mcp.domain.records import ImageRecord, Parent
from nanobanana_mcp.domain.results import KeptImage
from nanobanana_mcp.jobs.naming import made_label
from nanobanana_mcp.jobs.store import PictureStore


def rejoin(plan: Plan, part: ImageRecord, store: PictureStore, *, cost_usd: float | None) -> KeptImage | None:
    """The picture of an earlier region edit; None for other recipes, for an answer that does not fit, and where a file is gone
    or changed. Raises SetupError when no disk takes the picture.
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
