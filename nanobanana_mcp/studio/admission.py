"""Asks the policy whether a call may be made, for every tool and every door.

A door hands over the call's arguments in plain form, with their defaults. Once the plan is made and before anything is
sent, the studio asks again with the model, the size and the shape that `auto`, `high` or a width came to.
"""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanobanana_mcp.domain.errors import PolicyError, PolicyViolation, StudioError
from nanobanana_mcp.domain.ids import is_file_id, is_image_id
from nanobanana_mcp.domain.terms import INPUT_PATHS, TOOLS
from nanobanana_mcp.storage.paths import absolute

if TYPE_CHECKING:
    from nanobanana_mcp.domain.plan import Plan
    from nanobanana_mcp.domain.policy.limits import Limit
    from nanobanana_mcp.domain.policy.rules import Policy, PolicyFile
    from nanobanana_mcp.studio.studio import Studio

PROJECT_POLICY = "nanobanana-policy.yaml"
"""A project's own rules, in the folder that the client has open; they can only add to the user's."""

PAID = frozenset({"generate_image", "edit_region", "extend_image", "remove_background"})
"""Tools that spend money."""

READING = frozenset({"output_stats", "find_images"})
"""Tools that only read. While a policy cannot be read, all others stop."""

INPUTS = ("input_images", "file_id", "continue_from", *sorted(INPUT_PATHS))
"""Every argument that names a picture that goes in: a rule on input_images applies to all of them."""

PATHS = INPUT_PATHS | {"input_images", "output_path"}
"""Arguments that are paths, or may be."""

DECIDED = frozenset(
    {"model_tier", "resolution", "mode", "enable_grounding", "thinking_level", "aspect_ratio", "input_images"}
)
"""Arguments that a rule may name for every tool that draws, since the studio decides them."""

_under_judgement: "ContextVar[PolicyCheck | None]" = ContextVar("under_judgement", default=None)


@dataclass(kw_only=True)
class PolicyCheck:
    """A call that the policy allowed, kept so that it can be judged once more when its plan is known."""

    policy: "Policy"
    tool: str
    arguments: Mapping[str, Any]
    required: Collection[str]
    limits: "tuple[Limit, ...]" = ()
    refused: bool = False

    def again(self, decided: Mapping[str, Any]) -> None:
        """Judge the call once more, with what was decided for its caller. Raises PolicyViolation."""
        verdict = self.policy.judge(self.tool, self.arguments, {**self.arguments, **decided}, required=self.required)
        if not verdict.allowed:
            self.refused = True
            raise PolicyViolation(f"Policy violation: {verdict.message}")


def judge_plan(plan: "Plan") -> None:
    """Judge a call's plan by the policy, since only the plan says what `auto`, `high` or a width comes to. Raises
    PolicyViolation.
    """
    judged = _under_judgement.get()
    if judged is not None:
        choice = plan.choice
        judged.again(
            {
                "model_tier": choice.spec.tier,
                "resolution": choice.image_size.lower(),
                "mode": plan.mode,
                "enable_grounding": choice.grounding,
                "thinking_level": choice.thinking_level,
                "aspect_ratio": plan.aspect_ratio,
            }
        )


def call_off() -> None:
    """Say that the call of this context ends before anything was sent, so that its limits are given back."""
    judged = _under_judgement.get()
    if judged is not None:
        judged.refused = True


