"""edit_region: the crop around a region is redrawn by the model, and only the region is set back into the picture."""

import asyncio
from dataclasses import dataclass, replace

from nanobanana_mcp.domain.errors import NotPutTogether
from nanobanana_mcp.domain.results import KeptImage
from nanobanana_mcp.domain.wire import InputPart
from nanobanana_mcp.jobs.naming import made_label
from nanobanana_mcp.jobs.outcomes import told_of_answers
from nanobanana_mcp.jobs.recipes.common import keep_composed
from nanobanana_mcp.jobs.run import ModelCalls
from nanobanana_mcp.pixels.edits.patch import Joined, Patch, join

WORDS = (
    "{instruction}\n\nChange only {where} of this picture. Everything else keeps its place, size, light, focus and "
    "colours exactly; the framing stays, nothing is moved, zoomed or cropped, and no border or mark is added."
)


@dataclass(frozen=True, kw_only=True)
class RegionEdit:
    """`source` are the picture's own bytes."""

    source: bytes
    patch: Patch
    instruction: str

    async def make(self, model_calls: ModelCalls) -> list[KeptImage]:
        """Raises NotPutTogether when no answer fits: nonsense is never pasted."""
        prompt = WORDS.format(instruction=self.instruction, where=self.patch.where)
        picture = InputPart(mime_type=self.patch.mime_type, data=self.patch.crop)
        request = replace(model_calls.run.request, prompt=prompt, inputs=(picture,))
        answers: list[KeptImage] = []
        while True:
            answer = await model_calls.ask(request)
            answers.append(answer)
            part = answer.record
            label = made_label(part, model_calls.run.plan)
            joined = await asyncio.to_thread(join, self.source, answer.data, self.patch, label=label)
            if joined.data is not None:
                break
            told = (
                f"Answer {part.id} shows something else than the picture around the region, or the same at another size "
                "or place, so it was not pasted"
            )
            if not model_calls.calls_left:
                raise NotPutTogether(
                    f"{told}. {told_of_answers(answers)}. Describe the change more plainly, "
                    "give a larger region or more context, or edit the whole picture with generate_image."
                )
            model_calls.run.warnings.append(f"{told}; it was asked for once more.")
        if joined.verdict == "poor":
            model_calls.run.warnings.append(
                "The join shows: the change reaches the region's edge. A larger region (grow) or a wider feather helps."
                if joined.drift.known
                else "The join shows, and the answer could not be aligned: too little around the region tells how the "
                "model moved or recoloured it. More surroundings, or a region whose edge lies in an even part, helps."
            )
        if not joined.changed:
            model_calls.run.warnings.append(
                "Nothing visibly changed in the region: the model gave back what was there. Say more plainly what is to be "
                "different, or give a larger region."
            )
        return [
            await keep_composed(
                model_calls, answer, joined.data, parts=[answer], report=measured(joined), preview=joined.preview
            )
        ]


def measured(joined: Joined) -> tuple[tuple[str, float | str], ...]:
    drift = joined.drift
    join: tuple[tuple[str, float | str], ...] = (
        ("verdict", joined.verdict),
        ("changed", "yes" if joined.changed else "no"),
        ("seam", round(joined.seam.score, 3)),
        ("seam_worst", round(joined.seam.worst, 3)),
    )
    confidence = ("drift_confidence", round(drift.confidence, 2))
    if not drift.known:
        return (*join, ("drift", "not known"), confidence)
    return (
        *join,
        ("drift_shift_x_px", round(drift.shift_x, 2)),
        ("drift_shift_y_px", round(drift.shift_y, 2)),
        ("drift_scale", round(drift.scale, 4)),
        ("drift_colour_levels", round(drift.recolouring, 1)),
        confidence,
    )
