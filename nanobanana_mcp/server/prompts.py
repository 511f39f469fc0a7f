"""MCP prompts: what a person may ask for by name, each with tool calls that do it well.

A prompt is read by the model that calls the tools. It has the person's own words, advice, and calls that are valid as
they stand; the model fills in what it knows better.
"""

import inspect
import json
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

from fastmcp import FastMCP
from fastmcp.exceptions import ValidationError
from fastmcp.prompts import Prompt
from fastmcp.prompts.base import PromptArgument
from fastmcp.server.dependencies import get_context
from pydantic import Field

from nanobanana_mcp.domain.text import shorten
from nanobanana_mcp.server.clients import client_name

ALWAYS = (
    "Look at each preview before you make the next picture, and pay for another only when this one misses what was asked. "
    "Tell the person the path of every file, since they may not see the preview, and what it cost."
)
TYPED = (
    "Claude Code hands over one word for each argument. Where <command-args> stands above, that is what the person typed: "
    "go by the whole of it, and complete the words below from it.\n\n"
)
_CALL = re.compile(r"`(\w+)`\n```json\n(.*?)\n```", re.DOTALL)


def photo(subject: str) -> str:
    """A photograph, described as a photographer would."""
    return _told(
        f"Make a photograph: {subject}",
        "Write the prompt in whole sentences: what is seen and what it does, where, the light, then lens, distance and depth "
        "of field. Keep everything that the person said; add only what they left open. Words of praise (masterpiece, 8k) "
        "do nothing. Choose aspect_ratio by the subject: 3:2 lying, 2:3 or 4:5 standing, 16:9 for a wide view.",
        _call(
            "generate_image",
            prompt=f"A photograph: {subject}. Soft daylight from one side, 50 mm lens at f/2.8, eye level, true colours, "
            "natural texture of every surface.",
            aspect_ratio="3:2",
            model_tier="flash",
        ),
        "flash is for finding the picture. When it is found and has small lettering, many people or is to be printed, edit "
        "or repeat it with model_tier pro; resolution 4k only for large prints.",
    )


def poster(title: str, details: str = "") -> str:
    """A poster whose words are spelt right."""
    return _told(
        f"Make a poster with the title {title!r}. {details}",
        "Put every word that is to be read into quotation marks in the prompt, with its place and size, and no other words; "
        "few words are drawn more surely than many. Say what the one strong image is, the colours, and where it stays "
        "empty. pro draws letters best; search is switched off, as nothing has to be looked up.",
        _call(
            "generate_image",
            prompt=f'A poster. At the top, in large, evenly spaced letters: "{title}". {details} One strong image, three '
            "colours, generous margins, no other words.",
            negative_prompt="misspelt words, extra lettering, watermark",
            model_tier="pro",
            aspect_ratio="2:3",
            enable_grounding=False,
        ),
        "Read the letters in the preview one by one. If one is wrong, mend that place alone, with a box around the words in "
        "fractions of the picture:",
        _call(
            "edit_region",
            image="<id of the poster>",
            instruction=f'The lettering reads exactly "{title}", in the same typeface and colour.',
            box=[0.05, 0.05, 0.95, 0.3],
        ),
    )


def logo(name: str, idea: str = "") -> str:
    """Four drafts of a logo, then the chosen one with transparency and as icons."""
    return _told(
        f"Design a logo for {name!r}. {idea}",
        "First four drafts, cheap and small. Say one idea, one or two colours and simple shapes; a logo must be "
        "readable at 32 pixels and in black alone.",
        _call(
            "generate_image",
            prompt=f'A flat logo for "{name}". {idea} Simple geometric shapes, two colours, clear at 32 pixels, centred on '
            "a plain white background. The logo alone: no mock-up, no shadow.",
            n=4,
            model_tier="flash",
            aspect_ratio="1:1",
        ),
        "Show the person the four paths and let them choose; do not go on before. Then cut the chosen one out, which "
        "costs two pictures or more, and make the files from it, which costs nothing:",
        _call("remove_background", image="<id of the chosen draft>", subject="the logo"),
        _call("convert_image", image="<id of the cutout>", assets="favicon"),
        "These are pictures of pixels; say so if the person expects a vector file.",
    )


