"""What stands before every tool: arguments in their plain form, the policy, and argument errors in plain words."""

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmcp.exceptions import PromptError, ResourceError, ToolError, ValidationError
from fastmcp.server.middleware import Middleware, MiddlewareContext
from fastmcp.tools import ToolResult
from mcp.types import TextContent
from pydantic import ValidationError as PydanticError

from nanobanana_mcp.domain.errors import PolicyError, PolicyViolation, StudioError
from nanobanana_mcp.domain.ids import is_image_id
from nanobanana_mcp.domain.problems import in_words
from nanobanana_mcp.domain.text import shorten
from nanobanana_mcp.server.arguments import kind, name_inputs, plain, with_real_paths
from nanobanana_mcp.server.session import request_key

if TYPE_CHECKING:
    from nanobanana_mcp.domain.plan import Plan
    from nanobanana_mcp.domain.policy.rules import Limit, Policy, PolicyFile
    from nanobanana_mcp.studio.studio import Studio

PROJECT_POLICY = "nanobanana-policy.yaml"
"""A project's own rules, in the folder that the client has open; they can only add to the user's."""

PAID = frozenset({"generate_image", "edit_region", "extend_image", "remove_background"})
"""Tools that spend money."""

READING = frozenset({"output_stats"})
"""Tools that only read: a policy that cannot be read stops all others."""

INPUTS = ("input_images", "input_image_path_1", "input_image_path_2", "input_image_path_3", "file_id", "continue_from",
          "image", "mask", "path")  # fmt: skip
"""Every way in which a call names a picture that goes in: a rule on input_images sees all of them."""

TOOLS = PAID | {"convert_image", "upload_file", "output_stats", "maintenance"}

_SAY_IT = "Gemini has no such control; say it in words"

SAME: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("file", "file_path", "filepath"), ("path", "image", "input_images")),
    **dict.fromkeys(("size", "image_size", "dimensions"), ("resolution", "width")),
    **dict.fromkeys(("model", "model_id", "tier"), ("model_tier",)),
    **dict.fromkeys(("lora", "loras", "lycoris", "embeddings", "controlnet", "ip_adapter"), ("input_images",)),
    **dict.fromkeys(("num_images", "number_of_images", "number_results", "count", "num_outputs"), ("n",)),
    **dict.fromkeys(
        ("image", "image_path", "images", "input_image", "init_image", "reference_images", "image_url", "input_images",
         "input_image_path_1", "file_id", "path", "image_id"),
        ("image", "input_images", "path"),
    ),
    **dict.fromkeys(("save_path", "output_dir", "output_file", "filename", "path", "output"), ("output_path",)),
    **dict.fromkeys(("grounding", "search"), ("enable_grounding",)),
    **dict.fromkeys(("mask_image", "mask_path"), ("mask",)),
    **dict.fromkeys(("region", "bbox", "bounding_box"), ("box", "crop")),
    **dict.fromkeys(("format", "mime_type", "file_format"), ("output_format",)),
    **dict.fromkeys(("negative", "negative_prompt"), ("negative_prompt", "instruction")),
    **dict.fromkeys(("ratio", "aspect"), ("aspect_ratio",)),
    **dict.fromkeys(("prompt", "instruction", "text", "description", "edit_prompt"), ("prompt", "instruction", "subject")),
    **dict.fromkeys(("margin", "margins", "padding", "pixels", "expand"), ("left", "context")),
    **dict.fromkeys(("resize", "scale"), ("width",)),
    **dict.fromkeys(("angle", "rotation"), ("rotate",)),
    **dict.fromkeys(("surroundings",), ("context",)),
    **dict.fromkeys(("transparent", "transparency", "alpha"), ("background",)),
    **dict.fromkeys(("color", "colour", "background_color"), ("background",)),
    **dict.fromkeys(("reasoning", "thinking", "thinking_budget"), ("thinking_level",)),
}  # fmt: skip
"""Names that other image servers have for arguments of ours, first the one that means the most."""

WORDS = {
    "resolution": "resolution (1k, 2k, 4k), with aspect_ratio; width and height make an exact file",
    "model_tier": "model_tier (flash, pro, lite)",
    "input_images": "input_images, with input_roles for what each is for",
    "left": "left, top, right and bottom",
    "width": "width and height",
}
"""Where the name of an argument alone would not be enough."""

