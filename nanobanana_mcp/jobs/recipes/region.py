"""edit_region: the crop around a region is redrawn by the model, and only the region is set back into the picture."""

import asyncio
from dataclasses import dataclass, replace

from nanobanana_mcp.domain.errors import NotPutTogether
from nanobanana_mcp.domain.results import KeptImage, Measure
from nanobanana_mcp.domain.wire import InputPart
from nanobanana_mcp.jobs.naming import made_label
from nanobanana_mcp.jobs.outcomes import told_of_answers
from nanobanana_mcp.jobs.recipes.common import keep_composed
from nanobanana_mcp.jobs.run import ModelCalls
from nanobanana_mcp.pixels.edits.patch import Joined, Patch, join
from nanobanana_mcp.pixels.files.decoding import Box

WORDS = (
    "{instruction}\n\nChange only {where} of this picture. Everything else keeps its place, size, light, focus and "
    "colours exactly; the framing stays, nothing is moved, zoomed or cropped, and no border or mark is added."
)

_LEAST_LEFT = 0.1  # px of the crop: nothing smaller is said to be left of a drift


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
            if joined.verdict == "unchanged":  # asking the same once more would cost as much for as little
                raise NotPutTogether(
                    f"{_untouched(joined)} Nothing was pasted. {told_of_answers(answers)}. {_way_out(joined, part.id)}"
                )
            told = f"Answer {part.id} shows something else than the picture around the region, so it was not pasted"
            if not model_calls.calls_left:
                raise NotPutTogether(
                    f"{told}. {told_of_answers(answers)}. Describe the change more plainly, "
                    "give a larger region or more context, or edit the whole picture with generate_image."
                )
            model_calls.run.warnings.append(f"{told}; it was asked for once more.")
        model_calls.run.warnings += notes_of(joined, part.id)
        return [
            await keep_composed(
                model_calls, answer, joined.data, parts=[answer], report=measured(joined), preview=joined.preview
            )
        ]


def _untouched(joined: Joined) -> str:
    if joined.beside is not None:
        return f"The model left the region as it was and changed {_words(joined.beside)} of the picture instead."
    return "The model gave the region back as it was."


def _way_out(joined: Joined, answer_id: str) -> str:
    again = f"call edit_region with image {answer_id} and rejoin true"
    if joined.beside is not None and joined.offer is not None:
        return f"To have what it changed, for nothing, {again}, and with box {_words(joined.offer)}."
    return f"Say more plainly what is to be different, or give a larger region; to have the answer all the same, for nothing, {again}."


def notes_of(joined: Joined, answer_id: str) -> list[str]:
    """The notes for a person on a join that is delivered."""
    notes = []
    if joined.grown:
        notes.append(f"The region was grown to what the model changed: {_words(joined.pasted)}.")
    if joined.verdict == "poor" and joined.offer is not None:
        notes.append(
            f"The join shows: the change goes over the region's edge and is cut off there. To have all of it, for nothing, call "
            f"edit_region with image {answer_id}, rejoin true and box {_words(joined.offer)}."
        )
    elif joined.verdict == "poor":
        notes.append(
            "The join shows: the change reaches the region's edge. A larger region (grow) or a wider feather helps; with "
            f"image {answer_id} and rejoin true it costs nothing."
            if joined.drift.known
            else "The join shows, and the answer could not be aligned: too little around the region tells how the "
            "model moved or recoloured it. More surroundings, or a region whose edge lies in an even part, helps."
        )
    if joined.change.told == "no":
        notes.append(_untouched(joined))
    elif joined.change.told == "little":
        notes.append(
            f"Hardly anything in the region differs from what was there ({_percent(joined.change.share)} of it): look whether it "
            "is what was asked for."
        )
    return notes


def _words(box: Box) -> str:
    return f"[{', '.join(map(str, box))}]"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "less than 1%"


def measured(joined: Joined) -> tuple[tuple[str, Measure], ...]:
    """The numbers of a join for the structure, rounded to what they are good for."""
    drift = joined.drift
    join: tuple[tuple[str, Measure], ...] = (
        ("verdict", joined.verdict),
        ("changed", joined.change.told),
        ("changed_share", round(joined.change.share, 2)),
        ("pasted_box", joined.pasted),
        ("seam", round(joined.seam.score, 2)),
        ("seam_worst", round(joined.seam.worst, 2)),
    )
    if joined.left_share:
        join += (("left_share", round(joined.left_share, 2)),)
    if joined.grown:
        join += (("grown", "yes"),)
    if joined.offer is not None:
        join += (("changed_box", joined.offer),)
    if joined.beside is not None:
        join += (("changed_beside", joined.beside),)
    confidence = ("drift_confidence", round(drift.confidence, 2))
    if not drift.known:
        return (*join, ("drift", "not known"), confidence)
    within: tuple[tuple[str, Measure], ...] = ()
    if joined.within is not None:
        within = (("drift_left_px", max(_LEAST_LEFT, round(joined.within, 1))),)
    return (
        *join,
        ("drift_shift_x_px", round(drift.shift_x, 1)),
        ("drift_shift_y_px", round(drift.shift_y, 1)),
        ("drift_scale", round(drift.scale, 3)),
        *within,
        ("drift_colour_levels", round(drift.recolouring)),
        confidence,
    )
