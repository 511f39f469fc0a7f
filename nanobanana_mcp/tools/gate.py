"""What stands before every tool: the policy, and argument errors in plain words."""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmcp.exceptions import ToolError, ValidationError
from fastmcp.server.middleware import Middleware, MiddlewareContext
from pydantic import ValidationError as PydanticError

from nanobanana_mcp.errors import StudioError
from nanobanana_mcp.policy import Limit, Policy, PolicyError, PolicyFile, PolicyViolation
from nanobanana_mcp.tools.session import request_key

if TYPE_CHECKING:
    from nanobanana_mcp.plan import Plan
    from nanobanana_mcp.studio import Studio

PROJECT_POLICY = "nanobanana-policy.yaml"
"""A project's own rules, in the folder that the client has open; they can only add to the user's."""

PAID = frozenset({"generate_image", "edit_region", "extend_image", "remove_background"})
"""Tools that spend money: a policy that cannot be read stops these."""

TOOLS = PAID | {"convert_image", "upload_file", "output_stats", "maintenance"}

_NO_CONTROL = "Gemini has no such control; say it in the prompt, or choose model_tier or thinking_level"
_INPUTS = "give input pictures as input_image_path_1 or input_images (generate_image) or image (the edit tools)"
_SHAPE = "width and height make an exact file; resolution (1k, 2k, 4k) and aspect_ratio shape what Gemini draws"

INSTEAD = {
    **dict.fromkeys(("size", "image_size", "dimensions"), _SHAPE),
    **dict.fromkeys(("model", "model_id", "tier"), "use model_tier (flash, pro, lite)"),
    **dict.fromkeys(
        ("steps", "num_inference_steps", "cfg", "cfg_scale", "guidance", "guidance_scale", "scheduler", "sampler",
         "sampler_name", "clip_skip", "strength", "denoising_strength", "temperature"),
        _NO_CONTROL,
    ),
    **dict.fromkeys(("lora", "loras", "lycoris", "embeddings", "controlnet", "ip_adapter"), "give reference pictures as "
                    "input_images, with input_roles"),
    **dict.fromkeys(("num_images", "number_of_images", "number_results", "count"), "use n"),
    **dict.fromkeys(
        ("image", "image_path", "images", "input_image", "init_image", "reference_images", "image_url"), _INPUTS
    ),
    **dict.fromkeys(("save_path", "output_dir", "output_file", "filename", "path"), "use output_path"),
    **dict.fromkeys(("grounding", "search"), "use enable_grounding"),
    **dict.fromkeys(("mask_image", "mask_path"), "use mask of edit_region"),
    **dict.fromkeys(("region", "bbox"), "use box of edit_region"),
    **dict.fromkeys(("format", "mime_type"), "use output_format"),
    "negative": "use negative_prompt",
    "ratio": "use aspect_ratio",
    "prompt": "the edit tools call it instruction",
    "instruction": "generate_image calls it prompt",
    "transparent": "use background 'transparent'",
    "style": "say it in the prompt, or give a picture with the role style",
}  # fmt: skip
"""Arguments of other image servers, and what to use here."""


_judging: "ContextVar[Judging | None]" = ContextVar("judging", default=None)


