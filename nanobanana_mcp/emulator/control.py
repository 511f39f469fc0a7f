"""The switches of the emulator and the behaviours it can be told to show, in Python or as JSON over HTTP."""

import dataclasses
import json
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from pydantic import ConfigDict, TypeAdapter

_CONFIG = ConfigDict(extra="forbid", val_json_bytes="base64")


@dataclass(frozen=True)
class Behaviour:
    """One way for a generateContent call to do something else than answer as usual."""

    __pydantic_config__ = _CONFIG


@dataclass(frozen=True)
class Finish(Behaviour):
    """A candidate without a picture; `content` is which of the shapes seen on refusals it has."""

    reason: str
    message: str | None = None
    content: Literal["absent", "empty", "role_only", "parts_null", "text"] = "absent"
    text: str = ""


@dataclass(frozen=True)
class Block(Behaviour):
    """The prompt is refused: HTTP 200 with promptFeedback and no candidates."""

    reason: str = "PROHIBITED_CONTENT"


@dataclass(frozen=True)
class HttpError(Behaviour):
    """An error in Google's form; `quota_zero` is the 429 of a project without billing, which no waiting cures."""

    code: int
    status: str
    message: str = "The emulator was told to fail."
    details: Literal["none", "retry_info", "quota_day", "quota_zero"] = "none"
    retry_delay_s: float = 34


@dataclass(frozen=True)
class Foreign(Behaviour):
    """The answer of a gateway that stands before Gemini, in its own words; by itself the page of one that found nobody."""

    code: int = 502
    body: str = "<html><title>502 Bad Gateway</title><h1>502 Bad Gateway</h1></html>"
    media_type: str = "text/html"


@dataclass(frozen=True)
class Drop(Behaviour):
    """The connection is lost: nothing made, made but no answer, or half an answer."""

    when: Literal["before", "after_charge", "mid_body"] = "before"


@dataclass(frozen=True)
class Delay(Behaviour):
    """The usual answer, later."""

    seconds: float


@dataclass(frozen=True)
class Hang(Behaviour):
    """No answer at all until the client goes away."""


@dataclass(frozen=True)
class Redirect(Behaviour):
    """An HTTP redirect elsewhere."""

    code: int
    url: str


@dataclass(frozen=True)
class Picture(Behaviour):
    """Exactly these bytes as the picture, declared as `mime`."""

    data: bytes
    mime: str = "image/png"


@dataclass(frozen=True)
class Junk(Behaviour):
    """Bytes that no decoder takes, declared image/png."""


@dataclass(frozen=True)
class Truncated(Behaviour):
    """The usual picture cut off in the middle of its bytes; its header is whole."""


@dataclass(frozen=True)
class Huge(Behaviour):
    """An answer whose JSON is `bytes` long once unpacked; with `gzip` it travels about a thousand times smaller."""

    bytes: int
    gzip: bool = False


@dataclass(frozen=True)
class TextOnly(Behaviour):
    """finishReason STOP with words and no picture."""

    text: str = "Which of the two cats do you mean?"


@dataclass(frozen=True)
class ThoughtOnly(Behaviour):
    """The only picture in the answer is marked as a thought."""


@dataclass(frozen=True)
class SmallerThanAsked(Behaviour):
    """The picture of the next smaller size: 2K for 4K, 1K for 2K."""


@dataclass(frozen=True)
class ManyParts(Behaviour):
    """`n` different pictures in one answer, each after a line of text."""

    n: int = 3


@dataclass(frozen=True)
class Edit(Behaviour):
    """An edit that redraws its whole input before changing a part of it, by default the middle.

    `shift` is (dx, dy) as fractions of width and height, rightwards and downwards; `scale` is about the centre;
    each channel becomes value x gain + offset (0-255); `blur` is a Gaussian radius in output pixels.
    `where` is the part that changes: left, top, right, bottom as fractions of the picture.
    """

    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    blur: float = 0.0
    where: tuple[float, float, float, float] = (0.22, 0.34, 0.78, 0.66)


@dataclass(frozen=True)
class Extension(Behaviour):
    """A canvas whose unpainted parts are painted `on` from the picture, or as models fail at it: `left` as they were
    sent, `framed` in white, or painted with a `foreign` scene that ends at the picture's edge.
    """

    beyond: Literal["on", "left", "framed", "foreign"] = "on"


