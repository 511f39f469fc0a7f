"""Which calls a policy file allows, denies and limits.

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
explained in `condition.py`. Plain values have their YAML 1.2 meaning: 16:9 is text.
"""

import math
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Literal, get_args

from nanobanana_mcp.domain.errors import PolicyError
from nanobanana_mcp.domain.policy.conditions import Condition
from nanobanana_mcp.domain.policy.parse import LARGEST_FILE, Entry
from nanobanana_mcp.domain.text import waiting

Action = Literal["allow", "deny"]
ACTIONS: tuple[Action, ...] = get_args(Action)
CALENDAR_S = {"second": 1.0, "minute": 60.0, "hour": 3_600.0, "day": 86_400.0}
CALENDAR_WORDS = {1.0: "a second", 60.0: "a minute", 3_600.0: "an hour", 86_400.0: "a day"}
LONGEST_WINDOW_S = 366 * 86_400.0

_RATE = re.compile(r"([1-9][0-9]{0,8})/(second|minute|hour|day)")


@dataclass(frozen=True, kw_only=True)
class Limit:
    """At most `maximum` calls in a window of `window_s` seconds, rolling or aligned to the calendar in UTC.

    `key` names the counter and stays the same while the rule keeps its place in the file: `generate_image#2`, `*#1` for
    all tools together, with `@` and the file's path behind it for a limit from a project's file. `rule` and `on_deny`
    are words for `limit_message`.
    """

    key: str
    maximum: int
    window_s: float
    rolling: bool
    rule: str = ""
    on_deny: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The rules' answer on one call. `limits` are still to be taken, in this order; empty when the call is refused."""

    allowed: bool
    message: str = ""
    rule: str = ""
    limits: tuple[Limit, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One entry under `rules`; `required` is True for all that the tool's schema requires."""

    number: int
    name: str = ""
    action: Action = "allow"
    conditions: tuple[Condition, ...] = ()
    required: bool | tuple[str, ...] = False
    limit: Limit | None = None
    on_deny: str = ""

    def refusal(
        self,
        tool: str,
        args: Mapping[str, object],
        decided: Mapping[str, object] | None,
        *,
        required: Collection[str],
        label: str,
    ) -> str | None:
        """Why the rule refuses the call; None when it does not. `decided` as in `Policy.judge`."""
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
        demanded = sorted(required) if self.required is True else self.required or ()
        missing = [name for name in demanded if _is_empty(args.get(name))]
        return f"{tool} is allowed by {label} only with {', '.join(missing)} given and not empty." if missing else None


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value in ([], (), {})


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The rules of one file; `name` is for messages, `suffix` sets its counters apart from those of other files."""

    source: str
    name: str
    suffix: str = ""
    default: Action = "allow"
    hide: frozenset[str] = frozenset()
    tools: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)

    def conditions(self) -> Iterator[Condition]:
        for rules in self.tools.values():
            for rule in rules:
                yield from rule.conditions

    def judge(
        self,
        tool: str,
        args: Mapping[str, object],
        decided: Mapping[str, object] | None = None,
        *,
        required: Collection[str],
    ) -> Verdict:
        if not self.hide.isdisjoint((tool, "*")):
            return Verdict(allowed=False, message=f"{tool} is hidden by {self.name}.", rule=f"hide of {self.name}")
        own = self.tools.get(tool, ())
        listed = self.default == "allow" or any(rule.action == "allow" for rule in own)
        limits = []
        # The rules under * have nothing to say of a tool that the default denies; its own deny says why.
        for key, rules in ((tool, own), ("*", self.tools.get("*", ()) if listed else ())):
            for rule in rules:
                name = f' ("{rule.name}")' if rule.name else ""
                scope = " for every tool" if key == "*" else ""
                label = f"rule {rule.number}{name}{scope} of {self.name}"
                refusal = rule.refusal(tool, args, decided, required=required, label=label)
                if refusal:
                    return Verdict(allowed=False, message=f"{refusal} {rule.on_deny}".rstrip(), rule=label)
                if rule.limit:
                    limits.append(replace(rule.limit, key=rule.limit.key + self.suffix, rule=label))
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
        return cls(layers=(_layer(Entry.parse(text, source=source, fault=PolicyError)),))

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
        """Whether the tool is to be left out of the list of tools; `judge` refuses it too."""
        return any(not layer.hide.isdisjoint((tool, "*")) for layer in self.layers)

    @staticmethod
    def window_start(limit: Limit, now: float) -> float:
        """The earliest moment that still counts, in seconds since 1970: calls made at it or later are in the window."""
        # A rolling window leaves its own first moment out, so that a call stops counting exactly window_s after it.
        return (
            math.nextafter(now - limit.window_s, math.inf) if limit.rolling else now // limit.window_s * limit.window_s
        )

    @staticmethod
    def resets_at(limit: Limit, now: float, oldest: float) -> float:
        """When a used-up limit allows a call again; `oldest` is the earliest of the last `maximum` calls that count."""
        return oldest + limit.window_s if limit.rolling else now // limit.window_s * limit.window_s + limit.window_s


def limit_message(limit: Limit, tool: str, made: int, now: float, resets_at: float, on_deny: str) -> str:
    """Tell an agent that `made` calls have used a limit up; times in seconds since 1970, rounded up."""
    limited = f"{tool} and all other tools together are" if limit.key.startswith("*#") else f"{tool} is"
    window = f"in any {limit.window_s:g} seconds" if limit.rolling else CALENDAR_WORDS[limit.window_s]
    calls = "1 call" if limit.maximum == 1 else f"{limit.maximum} calls"
    moment = datetime.fromtimestamp(math.ceil(resets_at), UTC)
    day = "" if moment.date() == datetime.fromtimestamp(now, UTC).date() else f" on {moment:%Y-%m-%d}"
    return (
        f"{limited} limited to {calls} {window} by {limit.rule or limit.key}; "
        f"{made} {'was' if made == 1 else 'were'} made; "
        f"it resets in {waiting(resets_at - now)} at {moment:%H:%M:%S} UTC{day}. {on_deny}"
    ).rstrip()


def tighten(user: Policy, project: Policy) -> Policy:
    """Both must allow a call, what either hides is hidden, and the limits of both hold, counted apart."""
    named = (replace(layer, name=f"the project's {layer.name}", suffix=f"@{layer.source}") for layer in project.layers)
    return Policy(layers=(*user.layers, *named))


def _layer(top: Entry) -> Layer:
    keys = top.mapping("version", "default", "hide", "tools")
    if "version" in keys:
        keys["version"].scalar()
    tools = {}
    for tool, entry in (keys["tools"].mapping() if "tools" in keys else {}).items():
        entries = entry.mapping("rules")
        if "rules" not in entries:
            raise entry.refusal("needs rules, a list that may be empty")
        tools[tool] = tuple(_rule(rule, tool, number) for number, rule in enumerate(entries["rules"].items(), 1))
    return Layer(
        source=top.source,
        name=PurePath(top.source).name or top.source,
        default=keys["default"].choice(ACTIONS) if "default" in keys else "allow",
        hide=frozenset(entry.text() for entry in keys["hide"].items()) if "hide" in keys else frozenset(),
        tools=tools,
    )


def _rule(entry: Entry, tool: str, number: int) -> Rule:
    keys = entry.mapping("name", "action", "rate_limit", "validate", "conditions", "on_deny", "reason")
    if "on_deny" in keys and "reason" in keys:
        raise keys["reason"].refusal("is another word for on_deny, which the rule has already; keep one of them")
    words = keys.get("on_deny") or keys.get("reason")
    on_deny = words.text().strip() if words is not None else ""
    limit = _limit(keys["rate_limit"], key=f"{tool}#{number}", on_deny=on_deny) if "rate_limit" in keys else None
    return Rule(
        number=number,
        name=keys["name"].text().strip() if "name" in keys else "",
        action=keys["action"].choice(ACTIONS) if "action" in keys else "allow",
        conditions=tuple(map(Condition.read, keys["conditions"].items())) if "conditions" in keys else (),
        required=_required(keys["validate"]) if "validate" in keys else False,
        limit=limit,
        on_deny=on_deny,
    )


def _limit(entry: Entry, *, key: str, on_deny: str) -> Limit:
    if isinstance(entry.node.value, str):
        rate = _RATE.fullmatch(entry.text())
        if not rate:
            raise entry.refusal("must be like 10/minute (second, minute, hour or day) or {max: 10, window: 60}")
        return Limit(key=key, maximum=int(rate[1]), window_s=CALENDAR_S[rate[2]], rolling=False, on_deny=on_deny)
    keys = entry.mapping("max", "window")
    if len(keys) < 2:
        raise entry.refusal("needs max, a number of calls, and window, in seconds")
    maximum, window = keys["max"].number(), keys["window"].number()
    if not isinstance(maximum, int) or maximum < 1:
        raise keys["max"].refusal(
            f"must be a whole number of 1 or more, not {maximum}; to allow none, use action: deny"
        )
    if not 0 < window <= LONGEST_WINDOW_S:
        raise keys["window"].refusal(f"must be more than 0 and at most {LONGEST_WINDOW_S:.0f} seconds, not {window}")
    return Limit(key=key, maximum=maximum, window_s=float(window), rolling=True, on_deny=on_deny)


def _required(entry: Entry) -> bool | tuple[str, ...]:
    keys = entry.mapping("required_args")
    if "required_args" not in keys:
        raise entry.refusal("needs required_args, true or a list of names")
    if isinstance(keys["required_args"].node.value, str):
        value = keys["required_args"].scalar()
        if not isinstance(value, bool):
            raise keys["required_args"].refusal(f"must be true, false or a list of names, not {value!r}")
        return value
    return tuple(name.text() for name in keys["required_args"].items())


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
