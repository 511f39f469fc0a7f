"""The end of every recipe: the finished picture is kept, and its exact file where one was asked for."""

import asyncio

from nanobanana_mcp.domain import KeptImage, Parent
from nanobanana_mcp.drawing import Brush, Stroke
from nanobanana_mcp.keeping import child_id, exact_file, keep_made


async def finish(
    brush: Brush,
    stroke: Stroke,
    data: bytes,
    *,
    parents: tuple[Parent, ...],
    report: tuple[tuple[str, float | str], ...],
    number: int | None,
) -> KeptImage:
    """Keep a picture that was made from `stroke` and others. `number` counts the pictures of one request from 1."""
    return await asyncio.to_thread(_finish, brush, stroke, data, parents, report, number)


def _finish(
    brush: Brush,
    stroke: Stroke,
    data: bytes,
    parents: tuple[Parent, ...],
    report: tuple[tuple[str, float | str], ...],
    number: int | None,
) -> KeptImage:
    plan, part = brush.run.plan, stroke.image.record
    exact = plan.request.exact
    record, notes = keep_made(
        data,
        image_id=child_id(part.id, "made"),
        origin="edited" if plan.mode == "edit" else "generated",
        prompt=plan.request.prompt,
        like=part,
        parents=parents,
        target=plan.target if exact is None else plan.target.without_name(brush.places.output),
        places=brush.places,
        library=brush.library,
        number=number,
    )
    brush.run.warnings += notes
    image = KeptImage(record=record, upload=None, cost_usd=stroke.image.cost_usd, report=report)
    if exact is not None:
        image, notes = exact_file(image, data, exact, plan.target, brush.places, brush.library)
        brush.run.warnings += notes
    return image
