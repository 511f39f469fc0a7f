"""extend_image: what lies beyond the edges is drawn step by step; the picture itself stays bit for bit."""

import asyncio
from dataclasses import dataclass, replace

from nanobanana_mcp.domain.catalog import RATIOS
from nanobanana_mcp.domain.errors import NotPutTogether
from nanobanana_mcp.domain.results import KeptImage, Measure
from nanobanana_mcp.domain.wire import InputPart
from nanobanana_mcp.jobs.naming import made_label
from nanobanana_mcp.jobs.outcomes import told_of_answers
from nanobanana_mcp.jobs.recipes.common import keep_composed
from nanobanana_mcp.jobs.run import ModelCalls
from nanobanana_mcp.pixels.edits.canvas import Canvas, Step
from nanobanana_mcp.pixels.edits.extend import begin, finished, set_in, to_send

WORDS = (
    "This picture is being extended beyond its edges. The parts that are plain grey are not painted yet: fill all of "
    "them, so that the scene goes on naturally with the same perspective, light, focus, grain and colours, and no frame, "
    "seam or repeated object. What is painted already, {where}, stays exactly as it is, in its place and size.{instruction}"
)
FAULTS = {
    "elsewhere": "does not go on from the picture",
    "left": "left {left:.0%} of what was to be painted as it was sent",
    "edge": "goes on behind a hard edge, as a frame or another scene does",
}
WAYS_OUT = {
    "elsewhere": "Describe what lies beyond the edges, extend by less, or try again.",
    "left": "Describe what lies beyond the edges, extend by less, or try again.",
    "edge": "Describe what lies beyond the edges, or try again; a plain border is free with convert_image (fit pad and a "
    "background).",
}


@dataclass(frozen=True, kw_only=True)
class Extension:
    """`source` are the picture's own bytes. Calls reserved beyond the steps may be paid for answers that do not fit."""

    source: bytes
    canvas: Canvas
    steps: tuple[Step, ...]
    instruction: str

    async def make(self, model_calls: ModelCalls) -> list[KeptImage]:
        """Raises NotPutTogether when an answer does not fit and no spare call is left: nonsense is never pasted."""
        instruction = f"\n\n{self.instruction}" if self.instruction else ""
        canvas = await asyncio.to_thread(begin, self.source, self.canvas)
        seams: list[float] = []
        used: list[KeptImage] = []
        for number, step in enumerate(self.steps, 1):
            data, mime_type = await asyncio.to_thread(to_send, canvas, step)
            picture = InputPart(mime_type=mime_type, data=data)
            ratio = next(ratio for ratio in RATIOS if ratio == step.ratio)
            prompt = WORDS.format(where=step.where, instruction=instruction)
            request = replace(model_calls.run.request, prompt=prompt, inputs=(picture,), aspect_ratio=ratio)
            while True:
                answer = await model_calls.ask(request)
                part = answer.record
                done = await asyncio.to_thread(set_in, canvas, answer.data, step)
                if done.fault is None:
                    break
                told = f"Answer {part.id} {FAULTS[done.fault].format(left=done.left)}, so it was not used"
                if model_calls.calls_left <= len(self.steps) - number:
                    raise NotPutTogether(f"{told}. {told_of_answers(model_calls.answered)}. {WAYS_OUT[done.fault]}")
                model_calls.run.warnings.append(f"{told}; it was asked for once more.")
            canvas = done.canvas
            seams.append(done.seam)
            used.append(replace(answer, data=b""))
            if done.partly_left:
                model_calls.run.warnings.append(
                    f"{done.left:.0%} of what was to be painted looks as it was sent, grey and even. Look whether something is "
                    "missing there; if so, say in the instruction what lies beyond the edge."
                )
            if done.verdict == "poor":
                which = "The join" if len(self.steps) == 1 else f"The join of step {number} of {len(self.steps)}"
                model_calls.run.warnings.append(
                    f"{which} shows; say in the instruction what lies beyond the edge, or try again."
                )
        made = await asyncio.to_thread(finished, canvas, label=made_label(part, model_calls.run.plan))
        report: tuple[tuple[str, Measure], ...] = (
            ("steps", len(self.steps)),
            ("seam_worst_step", round(max(seams), 3)),
            ("source_left", self.canvas.place[0]),
            ("source_top", self.canvas.place[1]),
        )
        return [await keep_composed(model_calls, answer, made, parts=used, report=report)]