NOTHING_LIKE_IT = dict.fromkeys(
    ("steps", "num_inference_steps", "cfg", "cfg_scale", "guidance", "guidance_scale", "scheduler", "sampler",
     "sampler_name", "clip_skip", "strength", "denoising_strength", "temperature", "top_p", "top_k", "style",
     "lora", "loras", "lycoris", "embeddings", "controlnet", "ip_adapter", "negative", "negative_prompt"),
    _SAY_IT,
)  # fmt: skip


DECIDED = frozenset(
    {"model_tier", "resolution", "mode", "enable_grounding", "thinking_level", "aspect_ratio", "input_images"}
)
"""What rules may name of every tool that draws, since the studio decides it."""

_judging: "ContextVar[PolicyCheck | None]" = ContextVar("judging", default=None)


@dataclass(kw_only=True)
class PolicyCheck:
    """One call under judgement: what it was judged by, for when it is known what its arguments come to."""

    policy: "Policy"
    tool: str
    arguments: Mapping[str, Any]
    required: Collection[str]
    limits: "tuple[Limit, ...]" = ()
    refused: bool = False

    def again(self, decided: Mapping[str, Any]) -> None:
        """Judge once more by what was decided for the caller. Raises PolicyViolation."""
        verdict = self.policy.judge(self.tool, self.arguments, {**self.arguments, **decided}, required=self.required)
        if not verdict.allowed:
            self.refused = True
            raise PolicyViolation(f"Policy violation: {verdict.message}")


def judge_again(plan: "Plan") -> None:
    """Hold a call's plan against the policy: what `auto`, `high` or a width comes to, nobody could know before.

    Raises PolicyViolation.
    """
    judging = _judging.get()
    if judging is not None:
        choice = plan.choice
        judging.again(
            {
                "model_tier": choice.spec.tier,
                "resolution": choice.image_size.lower(),
                "mode": plan.mode,
                "enable_grounding": choice.grounding,
                "thinking_level": choice.thinking_level,
                "aspect_ratio": plan.aspect_ratio,
            }
        )


