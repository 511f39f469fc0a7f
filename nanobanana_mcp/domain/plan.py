"""A request made ready: everything that is decided before money is spent, and enough to finish the request after a
kill.

A plan is made once and never changed. What only the run can find out is not part of it: that Gemini refuses a
conversation's history, or that another process has entered a source first.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, TypeAdapter, ValidationError

from nanobanana_mcp.domain.catalog import AspectRatio, ImageSize
from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.domain.requests import Choice, ImageRequest, OutputSpec
from nanobanana_mcp.domain.terms import Grow, Mode, Origin, OutputFormat, Role

WRITTEN: dict[str, OutputFormat] = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".webp": "webp",
    ".avif": "avif",
}
"""The format that an extension asks for, where it is one that we write."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The place where a request's pictures go: a folder, and a file name's stem when the caller gave one."""

    folder: Path
    stem: str | None = None
    suffix: str = ""
    """The extension as the caller wrote it."""

    @property
    def output_format(self) -> OutputFormat | None:
        """The format that the name asks for, None where there is no name or its format is none that we write."""
        return WRITTEN.get(self.suffix.lower())

    def extension(self, delivered: str) -> str:
        """The extension of a file whose own one is `delivered`: as the caller wrote it where that is the same format."""
        named = self.output_format
        return self.suffix if named is not None and named == WRITTEN.get(delivered) else delivered

    def exact(self, asked: OutputSpec | None, mime_type: str) -> OutputSpec | None:
        """The file to make of a picture that came as `mime_type`: the name says the format where nothing else does."""
        named = self.output_format
        if named is None or (asked is not None and asked.output_format is not None):
            return asked
        if asked is None:
            return OutputSpec(output_format=named) if mime_type != f"image/{named}" else None
        return replace(asked, output_format=named)

    def without_name(self, output: Path) -> "Target":
        """The target of the master when the name the caller gave is for a file derived from it."""
        return Target(folder=output) if self.stem is not None else self


ANSWER_ROOM: dict[ImageSize, int] = {"512": 3_000_000, "1K": 6_000_000, "2K": 20_000_000, "4K": 60_000_000}
"""Bytes of the disk that are held for one raw answer: PNG of such a size, as base64 a third longer (4K: 43 MB)."""

KNOWN_FIELDS = ConfigDict(extra="forbid")
"""Refuses fields that a newer version added: they may decide what becomes of an answer."""

# The fields of a recipe, their order and the word in `edit` are part of a request's fingerprint: after one of them was
# renamed, a repeated request would be taken for a new one and paid for again.


@dataclass(frozen=True, kw_only=True)
class RegionRecipe:
    """Holds what edit_region needs to put its picture together again from an answer that is kept. `crop` is the part of the
    source that was sent, in pixels (left, top, right, bottom); `grow` and `feather` are in pixels, too.
    """

    __pydantic_config__ = KNOWN_FIELDS

    edit: Literal["region"] = "region"
    box: tuple[float, float, float, float] | None
    mask: bool
    grow: Grow
    feather: int
    crop: tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class ExtensionRecipe:
    """extend_image: width x height of the `canvas`, the source's `place` on it (left, top, right, bottom), and
    the calls."""

    __pydantic_config__ = KNOWN_FIELDS

    edit: Literal["extension"] = "extension"
    canvas: tuple[int, int]
    place: tuple[int, int, int, int]
    steps: int


@dataclass(frozen=True, kw_only=True)
class CutoutRecipe:
    """remove_background, and a new picture with real transparency, which has no `subject` of its own."""

    __pydantic_config__ = KNOWN_FIELDS

    edit: Literal["cutout"] = "cutout"
    subject: str | None


RecipeData = RegionRecipe | ExtensionRecipe | CutoutRecipe
"""The steps that make a picture of the model's answers, when those are only parts of it."""


@dataclass(frozen=True, kw_only=True)
class PlannedInput:
    """One input by its content: SHA-256 in hexadecimal, or "" where only the id is known. The same content may get its
    row from another process first, and then has another id than `image_id`.
    """

    __pydantic_config__ = KNOWN_FIELDS

    image_id: str
    role: Role
    sha256: str = ""


