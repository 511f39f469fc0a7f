"""What stands before every tool: the policy, and argument errors in plain words."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmcp.exceptions import ToolError, ValidationError
from fastmcp.server.middleware import Middleware, MiddlewareContext
from pydantic import ValidationError as PydanticError

from nanobanana_mcp.errors import StudioError
from nanobanana_mcp.policy import Limit, Policy, PolicyError, PolicyFile, PolicyViolation

if TYPE_CHECKING:
    from nanobanana_mcp.studio import Studio

PROJECT_POLICY = "nanobanana-policy.yaml"
"""A project's own rules, in the folder that the client has open; they can only add to the user's."""

PAID = frozenset({"generate_image", "edit_region", "extend_image", "remove_background"})
"""Tools that spend money: a policy that cannot be read stops these."""

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
        name = context.message.name
        limits: Sequence[Limit] = ()
        try:
            limits = await self._judge(name, context)
            return await call_next(context)
        except ValidationError as error:
            if limits:  # the call was never made
                await (await self._studio()).give_back(limits)
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
        return self._files[present].current()

    async def _judge(self, name: str, context: MiddlewareContext[Any]) -> Sequence[Limit]:
        """The limits that this call has used. Raises PolicyViolation, or PolicyError for a tool that spends."""
        try:
            policy = self.policy()
        except PolicyError:
            if name in PAID:
                raise
            return ()
        if not policy.layers:
            return ()
        assert context.fastmcp_context is not None
        tool = await context.fastmcp_context.fastmcp.get_tool(name)
        if tool is None:
            return ()
        schema = tool.parameters
        verdict = policy.judge(name, with_defaults(context.message.arguments or {}, schema), required=required(schema))
        if not verdict.allowed:
            raise PolicyViolation(verdict.message)
        if not verdict.limits or (context.message.arguments or {}).get("dry_run") is True:
            return ()
        await (await self._studio()).take(verdict.limits, name)
        return verdict.limits


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
