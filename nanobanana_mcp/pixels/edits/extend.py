"""Outpainting on bytes: the canvas, what to send for each step of filling it, and each answer set in."""

from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from nanobanana_mcp.pixels.edits.canvas import Canvas, Step, padded, painted, planned, started
from nanobanana_mcp.pixels.edits.patch import as_sent
from nanobanana_mcp.pixels.edits.region import Verdict, verdict
from nanobanana_mcp.pixels.files.clean import DECODES, to_srgb
from nanobanana_mcp.pixels.files.decoding import Size, decoded, from_srgb
from nanobanana_mcp.pixels.files.labels import Label
from nanobanana_mcp.pixels.files.png import png


@dataclass(frozen=True, kw_only=True)
class Widened:
    """A canvas after an answer was set in, with how well it joined; unchanged when the answer was nonsense."""

    canvas: Image.Image
    verdict: Verdict
    seam: float
    confidence: float


def steps_for(canvas: Canvas, ratios: Mapping[str, Size]) -> tuple[Step, ...]:
    return planned(canvas, ratios=ratios)


def begin(data: bytes, canvas: Canvas) -> Image.Image:
    with DECODES:
        return started(decoded(data), canvas)


def to_send(canvas: Image.Image, step: Step) -> tuple[bytes, str]:
    """The crop for a step, in sRGB, and its mime type."""
    with DECODES:
        return as_sent(to_srgb(padded(canvas, step)).convert("RGB"))


def set_in(canvas: Image.Image, answer: bytes, step: Step) -> Widened:
    with DECODES:
        own_colours = from_srgb(decoded(answer).convert("RGB"), canvas.info.get("icc_profile"))
        done = painted(canvas, own_colours, step)
        opinion = verdict(done.drift, done.seam)
        kept = canvas if opinion == "nonsense" else done.image
        return Widened(canvas=kept, verdict=opinion, seam=done.seam.score, confidence=done.drift.confidence)


def finished(canvas: Image.Image, *, label: Label | None) -> bytes:
    with DECODES:
        return png(canvas, label=label)
