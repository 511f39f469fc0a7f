"""Outpainting on bytes: the canvas, what to send for each step of filling it, and each answer set in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from nanobanana_mcp.pixels.edits.canvas import Canvas, Painted, Step, padded, painted, planned, started
from nanobanana_mcp.pixels.edits.continuation import Edge
from nanobanana_mcp.pixels.edits.patch import as_sent
from nanobanana_mcp.pixels.edits.region import Verdict, verdict
from nanobanana_mcp.pixels.files.clean import DECODES, to_srgb
from nanobanana_mcp.pixels.files.decoding import Size, decoded, from_srgb
from nanobanana_mcp.pixels.files.labels import Label
from nanobanana_mcp.pixels.files.png import png

Fault = Literal["elsewhere", "left", "edge"]
"""The reason why an answer is not used: it shows something else than the picture, was not painted to the end, or goes
on as another picture or a frame does."""

# Set by one half of the photographs of benchmarks.extensions, at drifts of L1 to L3: true continuations left 0.25 of the
# cells at most, and stood out 3.1 times along 0.74 of one side at most, where objects end in one line; frames and other
# scenes stood out 5 times and more along 0.8 of it, but for those that look alike beside the join.
_LEFT, _MAY_BE_LEFT = 0.3, 0.17
_STANDS_OUT, _SHOWS = (4.0, 0.6), (1.6, 0.4)


@dataclass(frozen=True, kw_only=True)
class Widened:
    """A canvas after an answer was set in, with how well it joined; unchanged, with a `fault`, when it was not to be used.

    `left` and `edge` are as in `canvas.Painted`.
    """

    canvas: Image.Image
    verdict: Verdict
    fault: Fault | None
    seam: float
    left: float
    edge: Edge

    @property
    def partly_left(self) -> bool:
        """True where so much looks as it was sent that it has to be told. Grey and even scenes look so of themselves: two of
        128 good answers on photographs at L2 and L3, and seven of nine that were left in part and are not refused.
        """
        return self.fault is None and self.left > _MAY_BE_LEFT


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
    opinion, fault = _judged(done)
    return Widened(
        canvas=done.image if fault is None else canvas,
        verdict=opinion,
        fault=fault,
        seam=done.seam.score,
        left=done.left,
        edge=done.edge,
    )


def _judged(done: Painted) -> tuple[Verdict, Fault | None]:
    opinion = verdict(done.drift, done.seam)
    if opinion == "nonsense":
        return opinion, "elsewhere"
    if done.left > _LEFT:
        return "nonsense", "left"
    if done.edge.times > _STANDS_OUT[0] and done.edge.share > _STANDS_OUT[1]:
        return "nonsense", "edge"
    shows = done.edge.times > _SHOWS[0] and done.edge.share > _SHOWS[1]
    return "poor" if shows else opinion, None


def finished(canvas: Image.Image, *, label: Label | None) -> bytes:
    with DECODES:
        return png(canvas, label=label)
