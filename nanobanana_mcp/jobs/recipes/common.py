"""Ends every recipe: the composed picture is kept, with its exact file where one was asked for."""

import asyncio
from dataclasses import replace

from nanobanana_mcp.domain.records import Parent
from nanobanana_mcp.domain.results import KeptImage, Measure
from nanobanana_mcp.jobs.run import ModelCalls
from nanobanana_mcp.pixels.outputs.thumbnails import Thumbnail


async def keep_composed(
    model_calls: ModelCalls,
    answer: KeptImage,
    data: bytes,
    *,
    parts: list[KeptImage],
    report: tuple[tuple[str, Measure], ...],
    number: int | None = None,
    preview: Thumbnail | None = None,
) -> KeptImage:
    """Keep a picture that was composed from the answers `parts`; its id comes from `answer`, one of them. `number`
    counts the pictures of one request from 1.

    Raises SetupError when no disk takes it; the answers are kept even then.
    """
    run = model_calls.run
    parents = (*run.parents, *(Parent(image_id=part.record.id, role="part") for part in parts))
    image = await asyncio.to_thread(
        model_calls.store.keep_composed, answer, run.plan, data, parents, number=number, preview=preview
    )
    run.warnings += image.notes
    return replace(image, report=report, notes=())
