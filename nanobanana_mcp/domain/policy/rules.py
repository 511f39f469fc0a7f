"""Decides which calls a policy file allows, denies and limits.

The file has the form that policy proxies for MCP use:

    version: "1"             # any scalar, not looked at
    default: allow           # or deny
    hide: [cleanup]          # neither listed nor callable; "*" hides every tool
    tools:
      generate_image:
        rules:
          - name: few at a time
            action: allow
            rate_limit: {max: 60, window: 60}
            validate: {required_args: true}
            conditions: [{path: args.n, op: lte, value: 4}]
            on_deny: Ask for four pictures or fewer.    # or reason, as some proxies call it
          - {action: deny, conditions: [{path: args.resolution, op: eq, value: 4k}]}
      "*":
        rules: [{rate_limit: 500/day}]

A call must pass every rule of its tool and then every rule under `*`, in the order of the file; the first that refuses
is the one named. Each part of a rule holds by itself:

- `action: deny` refuses the call when all its conditions match, and always when it has none:
  `{action: deny, conditions: [{path: args.resolution, op: eq, value: 4k}]}` refuses 4K and nothing else.
- `action: allow`, which is also the meaning of no action, makes every condition a requirement, with or without a limit:
  `{action: allow, conditions: [{path: args.n, op: lte, value: 4}]}` refuses n = 8 and allows n = 4.
- `validate: {required_args: true}` demands every required argument of the tool, a list demands the arguments it names;
  null, blank text and an empty list or mapping count as not given.
- `rate_limit` counts the calls that got past the rule; under `*` all tools count together. `{max: 60, window: 60}`
  rolls (60 calls in any 60 seconds); `10/second`, `10/minute`, `10/hour`, `10/day` are calendar windows in UTC.

`args.input_images` holds every picture that a call names, in whichever argument (input_image_path_1 to 3, file_id,
continue_from, image, mask, path). Paths, those of output_path, too, are as they lead: absolute, without `..` and links. A rule on an
argument that its tool does not have, or for a word that it never takes, is refused, since it would hold nothing.

Under `default: deny` a tool also needs an entry of its own with at least one rule that is not a deny. Conditions are
explained in `conditions.py`. Values are those of YAML 1.2: 16:9 is text, and words that
YAML 1.1 reads in another way, such as no and off, are refused until they are written as false or in quotes.
"""

import re
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, PlainValidator, Tag, model_validator

from nanobanana_mcp.domain.errors import PolicyError
from nanobanana_mcp.domain.policy.conditions import Condition
from nanobanana_mcp.domain.policy.limits import CALENDAR_S, Limit
from nanobanana_mcp.domain.policy.parse import LARGEST_FILE, Part, Scalar, read, single

Action = Literal["allow", "deny"]
LONGEST_WINDOW_S = 366 * 86_400.0

_RATE = re.compile(r"([1-9][0-9]{0,8})/(second|minute|hour|day)")


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value in ([], (), {})