def icon_set(things: str, style: str = "") -> str:
    """Icons in one style, on transparency."""
    names = [one.strip() for one in re.split(r"[,;\n]", things) if one.strip()] or [things]
    look = style or "flat, rounded shapes, two colours, lines of one width"
    return _told(
        f"Make a set of icons in one style: {', '.join(names)}. {style}",
        "The first icon decides the style. Let the person see it before you go on.",
        _call(
            "generate_image",
            prompt=f"An icon of {names[0]}: {look}. Seen from the front, centred with an even margin on a plain white "
            "background, no words, no shadow.",
            model_tier="flash",
            aspect_ratio="1:1",
        ),
        "Every other icon takes that first one as its style, always the first, so that the set does not drift; mode generate, "
        "since one input alone would be edited:",
        _call(
            "generate_image",
            prompt=f"An icon of {names[1 if len(names) > 1 else 0]} in exactly the style of the picture: the same line "
            "width, colours, margin and view. Plain white background, no words.",
            input_images=["<id of the first icon>"],
            input_roles=["style"],
            mode="generate",
            model_tier="flash",
            aspect_ratio="1:1",
        ),
        "When all of them belong together, cut each out and make the file. remove_background costs two pictures or more "
        "for each icon: for many, tell the person first what that comes to (dry_run says it).",
        _call("remove_background", image="<id of an icon>", subject="the icon"),
        _call("convert_image", image="<id of the cutout>", width=512, height=512, fit="contain", output_format="png"),
    )


def pattern(motif: str, colors: str = "") -> str:
    """A pattern that is meant to be repeated."""
    return _told(
        f"Make a repeating pattern: {motif}. {colors}",
        "Say the elements, their size against the tile, how dense they lie, and the colours. What the tile needs to repeat "
        "is that what one edge cuts off goes on at the opposite edge.",
        _call(
            "generate_image",
            prompt=f"A seamless repeating pattern: {motif}. {colors} Small elements, evenly spread, no focal point, flat "
            "light. What the left edge cuts off goes on at the right edge, and what the top cuts off at the bottom. No "
            "border, no words.",
            aspect_ratio="1:1",
            model_tier="flash",
        ),
        "Gemini gives no guarantee that the edges meet: look at elements that touch them, and say to the person that the "
        "join wants to be looked at side by side. Patterns on a plain ground, with nothing across the edges, repeat surely:",
        _call(
            "generate_image",
            prompt=f"A pattern: {motif}. {colors} Small elements with wide gaps on one plain colour, none of them touching an "
            "edge of the picture. No border, no words.",
            aspect_ratio="1:1",
            model_tier="flash",
        ),
    )


def diagram(content: str, kind: str = "") -> str:
    """A diagram with the labels as they were given."""
    return _told(
        f"Draw a diagram ({kind or 'of whatever kind shows it best'}): {content}",
        "Work the content out in words before you draw: the boxes, the exact label of each in quotation marks, and each "
        'arrow from where to where ("Order" to "Payment"). At most a dozen labels of a few words. Search is switched off; '
        "set enable_grounding true only when facts have to be looked up, and then check them.",
        _call(
            "generate_image",
            prompt=f"A clear {kind or 'diagram'} on a white background: {content}. Boxes of one kind joined by arrows, dark "
            "text in one plain typeface, two accent colours, wide margins. Every label exactly as given, no other words.",
            model_tier="pro",
            aspect_ratio="16:9",
            resolution="2k",
            enable_grounding=False,
        ),
        "Compare every label and every arrow with the content. Mend a wrong one in its place, everything else staying as it "
        "is:",
        _call(
            "edit_region",
            image="<id of the diagram>",
            instruction='The label reads exactly "<label>".',
            box=[0.1, 0.1, 0.4, 0.25],
        ),
    )