def _of_any_version(body: object) -> object:
    """Turn a plan of an earlier version into one of today. Earlier plans have the recipe as JSON inside the JSON, and
    inputs without contents; a call that was killed before an upgrade still has to be finished after it.
    """
    if not isinstance(body, dict):
        return body
    body = dict(body)
    if isinstance(body.get("recipe"), str):
        body["recipe"] = json.loads(body["recipe"])
    if "inputs" not in body:
        body["inputs"] = body.pop("parents", None)
    request = body.get("request")
    if isinstance(request, dict):
        body.setdefault("continues", request.get("continue_from"))
        if isinstance(request.get("safety"), dict):
            body["request"] = request | {"safety": list(request["safety"].items())}
    return body


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A request with all that was decided for it: the model, what will be sent, and where the pictures go."""

    __pydantic_config__ = KNOWN_FIELDS

    request: ImageRequest
    mode: Mode
    choice: Choice
    aspect_ratio: AspectRatio | None
    """The ratio that is sent: the caller's, or in an edit the source's. None lets the model follow its input."""
    inputs: tuple[PlannedInput, ...]
    target: Target
    estimate_usd: float | None
    """The estimate in USD for one picture; None when the price is not known."""
    warnings: tuple[str, ...] = ()
    recipe: Annotated[RecipeData, Discriminator("edit")] | None = None
    continues: str | None = None
    """The picture whose conversation goes on; None where there is none or where it cannot be continued."""
    calls: int = 1
    """The most calls that it may take; each is reserved before the first is sent."""
    room: int = 0
    """Bytes that must be free on the disks before it is begun."""

    @property
    def origin(self) -> Origin:
        """The origin under which the library has the model's own answers."""
        return "part" if self.recipe is not None else "edited" if self.mode == "edit" else "generated"

    def exact_of(self, mime_type: str) -> OutputSpec | None:
        """The file to make of a picture that came as `mime_type`. It is no part of the request, whose fingerprint stays the
        same.
        """
        return self.target.exact(self.request.exact, mime_type)

    def number(self, position: int) -> int | None:
        """The number in the name of a call's file, counted from 1; None when the request has one picture only."""
        return position + 1 if self.request.n > 1 else None

    def body(self) -> dict[str, Any]:
        """The plan as an object of JSON."""
        found: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return found

    def dump(self) -> str:
        return _adapter().dump_json(self).decode()

    def fingerprint(self) -> str:
        """A hash by which a repeated request is recognised: of the request, with its inputs' contents instead of their names."""
        contents = tuple(one.sha256 or one.image_id for one in self.inputs)
        asked = asdict(replace(self.request, inputs=contents, file_id=None))
        recipe = json.dumps(asdict(self.recipe)) if self.recipe is not None else None
        return hashlib.sha256(
            json.dumps([asked, self.mode, self.choice.spec.id, recipe], sort_keys=True, ensure_ascii=False).encode()
        ).hexdigest()


@cache
def _adapter() -> TypeAdapter[Plan]:
    return TypeAdapter(Annotated[Plan, BeforeValidator(_of_any_version)])


def load_plan(text: str) -> Plan:
    """A plan from its JSON. Raises SetupError for one of another version that this one cannot read."""
    try:
        return _adapter().validate_python(json.loads(text))
    except (ValidationError, ValueError) as error:
        raise SetupError(
            "This request was planned by another version of nanobanana and cannot be finished by this one. Its "
            "raw answer stays in the spool for a version that can."
        ) from error


def without_words(text: str) -> str:
    """A plan without what its caller wrote, so that it can still be read; as it is where it is none."""
    body = json.loads(text)
    request = body.get("request") if isinstance(body, dict) else None
    if not isinstance(request, dict):
        return text
    gone = {"prompt": "(deleted)", "negative_prompt": None, "system_instruction": None}
    return json.dumps(body | {"request": request | {name: gone[name] for name in gone if name in request}})