def _says_something(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _given(value: Any) -> Any:
    if value is None:
        raise ValueError("must not be null; leave the key out")
    return value


def _allows_some(maximum: int) -> int:
    if maximum < 1:
        raise ValueError(f"must be at least 1, not {maximum}; to allow no call, use action: deny")
    return maximum


def _rate(given: Any) -> Any:
    if isinstance(given, dict):
        return given
    words = _RATE.fullmatch(given) if isinstance(given, str) else None
    if not words:
        raise ValueError("must be like 10/minute (second, minute, hour or day) or {max: 10, window: 60}")
    return CalendarRate(max=int(words[1]), window=CALENDAR_S[words[2]])


Text = Annotated[str, AfterValidator(_says_something)]


class Rate(Part):
    """`max` calls in any `window` seconds."""

    max: Annotated[int, AfterValidator(_allows_some)]
    window: Annotated[float, Field(gt=0, le=LONGEST_WINDOW_S)]
    rolling: ClassVar[bool] = True


class CalendarRate(Rate):
    """A rate that begins anew with each second, minute, hour or day in UTC."""

    rolling: ClassVar[bool] = False


def _kind_of_demand(given: Any) -> str | None:
    return {bool: "all", tuple: "some"}.get(type(given))


class Validate(Part):
    """Arguments that must be given: true for all that the tool's schema requires, or names."""

    required_args: Annotated[
        Annotated[bool, Tag("all")] | Annotated[tuple[Text, ...], Tag("some")],
        Discriminator(
            _kind_of_demand,
            custom_error_type="no_demand",
            custom_error_message="must be true, false or a list of names",
        ),
    ]


class Rule(Part):
    """One entry under `rules`."""

    name: Text = ""
    action: Action = "allow"
    rate_limit: Annotated[Rate | None, BeforeValidator(_rate)] = None
    demand: Annotated[Validate | None, BeforeValidator(_given)] = Field(None, alias="validate")
    conditions: tuple[Condition, ...] = ()
    on_deny: Text = ""
    reason: Text = ""

    @model_validator(mode="after")
    def _says_it_once(self) -> "Rule":
        if self.on_deny and self.reason:
            raise ValueError("has on_deny and reason, which are two words for one thing; keep one of them")
        return self

    @property
    def told(self) -> str:
        """The words of the file's author to a caller who is refused."""
        return (self.on_deny or self.reason).strip()

    def refusal(
        self,
        tool: str,
        args: Mapping[str, object],
        decided: Mapping[str, object] | None,
        *,
        required: Collection[str],
        label: str,
    ) -> str | None:
        """Says why the rule refuses the call; None when it allows it. `decided` is as in `Policy.judge`."""
        if self.action == "deny" and all(
            condition.holds(args, requirement=False)
            or (decided is not None and condition.holds(decided, requirement=False))
            for condition in self.conditions
        ):
            reason = f" when {' and '.join(map(str, self.conditions))}" if self.conditions else ""
            return f"{tool} is denied by {label}{reason}."
        if self.action == "allow":
            for condition in self.conditions:
                if not condition.holds(args, requirement=True):
                    return f"{tool} is allowed by {label} only when {condition}; {condition.found(args)}."
                # What a rule lists by name, such as auto or high, it allows with all that may come of it.
                if decided is None or condition.op in ("eq", "in"):
                    continue
                if not condition.holds(decided, requirement=True):
                    return f"{tool} is allowed by {label} only when {condition}; {condition.found(decided)}."
        demand = self.demand.required_args if self.demand is not None else False
        demanded = sorted(required) if demand is True else demand or ()
        missing = [name for name in demanded if _is_empty(args.get(name))]
        return f"{tool} is allowed by {label} only with {', '.join(missing)} given and not empty." if missing else None


class ToolRules(Part):
    """Holds everything that a file says of one tool."""

    rules: tuple[Rule, ...]


class Form(Part):
    """A whole policy file."""

    version: Annotated[Scalar, PlainValidator(single)] = None
    default: Action = "allow"
    hide: tuple[Text, ...] = ()
    tools: dict[str, ToolRules] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The rules' answer on one call. `limits` are still to be taken, in this order; empty when the call is refused."""

    allowed: bool
    message: str = ""
    rule: str = ""
    limits: tuple[Limit, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The rules of one file; `name` is for messages, `suffix` sets its counters apart from those of other files."""

    source: str
    name: str
    suffix: str = ""
    default: Action = "allow"
    hide: tuple[str, ...] = ()
    tools: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)

    def conditions(self) -> Iterator[Condition]:
        for rules in self.tools.values():
            for rule in rules:
                yield from rule.conditions

    def hides(self, tool: str) -> bool:
        return tool in self.hide or "*" in self.hide

    def judge(
        self,
        tool: str,
        args: Mapping[str, object],
        decided: Mapping[str, object] | None = None,
        *,
        required: Collection[str],
    ) -> Verdict:
        if self.hides(tool):
            return Verdict(allowed=False, message=f"{tool} is hidden by {self.name}.", rule=f"hide of {self.name}")
        own = self.tools.get(tool, ())
        listed = self.default == "allow" or any(rule.action == "allow" for rule in own)
        limits = []
        # The rules under * have nothing to say of a tool that the default denies; its own deny says why.
        for key, rules in ((tool, own), ("*", self.tools.get("*", ()) if listed else ())):
            for number, rule in enumerate(rules, 1):
                name = f' ("{rule.name.strip()}")' if rule.name else ""
                scope = " for every tool" if key == "*" else ""
                label = f"rule {number}{name}{scope} of {self.name}"
                refusal = rule.refusal(tool, args, decided, required=required, label=label)
                if refusal:
                    return Verdict(allowed=False, message=f"{refusal} {rule.told}".rstrip(), rule=label)
                rate = rule.rate_limit
                if rate is not None:
                    limits.append(
                        Limit(
                            key=f"{key}#{number}{self.suffix}",
                            maximum=rate.max,
                            window_s=rate.window,
                            rolling=rate.rolling,
                            rule=label,
                            on_deny=rule.told,
                        )
                    )
        if not listed:
            message = f"{tool} is denied by the default of {self.name}, which has no rule that allows it."
            return Verdict(allowed=False, message=message, rule=f"default of {self.name}")
        return Verdict(allowed=True, limits=tuple(limits))


@dataclass(frozen=True, kw_only=True)
class Policy:
    """All layers together: a call needs each of them to allow it; without a layer everything is allowed."""

    layers: tuple[Layer, ...] = ()

    @classmethod
    def parse(cls, text: str, *, source: str) -> "Policy":
        """Read the whole of a policy file, or raise PolicyError naming the line and the key of the first fault.

        `source` is its path: all of it stands in errors and counters, its last part in what an agent is told.
        """
        form = read(text, Form, source=source)
        tools = {tool: entry.rules for tool, entry in form.tools.items()}
        name = PurePath(source).name or source
        return cls(layers=(Layer(source=source, name=name, default=form.default, hide=form.hide, tools=tools),))

    def judge(
        self,
        tool: str,
        args: Mapping[str, object],
        decided: Mapping[str, object] | None = None,
        *,
        required: Collection[str],
    ) -> Verdict:
        """Judge a call by its arguments, as JSON-like values, with the defaults filled in.

        `decided` are the arguments again once it is known what `auto` and the like come to: a denial that matches either
        refuses, and so does a requirement that fails there, unless it names what was given (op eq or in).
        """
        verdicts = []
        for layer in self.layers:
            verdicts.append(layer.judge(tool, args, decided, required=required))
            if not verdicts[-1].allowed:
                return verdicts[-1]
        return Verdict(allowed=True, limits=tuple(limit for verdict in verdicts for limit in verdict.limits))

    def hidden(self, tool: str) -> bool:
        """Tells whether the tool is to be left out of the list of tools; `judge` refuses it too."""
        return any(layer.hides(tool) for layer in self.layers)


def tighten(user: Policy, project: Policy) -> Policy:
    """Both must allow a call, what either hides is hidden, and the limits of both hold, counted apart."""
    named = (replace(layer, name=f"the project's {layer.name}", suffix=f"@{layer.source}") for layer in project.layers)
    return Policy(layers=(*user.layers, *named))


class PolicyFile:
    """The policy of the user's file tightened by the project's, read again whenever a file has changed.

    None stands for no file. A path must lead to a readable file from the start: a policy that is gone allows nothing.
    """

    def __init__(self, user: Path | None, project: Path | None) -> None:
        self._paths = tuple(path and path.absolute() for path in (user, project))
        self._read: dict[Path, tuple[tuple[int, ...], Policy]] = {}

    def current(self) -> Policy:
        """Raise PolicyError as long as a file is missing, unreadable or invalid."""
        user, project = (Policy() if path is None else self._policy(path) for path in self._paths)
        if any(condition.op == "regex" for layer in project.layers for condition in layer.conditions()):
            raise PolicyError(
                f"The project's policy {self._paths[1]} uses op regex, which only the user's own policy may: a hostile "
                "pattern could hold the server up. Use eq, in or contains."
            )
        return tighten(user, project)

    def _policy(self, path: Path) -> Policy:
        try:
            if path == self._paths[1] and path.is_symlink():
                raise PolicyError(
                    f"The project's policy {path} is a link, which is not followed; put the file itself there."
                )
            found = path.stat()
            signature = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
            if path in self._read and self._read[path][0] == signature:
                return self._read[path][1]
            # Opening a pipe would wait for its other end.
            if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST_FILE:
                raise PolicyError(f"The policy {path} is not a file of at most {LARGEST_FILE // 1024} kB.")
            policy = Policy.parse(path.read_text(encoding="utf-8"), source=str(path))
        except OSError as error:
            reason = error.strerror or "reading failed"
            raise PolicyError(f"The policy {path} cannot be read ({reason}); restore it or unset it.") from error
        except UnicodeDecodeError as error:
            raise PolicyError(f"The policy {path} is not UTF-8 text; save it as UTF-8.") from error
        self._read[path] = (signature, policy)
        return policy