def story(plot: str, pictures: str = "4") -> str:
    """A story in several pictures with the same characters in each."""
    number = pictures.strip()
    count = number if re.fullmatch(r"[1-9][0-9]?", number) else "4"
    said = f"{number} pictures" if number == count else f"as many pictures as were asked for ({number}), or 4"
    return _told(
        f"Tell a story in {said}: {plot}",
        "Write one sentence for each picture first, so that each shows one moment, and the person can change them. Say how "
        "many pictures are paid for: one for the sheet of characters and one for each scene.",
        _call(
            "generate_image",
            prompt=f"A sheet with every character of this story, each from the front and from the side, in the clothes they "
            f"wear throughout, plain light background, no words. The story: {plot}",
            aspect_ratio="16:9",
            model_tier="flash",
        ),
        "Then each scene by a call of its own with that sheet, never with the scene before, from which they would drift. n "
        "is no way to a story: it draws one wish several times.",
        _call(
            "generate_image",
            prompt=f"Scene 1 of {count}: <what happens, where, seen from where>. The characters exactly as on the sheet: "
            "faces, hair, build and clothes. The same drawing style in every scene, no words.",
            input_images=["<id of the sheet>"],
            input_roles=["character"],
            mode="generate",
            aspect_ratio="16:9",
            model_tier="flash",
        ),
    )


def restore(picture: str, wishes: str = "") -> str:
    """An old or damaged photograph, mended without making it another."""
    return _told(
        f"Restore the photograph {picture}. {wishes}",
        "The file itself stays as it is. Say what is damaged and what must stay: faces above all. Where something is gone, "
        "let it be plain and not invented. Colour a black and white picture only when that was asked for.",
        _call(
            "generate_image",
            prompt=f"Restore this photograph: take away scratches, dust, stains, folds and fading. {wishes} Everything that "
            "can be seen stays as it is: each face with its expression and age, the pose, clothes, background, framing and "
            "grain. Nothing is added, nothing is made smoother or younger.",
            input_images=[picture],
            model_tier="pro",
            enable_grounding=False,
        ),
        "Gemini draws every pixel anew, so compare the faces with the original, and tell the person if one has changed. "
        "Damage in one place only is better mended there, where all else stays bit-identical:",
        _call(
            "edit_region",
            image=picture,
            instruction="The scratch is gone; what it covered goes on as around it.",
            box=[0.4, 0.4, 0.6, 0.6],
        ),
    )


def product_on_white(picture: str, wishes: str = "") -> str:
    """A product cut out of its photograph, on pure white."""
    return _told(
        f"Put the product in {picture} on pure white. {wishes}",
        "Cut it out, which costs two pictures or more; then the file is made here, for nothing, on exactly white (255, 255, 255), as shops want it.",
        _call("remove_background", image=picture, subject="the product"),
        _call(
            "convert_image",
            image="<id of the cutout>",
            width=2000,
            height=2000,
            fit="pad",
            background="white",
            output_format="jpeg",
        ),
        "Look at fine edges, holes and glass, and at lettering on the product, which must be the product's own. For a soft "
        "shadow or another view let Gemini draw it, which changes every pixel:",
        _call(
            "generate_image",
            prompt="The same product, unchanged in shape, colour and lettering, on a pure white background with a soft "
            "shadow below it, even light, seen from slightly above.",
            input_images=[picture],
            input_roles=["product"],
            mode="edit",
            aspect_ratio="1:1",
        ),
    )


def consistent_character(who: str, scenes: str = "") -> str:
    """A character who stays the same in every picture."""
    return _told(
        f"Make a character who stays the same in every picture: {who}. {scenes}",
        "First a sheet. Say age, build, face, hair, clothes and one thing that nobody else has; what is not said will "
        "differ from picture to picture.",
        _call(
            "generate_image",
            prompt=f"Character sheet of {who}: the whole figure from the front, from the side and from behind, and the face "
            "close up, the same clothes in each, even light, plain light grey background, no words.",
            model_tier="pro",
            aspect_ratio="16:9",
            enable_grounding=False,
        ),
        "Each further picture takes the sheet, always the sheet and not the picture before; mode generate, since one input "
        "alone would be edited. A photograph of a place goes second, with the role layout.",
        _call(
            "generate_image",
            prompt=f"{scenes or '<what they do, and where>'}. The character of the sheet: the same face, hair, build and "
            "clothes.",
            input_images=["<id of the sheet>"],
            input_roles=["character"],
            mode="generate",
            aspect_ratio="3:2",
            model_tier="flash",
        ),
        "Keep the sheet's id (img_...): it serves in a year, too.",
    )