@dataclass(kw_only=True)
class Judging:
    """One call under judgement: what it was judged by, for when it is known what its arguments come to."""

    policy: Policy
    tool: str
    arguments: Mapping[str, Any]
    required: Collection[str]
    limits: tuple[Limit, ...] = ()
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
    """Judges each call by the policy before it is made."""

    def __init__(
        self,
        *,
        user_policy: Path | None,
        project: Path,
        studio: "Callable[[], Awaitable[Studio]]",
        listed: Callable[[], None],
    ) -> None:
        self._user = user_policy
        self._project = project / PROJECT_POLICY
        self._studio = studio
        self._listed = listed
        self._files: dict[bool, PolicyFile] = {}

    async def on_list_tools(self, context: MiddlewareContext[Any], call_next: Any) -> Sequence[Any]:
        tools: Sequence[Any] = await call_next(context)
        self._listed()
        try:
            policy = self.policy()
        except PolicyError:
            return tools  # each paid call says what is wrong with it
        return [tool for tool in tools if not policy.hidden(tool.name)]

    async def on_call_tool(self, context: MiddlewareContext[Any], call_next: Any) -> Any:
        judging: Judging | None = None
        try:
            judging = await self._judge(context.message.name, context)
            _judging.set(judging)
            return await call_next(context)
        except ToolError:
            if judging is not None and judging.refused:
                await self._give_back(judging)
            raise
        except ValidationError as error:
            await self._give_back(judging)
            if not isinstance(error.__cause__, PydanticError):
                raise
            found = error.__cause__.errors(include_url=False, include_input=False, include_context=False)
            raise ToolError("; ".join(map(_argument_error, found)), log_level=logging.DEBUG) from None
        except PolicyViolation as error:
            raise ToolError(f"Policy violation: {error}", log_level=logging.DEBUG) from error
        except StudioError as error:
            raise ToolError(str(error), log_level=logging.DEBUG) from error

    def policy(self) -> Policy:
        """The rules as they are now. Raises PolicyError when a file cannot be read or understood."""
        present = self._project.exists()
        if present not in self._files:
            self._files[present] = PolicyFile(self._user, self._project if present else None)
        policy = self._files[present].current()
        for layer in policy.layers:
            for name in {*layer.tools, *layer.hide} - TOOLS:  # a policy may know tools of other servers, too
                meant = get_close_matches(name, TOOLS, 1, cutoff=0.8)
                if meant:
                    raise PolicyError(f"{layer.name} has rules for {name!r}, which is no tool here: write {meant[0]}.")
        return policy

    async def _judge(self, name: str, context: MiddlewareContext[Any]) -> Judging | None:
        """The call and the limits it has used. Raises PolicyViolation, or PolicyError for a tool that spends."""
        try:
            policy = self.policy()
        except PolicyError:
            if name in PAID:
                raise
            return None
        if not policy.layers:
            return None
        assert context.fastmcp_context is not None
        tool = await context.fastmcp_context.fastmcp.get_tool(name)
        if tool is None:
            return None
        given, schema = context.message.arguments or {}, tool.parameters
        judging = Judging(policy=policy, tool=name, arguments=with_defaults(given, schema), required=required(schema))
        verdict = policy.judge(name, judging.arguments, required=judging.required)
        if not verdict.allowed:
            raise PolicyViolation(verdict.message)
        if verdict.limits and given.get("dry_run") is not True and not await self._is_repeated(name, context, given):
            await (await self._studio()).take(verdict.limits, name)
            judging.limits = verdict.limits
        return judging

    async def _is_repeated(self, name: str, context: MiddlewareContext[Any], given: Mapping[str, Any]) -> bool:
        """Whether this call only asks again for what was paid for: that is no new call, and uses up no limit."""
        if name not in PAID or context.fastmcp_context is None:
            return False
        explicit = given.get("idempotency_key")
        key = request_key(context.fastmcp_context, explicit if isinstance(explicit, str) else None)
        return key is not None and await (await self._studio()).knows(key)

    async def _give_back(self, judging: Judging | None) -> None:
        """The call was never made."""
        if judging is not None and judging.limits:
            await (await self._studio()).give_back(judging.limits)


def with_defaults(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as the tool will use them."""
    properties = schema.get("properties", {})
    return {name: prop["default"] for name, prop in properties.items() if "default" in prop} | dict(arguments)


def required(schema: Mapping[str, Any]) -> list[str]:
    return list(schema.get("required", ()))


def _argument_error(problem: Any) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        instead = INSTEAD.get(name.lower())
        return f"{name} is not an argument of this tool: {instead or 'leave it out'}"
    if problem["type"] in ("missing_argument", "missing"):
        return f"{name} is missing"
    return f"{name}: {problem['msg'].removeprefix('Input ')}"