class Admission:
    """Judges calls by the user's policy and the project's; both files are read again when they have changed."""

    def __init__(self, *, user_policy: Path | None, project: Path, studio: "Callable[[], Awaitable[Studio]]") -> None:
        """`studio` is opened only for a rule with a limit."""
        self._user = user_policy
        self._project = project / PROJECT_POLICY
        self._studio = studio
        self._files: dict[bool, PolicyFile] = {}

    def policy(self) -> "Policy | None":
        """The rules as they are now, None without any. Raises PolicyError when a file cannot be read or understood."""
        present = os.path.lexists(self._project)  # a broken link counts as a policy file, and is refused
        if self._user is None and not present:
            return None
        from difflib import get_close_matches  # 10 ms that the list of tools need not wait for without a policy

        from nanobanana_mcp.domain.policy.rules import PolicyFile

        if present not in self._files:
            self._files[present] = PolicyFile(self._user, self._project if present else None)
        policy = self._files[present].current()
        for layer in policy.layers:
            for name in {*layer.tools, *layer.hide} - TOOLS:  # a policy may know tools of other servers, too
                meant = get_close_matches(name, TOOLS, 1, cutoff=0.8)
                if meant:
                    raise PolicyError(
                        f"{layer.name} has rules for {name!r}, which is not a tool of this server; did you mean "
                        f"{meant[0]}?"
                    )
        return policy

    def may_send(self) -> bool:
        """Tells whether the policy can be read, so that it is known what may be sent."""
        try:
            self.policy()
        except PolicyError:
            return False
        return True

    async def admit(
        self, tool: str, given: Mapping[str, Any], schema: Mapping[str, Any], *, key: str | None
    ) -> PolicyCheck | None:
        """Judge a call before it is made, and use up its limits; not for a dry run, nor for a request made before under
        the same `key`. `schema` declares the tool's arguments as JSON schema.

        Raises PolicyViolation, or PolicyError for a tool that sends, moves or writes while a policy cannot be read.
        """
        _under_judgement.set(None)
        try:
            policy = self.policy()
        except PolicyError:
            if tool not in READING:
                raise
            return None
        if policy is None:
            return None
        check_rules(policy, tool, schema)
        whole = with_defaults(given, schema)
        arguments = with_inputs(await asyncio.to_thread(with_real_paths, whole, self._project.parent))
        check = PolicyCheck(policy=policy, tool=tool, arguments=arguments, required=required(schema))
        verdict = policy.judge(tool, check.arguments, required=check.required)
        if not verdict.allowed:
            raise PolicyViolation(verdict.message)
        if _tells_of_pictures(tool, given) and not policy.judge("output_stats", {}, required=()).allowed:
            raise PolicyViolation(
                "The policy closes output_stats, and pictures of the library with it; name a file by its path."
            )
        repeated = tool in PAID and key is not None and bool(verdict.limits) and await (await self._studio()).knows(key)
        if verdict.limits and given.get("dry_run") is not True and not repeated:
            await (await self._studio()).consume(verdict.limits, tool)
            check.limits = verdict.limits
        _under_judgement.set(check)
        return check

    def closes(self, tool: str, schema: Mapping[str, Any]) -> bool:
        """Tells whether a tool is hidden, refused when called without arguments, or cannot be judged because the policy
        cannot be read.
        """
        try:
            policy = self.policy()
        except PolicyError:
            return True
        if policy is None:
            return False
        arguments = with_inputs(with_defaults({}, schema))
        return not policy.judge(tool, arguments, required=required(schema)).allowed

    async def refund(self, check: PolicyCheck | None) -> None:
        """Give back the limits of a call that was never made."""
        if check is not None and check.limits:
            await (await self._studio()).refund(check.limits)


def _tells_of_pictures(tool: str, given: Mapping[str, Any]) -> bool:
    """Tells whether a call shows pictures of the library that output_stats would tell of, and not only files of the
    caller.
    """
    seen = (given.get("image"), given.get("compare_with"))
    return tool == "find_images" or (tool == "view_image" and any(is_image_id(str(one)) for one in seen))


def with_real_paths(arguments: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """The arguments with every path resolved (absolute, without links and `..`), so that a rule for one folder does not
    let `public/../private` through.
    """

    def real(given: Any) -> Any:
        if not isinstance(given, str) or is_image_id(given) or is_file_id(given):
            return given
        try:
            return os.path.realpath(absolute(given, base))
        except (StudioError, OSError, ValueError):  # the call itself refuses what is no path
            return given

    found = dict(arguments)
    for name in PATHS:
        value = found.get(name)
        found[name] = [real(one) for one in value] if isinstance(value, list) else real(value)
    return {name: value for name, value in found.items() if name in arguments}


def check_rules(policy: "Policy", tool: str, schema: Mapping[str, Any]) -> None:
    """Raises PolicyError for a rule that can never hold: on an argument that the tool does not have, or a word that it
    never accepts.
    """
    declared = schema.get("properties", {})
    for layer in policy.layers:
        for condition in (one for rule in layer.tools.get(tool, ()) for one in rule.conditions):
            name = re.split(r"[.\[]", condition.path.removeprefix("args."))[0]
            if name not in declared and name not in DECIDED:
                raise PolicyError(
                    f"{layer.name} has a rule on args.{name}, which {tool} does not have: it has {', '.join(sorted(declared))}."
                )
            words = declared.get(name, {}).get("enum")
            given = condition.value if isinstance(condition.value, tuple) else (condition.value,)
            strange = [one for one in given if isinstance(one, str) and words and one not in words]
            if strange and condition.op in ("eq", "neq", "in", "not_in") and strange != ["512"]:
                raise PolicyError(
                    f"{layer.name} has a rule for args.{name} {strange[0]!r}, which {tool} never accepts: write "
                    f"one of {', '.join(map(str, words))}."
                )


def with_inputs(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with every picture that goes in under input_images, where the policy's rules look for them."""
    given = [arguments.get(name) for name in INPUTS]
    inputs = [one for value in given if value for one in (value if isinstance(value, list) else [value])]
    return {**arguments, "input_images": list(dict.fromkeys(map(str, inputs))) or arguments.get("input_images")}


def with_defaults(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as the tool will use them."""
    properties = schema.get("properties", {})
    return {name: prop["default"] for name, prop in properties.items() if "default" in prop} | dict(arguments)


def required(schema: Mapping[str, Any]) -> list[str]:
    return list(schema.get("required", ()))