ARGUMENTS = {
    "subject": "What the photograph shows.",
    "title": "The words in large letters.",
    "details": "What it is for, date and place, colours.",
    "name": "The name that the logo stands for.",
    "idea": "What it should show or say.",
    "things": "What the icons show, with commas between them.",
    "style": "How they look.",
    "motif": "What is repeated.",
    "colors": "Its colours.",
    "content": "What the diagram shows, with its labels.",
    "kind": "Flow chart, timeline, cutaway ...",
    "plot": "What happens, and to whom.",
    "pictures": "How many pictures.",
    "picture": "Its path, or an img_... id.",
    "wishes": "What else matters.",
    "who": "The character.",
    "scenes": "What they are shown doing.",
}
PROMPTS: dict[str, tuple[str, Callable[..., str]]] = {
    "photo": ("Photograph", photo),
    "poster": ("Poster", poster),
    "logo": ("Logo", logo),
    "icon_set": ("Icon set", icon_set),
    "pattern": ("Repeating pattern", pattern),
    "diagram": ("Diagram", diagram),
    "story": ("Story in pictures", story),
    "restore": ("Restore a photograph", restore),
    "product_on_white": ("Product on white", product_on_white),
    "consistent_character": ("Consistent character", consistent_character),
}
"""Each by its name, with its title."""


class Suggestion(Prompt):
    """A prompt made of one of the functions above. FastMCP's own class parses docstrings and builds types for each at
    the start.
    """

    write: Callable[..., str] = Field(exclude=True)

    async def render(self, arguments: dict[str, Any] | None = None) -> str:
        """Raises ValidationError for an argument that is missing or that the prompt does not have."""
        given = {name: value for name, value in (arguments or {}).items() if value.strip()}
        wanted = {one.name: one for one in self.arguments or ()}
        for name in given.keys() - wanted.keys():
            raise ValidationError(
                f"{self.name} has no argument {shorten(name)}: it takes {', '.join(wanted)}.", log_level=logging.DEBUG
            )
        for name, one in wanted.items():
            if one.required and name not in given:
                raise ValidationError(f"{self.name} needs {name}: {one.description}", log_level=logging.DEBUG)
        text = self.write(**given)
        return TYPED + text if "claude-code" in client_name(get_context()) else text


def add(server: FastMCP) -> None:
    for name, (title, function) in PROMPTS.items():
        arguments = [
            PromptArgument(name=one.name, description=ARGUMENTS[one.name], required=one.default is one.empty)
            for one in inspect.signature(function).parameters.values()
        ]
        server.add_prompt(
            Suggestion(
                name=name,
                title=title,
                description=function.__doc__,
                arguments=arguments,
                write=function,
            )
        )


def calls_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The calls in a prompt's text: each tool with its arguments."""
    return [(tool, json.loads(arguments)) for tool, arguments in _CALL.findall(text)]


def _told(*parts: str) -> str:
    return "\n\n".join([part.strip() for part in parts] + [ALWAYS])


def _call(tool: str, **arguments: str | int | bool | Sequence[str] | Sequence[float]) -> str:
    plain = {name: " ".join(one.split()) if isinstance(one, str) else one for name, one in arguments.items()}
    return f"`{tool}`\n```json\n{json.dumps(plain, ensure_ascii=False)}\n```"


NEEDS = {
    name: frozenset(tool for tool, _ in calls_of(function(*inspect.signature(function).parameters)))
    for name, (_, function) in PROMPTS.items()
}
"""The tools that each prompt calls; it is offered where all of them are."""