class Gate(Middleware):
    """Puts the arguments of each call into their plain form, which is all that anything after it sees, and judges the
    call by the policy before it is made.
    """

    def __init__(
        self,
        *,
        user_policy: Path | None,
        project: Path,
        studio: "Callable[[], Awaitable[Studio]]",
        listed: Callable[[], None],
        newest: Callable[[], Awaitable[Sequence[Any]]],
    ) -> None:
        self._user = user_policy
        self._project = project / PROJECT_POLICY
        self._studio = studio
        self._listed = listed
        self._newest = newest
        self._files: dict[bool, PolicyFile] = {}

    async def on_list_tools(self, context: MiddlewareContext[Any], call_next: Any) -> Sequence[Any]:
        tools: Sequence[Any] = await call_next(context)
        self._listed()
        try:
            policy = self.policy()
        except PolicyError:
            return tools  # each call says what is wrong with it
        return tools if policy is None else [tool for tool in tools if not policy.hidden(tool.name)]

    async def on_list_resources(self, context: MiddlewareContext[Any], call_next: Any) -> Sequence[Any]:
        """With the newest pictures, for whom output_stats would tell them."""
        listed: Sequence[Any] = await call_next(context)
        return listed if await self._is_closed("output_stats", context) else [*listed, *await self._newest()]

    async def on_read_resource(self, context: MiddlewareContext[Any], call_next: Any) -> Any:
        uri = str(context.message.uri)
        if not (uri.startswith("image://") and is_image_id(uri[len("image://") :].removesuffix("/thumbnail"))):
            raise ResourceError(
                f"{shorten(uri)} is not found: there are image://img_... and image://img_.../thumbnail.",
                log_level=logging.DEBUG,
            )
        if await self._is_closed("output_stats", context):
            raise ResourceError("The policy closes output_stats, and pictures by id with it.", log_level=logging.DEBUG)
        return await call_next(context)

    async def on_get_prompt(self, context: MiddlewareContext[Any], call_next: Any) -> Any:
        raise PromptError(f"{shorten(context.message.name)} is not found: there are no prompts here.")

    async def on_call_tool(self, context: MiddlewareContext[Any], call_next: Any) -> Any:
        if context.message.name not in TOOLS:
            raise ToolError(
                f"{shorten(context.message.name)} is no tool here: there are {', '.join(sorted(TOOLS))}.",
                log_level=logging.DEBUG,
            )
        judging: PolicyCheck | None = None
        try:
            context, notes = await self._plainly(context)
            judging = await self._judge(context.message.name, context)
            _judging.set(judging)
            return _told(await call_next(context), notes)
        except ToolError:
            if judging is not None and judging.refused:
                await self._refund(judging)
            raise
        except ValidationError as error:
            await self._refund(judging)
            if not isinstance(error.__cause__, PydanticError):
                raise
            found = error.__cause__.errors(include_url=False, include_input=False)
            known = await self._arguments(context)
            given = context.message.arguments or {}
            told = (_argument_error(problem, context.message.name, known, given) for problem in found)
            raise ToolError("; ".join(told), log_level=logging.DEBUG) from None
        except PolicyViolation as error:
            raise ToolError(f"Policy violation: {error}", log_level=logging.DEBUG) from error
        except StudioError as error:
            raise ToolError(str(error), log_level=logging.DEBUG) from error

    def policy(self) -> "Policy | None":
        """The rules as they are now, None without any. Raises PolicyError when a file cannot be read or understood."""
        present = os.path.lexists(self._project)  # a link that leads nowhere is there, and is refused
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
                    raise PolicyError(f"{layer.name} has rules for {name!r}, which is no tool here: write {meant[0]}.")
        return policy

    def may_send(self) -> bool:
        """Whether it is known what the policy says."""
        try:
            self.policy()
        except PolicyError:
            return False
        return True

    async def _judge(self, name: str, context: MiddlewareContext[Any]) -> PolicyCheck | None:
        """The call and the limits it has used. Raises PolicyViolation, or PolicyError for a tool that sends, moves or
        writes.
        """
        try:
            policy = self.policy()
        except PolicyError:
            if name not in READING:
                raise
            return None
        if policy is None:
            return None
        assert context.fastmcp_context is not None
        tool = await context.fastmcp_context.fastmcp.get_tool(name)
        if tool is None:
            return None
        given, schema = context.message.arguments or {}, tool.parameters
        check_rules(policy, name, schema)
        whole = with_defaults(given, schema)
        arguments = with_inputs(await asyncio.to_thread(with_real_paths, whole, self._project.parent))
        judging = PolicyCheck(policy=policy, tool=name, arguments=arguments, required=required(schema))
        verdict = policy.judge(name, judging.arguments, required=judging.required)
        if not verdict.allowed:
            raise PolicyViolation(verdict.message)
        if verdict.limits and given.get("dry_run") is not True and not await self._is_repeated(name, context, given):
            await (await self._studio()).consume(verdict.limits, name)
            judging.limits = verdict.limits
        return judging

    async def _is_closed(self, name: str, context: MiddlewareContext[Any]) -> bool:
        """Whether a tool is hidden or refused as it is called without arguments, or nobody knows."""
        try:
            policy = self.policy()
        except PolicyError:
            return True
        if policy is None:
            return False
        assert context.fastmcp_context is not None
        tool = await context.fastmcp_context.fastmcp.get_tool(name)
        if tool is None:
            return True
        arguments = with_inputs(with_defaults({}, tool.parameters))
        return not policy.judge(name, arguments, required=required(tool.parameters)).allowed

    async def _plainly(self, context: MiddlewareContext[Any]) -> tuple[MiddlewareContext[Any], list[str]]:
        """The call as the tool's schema declares it, each input under the name of the one file it means, and what to
        tell of that. Raises RequestError.
        """
        assert context.fastmcp_context is not None
        message = context.message
        tool = await context.fastmcp_context.fastmcp.get_tool(message.name)
        if tool is None or not message.arguments:
            return context, []
        found = plain(message.arguments, tool.parameters)
        notes = await asyncio.to_thread(name_inputs, found, self._project.parent)
        return context.copy(message=message.model_copy(update={"arguments": found})), notes

    async def _arguments(self, context: MiddlewareContext[Any]) -> dict[str, Collection[str]]:
        """The names of every tool's arguments."""
        assert context.fastmcp_context is not None
        found = [await context.fastmcp_context.fastmcp.get_tool(name) for name in sorted(TOOLS)]
        return {tool.name: tool.parameters["properties"] for tool in found if tool is not None}

    async def _is_repeated(self, name: str, context: MiddlewareContext[Any], given: Mapping[str, Any]) -> bool:
        """Whether this call only asks again for what was paid for: that is no new call, and uses up no limit."""
        if name not in PAID or context.fastmcp_context is None:
            return False
        explicit = given.get("idempotency_key")
        key = request_key(context.fastmcp_context, explicit if isinstance(explicit, str) else None)
        return key is not None and await (await self._studio()).knows(key)

    async def _refund(self, judging: PolicyCheck | None) -> None:
        """The call was never made."""
        if judging is not None and judging.limits:
            await (await self._studio()).refund(judging.limits)