@dataclass(frozen=True)
class Plate(Behaviour):
    """A subject on one flat colour.

    `background` is "#rrggbb"; None takes the first such colour in the prompt, else white. `subject` is a PNG with
    alpha; None takes the one that the last input image was made from, else the one shown last, else a built-in one.
    `mismatch` moves the subject right and down by that fraction of the picture's width.
    """

    background: str | None = None
    subject: bytes | None = None
    mismatch: float = 0.0

    def __post_init__(self) -> None:
        if self.background is not None and not re.fullmatch(r"#[0-9a-fA-F]{6}", self.background):
            raise ValueError(f"The background of a plate is a colour such as #00ff00, not {self.background!r}.")


BEHAVIOURS: dict[str, type[Behaviour]] = {cls.__name__: cls for cls in Behaviour.__subclasses__()}


def read_behaviour(value: Any) -> Behaviour | None:
    """A behaviour from JSON such as {"behaviour": "Delay", "seconds": 1}; bytes as base64. Raises ValueError."""
    if value is None:
        return None
    if not isinstance(value, dict) or value.get("behaviour") not in BEHAVIOURS:
        raise ValueError(f"A behaviour is an object whose 'behaviour' is one of: {', '.join(BEHAVIOURS)}.")
    fields = {name: content for name, content in value.items() if name != "behaviour"}
    return TypeAdapter(BEHAVIOURS[value["behaviour"]]).validate_json(json.dumps(fields), strict=False)


@dataclass(kw_only=True)
class Control:
    """The switches of the emulator that a test or a person may turn.

    `queue` is used up by successive granted generateContent calls, None in it being the usual answer; `standing` serves
    when it is empty. `declared_mime` is what an answer claims its pictures are, None the truth. `thoughts` "asked"
    sends a thought in words and one as a picture when includeThoughts is set; "text" and "images" send them always.
    `text` is said before the picture. `valid_keys` None takes any well-formed key. `revive` names retired models that
    answer again, by the id of their preview too. `serial` prints the number of the repetition into the picture.
    `drift` is how far everything moves, bends and changes its colours when a picture is redrawn, by the levels in `drift.py`.
    `paused` holds back every granted call, before it is drawn and charged, for as long as it is set.
    `named` begins each responseId with "emulated-", so that whoever is pointed here by a base URL can tell.
    `cheap` answers with ready pictures and does not decode inputs. `signature_ttl_s` None: signatures do not expire.
    `batch_s` is how long a batch stays pending; it is done at the first look after that.
    """

    queue: deque[Behaviour | None] = field(default_factory=deque)
    standing: Behaviour | None = None
    mime: Literal["image/jpeg", "image/png", "image/webp"] = "image/jpeg"
    declared_mime: str | None = None
    thoughts: Literal["asked", "never", "text", "images"] = "asked"
    text: str = ""
    latency_s: float = 0.0
    paused: bool = False
    named: bool = True
    cheap: bool = False
    drift: Literal["none", "L1", "L2", "L3", "L4"] = "none"
    serial: bool = False
    valid_keys: set[str] | None = None
    revive: set[str] = field(default_factory=set)
    signature_ttl_s: float | None = None
    signature_secret: str = "emulated-signatures"  # noqa: S105 - guards nothing
    file_ttl_s: float = 48 * 3600.0
    batch_s: float = 0.0

    def take(self) -> Behaviour | None:
        """The behaviour of the next call; None is the usual answer."""
        return self.queue.popleft() if self.queue else self.standing

    def update(self, switches: Mapping[str, Any]) -> None:
        """Turn the switches named in a JSON object, all or none; `queue` is added to. Raises ValueError."""
        known = {each.name: each for each in dataclasses.fields(self)}
        ready: dict[str, Any] = {}
        for name, value in switches.items():
            if name not in known:
                raise ValueError(f"There is no switch '{name}'; there are: {', '.join(known)}.")
            if name == "standing":
                ready[name] = read_behaviour(value)
            elif name == "queue":
                if not isinstance(value, list):
                    raise ValueError("The queue is a list of behaviours.")
                ready[name] = self.queue + deque(read_behaviour(item) for item in value)
            else:
                ready[name] = TypeAdapter[Any](cast("Any", known[name].type)).validate_python(value)
        for name, value in ready.items():
            setattr(self, name, value)

    def reset(self) -> None:
        """Every switch as it was at the start; the queue is emptied."""
        fresh = Control()
        for each in dataclasses.fields(self):
            setattr(self, each.name, getattr(fresh, each.name))
