"""The policy is asked by the studio, so that every door obeys it, not only the MCP server."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from nanobanana_mcp.domain.errors import PolicyViolation
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.studio.admission import Admission
from nanobanana_mcp.studio.studio import Studio
from tests.support.fakes import FakeModel

SCHEMA = {"properties": {"prompt": {}, "n": {"default": 1}, "model_tier": {"default": "auto"}}, "required": ["prompt"]}


def _admission(studio: Studio, folder: Path, rules: str) -> Admission:
    policy = folder / "policy.yaml"
    policy.write_text(f"tools: {{generate_image: {{rules: [{rules}]}}}}\n")

    async def opened() -> Studio:
        return studio

    return Admission(user_policy=policy, project=folder, studio=opened)


async def test_what_auto_comes_to_is_judged_by_the_studio_whichever_door_asks(
    studio: Studio, model: FakeModel, tmp_path: Path
) -> None:
    admission = _admission(
        studio, tmp_path, "{action: deny, conditions: [{path: args.model_tier, op: eq, value: pro}]}"
    )
    prompt = "a detailed poster with crisp typography"
    await admission.admit("generate_image", {"prompt": prompt}, SCHEMA, key=None)
    job = await studio.job(ImageRequest(prompt=prompt))
    assert job.plan.choice.spec.tier == "pro"
    verbs: list[Callable[[Any], Awaitable[Any]]] = [studio.quote, studio.carry_out]
    for verb in verbs:
        with pytest.raises(PolicyViolation, match="Policy violation"):
            await verb(job)
    assert model.requests == []
    await admission.admit("generate_image", {"prompt": "a sketch"}, SCHEMA, key=None)
    assert (await studio.create(ImageRequest(prompt="a quick sketch"))).images


async def test_a_limit_is_used_by_calls_and_neither_by_dry_runs_nor_by_calls_that_were_not_made(
    studio: Studio, tmp_path: Path
) -> None:
    admission = _admission(studio, tmp_path, "{rate_limit: 1/day}")
    for _ in range(2):
        await admission.admit("generate_image", {"prompt": "a", "dry_run": True}, SCHEMA, key=None)
    await admission.refund(await admission.admit("generate_image", {"prompt": "a"}, SCHEMA, key=None))
    await admission.admit("generate_image", {"prompt": "a"}, SCHEMA, key=None)
    with pytest.raises(PolicyViolation, match="1 was made"):
        await admission.admit("generate_image", {"prompt": "a"}, SCHEMA, key=None)
