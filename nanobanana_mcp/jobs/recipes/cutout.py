"""Real transparency: the same picture on white and on black, or on a key colour where the two do not match."""

import asyncio
from dataclasses import dataclass, replace

from nanobanana_mcp.domain.errors import NotPutTogether, StudioError
from nanobanana_mcp.domain.results import KeptImage, Measure
from nanobanana_mcp.domain.wire import InputPart, ModelRequest
from nanobanana_mcp.jobs.naming import made_label
from nanobanana_mcp.jobs.outcomes import told_of_answers
from nanobanana_mcp.jobs.recipes.common import keep_composed
from nanobanana_mcp.jobs.run import ModelCalls
from nanobanana_mcp.pixels.edits.cutout import CHEQUERBOARD, Cutout, from_key, from_plates, painted_chequerboard
from nanobanana_mcp.pixels.edits.key import key_colour

CALLS = 3
"""The most calls of a cutout: the white plate, the black one, and one on a key colour where those two do not match."""

PLAIN = (
    "a perfectly uniform {name} background ({colour}) that fills the frame to every edge: no shadow or reflection on it, "
    "no gradient, no vignette, no border and no chequerboard"
)
TAKE_OUT = (
    "Show {subject} of this picture alone, exactly as it is: the same shape, pose, size, place, light, colours and "
    "sharpness. Replace everything else by {plain}. Hair, fur, soft edges, glass and smoke keep their see-through parts, "
    "with the background showing through them."
)
REPLACE_PLAIN = (
    "Change only the background of this picture: it becomes {plain}. The subject is not redrawn, moved, scaled or relit; "
    "every edge, hair and see-through part stays as it is, with the new background showing through."
)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """`picture` is what to cut out of, None where a new picture is drawn first; `subject` says what stays.

    `source` are that picture's own bytes, of `size` px; the cutout is laid upon it.
    """

    picture: InputPart | None
    subject: str
    source: bytes | None = None
    size: tuple[int, int] = (0, 0)

    async def make(self, model_calls: ModelCalls) -> list[KeptImage]:
        """Raises a StudioError when no picture has real transparency: a painted chequerboard is never delivered."""
        n = model_calls.run.plan.request.n
        if n == 1:
            return [await self._cut(model_calls, None)]
        results = await asyncio.gather(
            *(self._cut(model_calls, number) for number in range(1, n + 1)), return_exceptions=True
        )
        found = [result for result in results if isinstance(result, KeptImage)]
        failed = [result for result in results if isinstance(result, BaseException)]
        for error in failed:
            if not isinstance(error, StudioError):
                raise error
            model_calls.run.warnings.append(f"One of {n} pictures did not come: {error}")
        if not found:
            raise failed[0]
        return found

    async def _cut(self, model_calls: ModelCalls, number: int | None) -> KeptImage:
        base = model_calls.run.request
        plain = PLAIN.format(name="pure white", colour="#FFFFFF")
        if self.picture is None:
            first = replace(base, prompt=f"{base.prompt}\n\nThe subject stands alone on {plain}.")
        else:
            first = replace(base, prompt=TAKE_OUT.format(subject=self.subject, plain=plain), inputs=(self.picture,))
        white = await model_calls.ask(first)
        answers = [white]
        label = made_label(white.record, model_calls.run.plan)
        problem = CHEQUERBOARD
        if not await asyncio.to_thread(painted_chequerboard, white.data, source=self.source):
            black = await model_calls.ask(_on(base, white, "pure black", "#000000"))
            answers.append(black)
            cut = await asyncio.to_thread(from_plates, white.data, black.data, source=self.source, label=label)
            if cut.data is not None:
                return await self._compose(model_calls, [white, black], cut, cut.data, "white and black plates", number)
            problem = _clause(cut.problem)
        colour = await asyncio.to_thread(key_colour, white.data)
        plate = await model_calls.ask(_on(base, white, "flat", colour))
        answers.append(plate)
        if await asyncio.to_thread(painted_chequerboard, plate.data, source=self.source):
            raise self._refusal(CHEQUERBOARD, answers)
        cut = await asyncio.to_thread(from_key, plate.data, colour, source=self.source, label=label)
        if cut.data is None:
            second = _clause(cut.problem)
            raise self._refusal(
                problem if second == problem else f"{problem}, and when asked once more, {second}", answers
            )
        model_calls.run.warnings.append(
            f"Alpha comes from a key colour ({colour}) because {problem}: soft and see-through parts are less exact."
        )
        return await self._compose(model_calls, [white, plate], cut, cut.data, f"key colour {colour}", number)

    async def _compose(
        self,
        model_calls: ModelCalls,
        answers: list[KeptImage],
        cut: Cutout,
        data: bytes,
        method: str,
        number: int | None,
    ) -> KeptImage:
        quality = cut.quality
        assert quality is not None
        report: tuple[tuple[str, Measure], ...] = (
            ("method", method),
            ("mismatch", round(quality.mismatch, 4)),
            ("edge_noise", round(quality.edge_noise, 4)),
            ("held_solid", round(quality.held, 4)),
            ("transparent", round(quality.transparent, 4)),
            ("semi_transparent", round(quality.semi, 4)),
            ("opaque", round(quality.opaque, 4)),
        )
        if self.source is not None:
            report += (("overlays_source", "yes" if cut.overlays else "no"), ("own_pixels", round(cut.own, 3)))
            model_calls.run.warnings += _told(cut)
            if not cut.overlays:
                model_calls.run.warnings.append(
                    f"The cutout ({cut.size[0]}x{cut.size[1]}) could not be placed exactly over its source "
                    f"({self.size[0]}x{self.size[1]}): the model framed the subject in another way, or too little of it tells "
                    "where it was."
                )
        return await keep_composed(model_calls, answers[0], data, parts=answers, report=report, number=number)

    def _refusal(self, why: str, answers: list[KeptImage]) -> NotPutTogether:
        told = told_of_answers(answers)
        return NotPutTogether(
            f"The background could not be taken away: {why}. {told}. Name the subject, or ask for a plainer picture, and try "
            "again."
        )


def _told(cut: Cutout) -> list[str]:
    """Says in words what a cutout that lies on its source has that is not the source's own."""
    told = []
    if cut.overlays and cut.own < 0.9:
        told.append(
            f"In {1 - cut.own:.0%} of the subject the model drew something else than the picture shows; there the cutout has the "
            "model's drawing, elsewhere the picture's own pixels."
        )
    if cut.overlays and cut.enlarged > 1.25:
        told.append(
            f"The outline was drawn {cut.enlarged:.1f} times smaller than the picture is and enlarged; the inside has the picture's "
            "own pixels."
        )
    quality = cut.quality
    if quality is not None and quality.held > 0.05:
        told.append(
            f"The two plates differed a little in {quality.held:.0%} of the solid inside, which was held opaque."
        )
    return told


def _clause(sentence: str | None) -> str:
    """A sentence as a part of a longer one."""
    return f"{(sentence or '')[:1].lower()}{(sentence or '')[1:]}".rstrip(".")


def _on(base: ModelRequest, white: KeptImage, name: str, colour: str) -> ModelRequest:
    """The white plate's subject on another background, with nothing else asked for."""
    picture = InputPart(mime_type=white.record.mime_type, data=white.data)
    prompt = REPLACE_PLAIN.format(plain=PLAIN.format(name=name, colour=colour))
    return replace(base, prompt=prompt, inputs=(picture,), negative_prompt=None, roles=None, grounding=False)
