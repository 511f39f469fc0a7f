"""The end of every recipe: the finished picture is kept, and its exact file where one was asked for."""

import asyncio

from nanobanana_mcp.domain.records import Parent
from nanobanana_mcp.domain.results import KeptImage
from nanobanana_mcp.jobs.calls import Answer, ModelCalls
from nanobanana_mcp.jobs.mending import keep_finished
from nanobanana_mcp.pixels.outputs.thumbnails import Thumbnail


async def finish(
    model_calls: ModelCalls,
    answer: Answer,
    data: bytes,
    *,
    parents: tuple[Parent, ...],
    report: tuple[tuple[str, float | str], ...],
    number: int | None,
    preview: Thumbnail | None = None,
) -> KeptImage:
    """Keep a picture that was made from `answer` and others. `number` counts the pictures of one request from 1.

    Raises SetupError when no disk takes it; the answers that it was made from are kept then.
    """
    image, notes = await asyncio.to_thread(
        keep_finished,
        model_calls.run.plan,
        answer.image,
        data,
        parents=parents,
        report=report,
        number=number,
        disk=model_calls.disk,
        library=model_calls.library,
        preview=preview,
    )
    model_calls.run.warnings += notes
    return image