def _told(result: Any, notes: Sequence[str]) -> Any:
    """An answer that tells `notes`, in both its halves."""
    if notes and isinstance(result, ToolResult) and isinstance(result.content[0], TextContent):
        lines = "".join(f"\nNote: {note}" for note in notes)
        result.content[0].text += lines
        structure = result.structured_content
        if structure is not None and isinstance(structure.get("summary"), str):
            structure["summary"] += lines
    return result


def with_defaults(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as the tool will use them."""
    properties = schema.get("properties", {})
    return {name: prop["default"] for name, prop in properties.items() if "default" in prop} | dict(arguments)


def check_rules(policy: "Policy", tool: str, schema: Mapping[str, Any]) -> None:
    """Raises PolicyError for a rule that can never hold: on an argument that the tool does not have, or a word that it
    never takes.
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
                    f"{layer.name} has a rule for args.{name} {strange[0]!r}, which {tool} never takes: write one of "
                    f"{', '.join(map(str, words))}."
                )


def with_inputs(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with every picture that goes in under input_images, where the policy's rules look for them."""
    given = [arguments.get(name) for name in INPUTS]
    inputs = [one for value in given if value for one in (value if isinstance(value, list) else [value])]
    return {**arguments, "input_images": list(dict.fromkeys(map(str, inputs))) or arguments.get("input_images")}


def required(schema: Mapping[str, Any]) -> list[str]:
    return list(schema.get("required", ()))


_WANTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "float_type": "a number",
    **dict.fromkeys(("int_type", "int_from_float"), "a whole number"),
    "list_type": "a list ([...])",
    "dict_type": "an object ({...})",
}
"""What belongs where another kind of value came, by pydantic's name of the problem."""


def _argument_error(problem: Any, tool: str, known: Mapping[str, Collection[str]], arguments: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{shorten(name)[1:-1]} is not an argument of this tool: {instead(name, tool, known)}"
    if problem["type"] in ("missing_argument", "missing"):
        return f"{name} is missing"
    if problem["type"] in _WANTED:
        given: Any = arguments
        for part in problem["loc"]:
            given = given[part]
        what = "a number that is too large" if isinstance(given, float) and given.is_integer() else kind(given)
        return f"{name}: {what} arrived where {_WANTED[problem['type']]} belongs"
    return f"{name}: {in_words(problem)}"


def instead(given: str, tool: str, known: Mapping[str, Collection[str]]) -> str:
    """What to use in place of an argument that a tool does not have; `known` are the arguments of every tool."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", given).lower().replace("-", "_")
    own = known.get(tool, ())
    meant = next((one for one in (name, *SAME.get(name, ())) if one in own), None)
    if meant is not None:
        return f"use {WORDS.get(meant, meant)}"
    if name in NOTHING_LIKE_IT:
        return NOTHING_LIKE_IT[name]
    for one in (name, *SAME.get(name, ())):
        others = sorted(other for other, arguments in known.items() if one in arguments)
        if others:
            return f"{', '.join(others)} {'has' if len(others) == 1 else 'have'} {one}; leave it out here"
    from difflib import get_close_matches

    close = get_close_matches(name, own, 1, cutoff=0.75)
    return f"use {close[0]}, if that was meant" if close else "leave it out"
