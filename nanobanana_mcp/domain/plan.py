"""A request made ready: everything that is decided before money is spent, and enough to finish it afterwards."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nanobanana_mcp.domain.catalog import AspectRatio, ImageSize, ModelSpec
from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.domain.records import Parent
from nanobanana_mcp.domain.requests import Choice, ImageRequest, OutputSpec
from nanobanana_mcp.domain.terms import Mode, Origin, OutputFormat

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
    """Where a request's pictures go: a folder, and a file name's stem when the caller gave one."""

    folder: Path
    stem: str | None = None
    suffix: str = ""
    """The extension the caller wrote, as it was written."""

    @property
    def output_format(self) -> OutputFormat | None:
        """The format that the name asks for, None where there is no name or its format is none that we write."""
        return WRITTEN.get(self.suffix.lower())

    def extension(self, delivered: str) -> str:
        """The extension of a file whose bytes have the usual one `delivered`: as the caller wrote it where it fits."""
        named = self.output_format
        return self.suffix if named is not None and named == WRITTEN.get(delivered) else delivered

    def without_name(self, output: Path) -> "Target":
        """Where the master goes when the name the caller gave is for a file derived from it."""
        return Target(folder=output) if self.stem is not None else self


ANSWER_ROOM: dict[ImageSize, int] = {"512": 3_000_000, "1K": 6_000_000, "2K": 20_000_000, "4K": 60_000_000}
"""Bytes of the disk that are held for one raw answer: PNG of such a size, as base64 a third longer (4K: 43 MB)."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A request with all that was decided for it: the model, what will be sent, and where the pictures go."""

    request: ImageRequest
    mode: Mode
    choice: Choice
    aspect_ratio: AspectRatio | None
    """As it is sent: the caller's, or in an edit the source's; None lets the model follow its input."""
    parents: tuple[Parent, ...]
    target: Target
    estimate_usd: float | None
    """For one picture."""
    warnings: tuple[str, ...] = ()
    recipe: str | None = None
    """How the model's answers become a picture, when they are only parts of it; JSON."""

    @property
    def origin(self) -> Origin:
        """The origin under which the library has the model's own answers."""
        return "part" if self.recipe is not None else "edited" if self.mode == "edit" else "generated"

    def exact_of(self, mime_type: str) -> OutputSpec | None:
        """The file to make of a picture that came as `mime_type`: the name asked for says the format where nothing else
        does. It is no part of the request, whose fingerprint stays the same.
        """
        asked, named = self.request.exact, self.target.output_format
        if named is None or (asked is not None and asked.output_format is not None):
            return asked
        if asked is None:
            return OutputSpec(output_format=named) if mime_type != f"image/{named}" else None
        return replace(asked, output_format=named)

    def dump(self) -> str:
        body = asdict(self)
        body["target"]["folder"] = str(self.target.folder)
        body["request"]["safety"] = dict(self.request.safety)
        body["choice"]["spec"] = asdict(replace(self.choice.spec, shutdown=None))
        return json.dumps(body, ensure_ascii=False)

    def fingerprint(self, contents: tuple[str, ...]) -> str:
        """The same for the same wish: the request with its inputs' contents instead of their names."""
        asked = asdict(replace(self.request, inputs=contents, file_id=None))
        return hashlib.sha256(
            json.dumps(
                [asked, self.mode, self.choice.spec.id, self.recipe], sort_keys=True, ensure_ascii=False
            ).encode()
        ).hexdigest()


def load_plan(text: str) -> Plan:
    """Raises SetupError for a plan of another version that this one cannot read."""
    try:
        return _load(text)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SetupError(
            "It was planned by another version of nanobanana, which this one cannot finish; its raw answer stays in "
            "the spool."
        ) from error


def _load(text: str) -> Plan:
    body: dict[str, Any] = json.loads(text)
    request = body["request"]
    request |= {name: tuple(request[name]) for name in ("inputs", "input_roles")}
    request["safety"] = tuple(request["safety"].items())
    request["exact"] = OutputSpec(**request["exact"]) if request["exact"] is not None else None
    spec = body["choice"]["spec"]
    spec |= {name: tuple(spec[name]) for name in ("sizes", "ratios", "thinking_levels")}
    return Plan(
        request=ImageRequest(**request),
        mode=body["mode"],
        choice=Choice(**(body["choice"] | {"spec": ModelSpec(**spec)})),
        aspect_ratio=body["aspect_ratio"],
        parents=tuple(Parent(**parent) for parent in body["parents"]),
        target=Target(**(body["target"] | {"folder": Path(body["target"]["folder"])})),
        estimate_usd=body["estimate_usd"],
        warnings=tuple(body["warnings"]),
        recipe=body.get("recipe"),
    )
