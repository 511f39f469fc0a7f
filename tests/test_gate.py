"""What stands before the tools: limits that count calls that are made, and words that name what refused."""

from pathlib import Path
from typing import Any

import pytest
from conftest import Connect
from fakes import FakeModel
from fastmcp import Client
from fastmcp.exceptions import ToolError

from nanobanana_mcp.errors import SetupError
from nanobanana_mcp.studio import Studio

TWO = "tools: {generate_image: {rules: [{rate_limit: 2/minute}]}}\n"
SECRET = "AIzaSyCANARYcanaryCANARYcanaryCANARY1234"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(TWO)
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the client has open."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.setenv("CLAUDE_PROJECT_DIR", str(folder))
    return folder


async def _refusal(client: Client[Any], **arguments: Any) -> str:
    with pytest.raises(ToolError) as caught:
        await client.call_tool("generate_image", {"prompt": "a cat"} | arguments)
    return str(caught.value)


async def test_calls_that_were_not_made_use_up_no_limit(connect: Connect, policy: Path, model: FakeModel) -> None:
    async with connect(policy=policy) as client:
        for _ in range(3):
            assert "n:" in await _refusal(client, n=0)
            await client.call_tool("generate_image", {"prompt": "a cat", "dry_run": True})
        for prompt in ("a cat", "a dog"):
            await client.call_tool("generate_image", {"prompt": prompt})
        assert (await _refusal(client, prompt="a heron")).startswith("Policy violation:")
    assert len(model.requests) == 2


async def test_a_policy_that_cannot_be_read_is_no_violation_of_it(
    connect: Connect, policy: Path, model: FakeModel
) -> None:
    policy.write_text("- a list\n")
    async with connect(policy=policy) as client:
        said = await _refusal(client)
    assert str(policy) in said and "Policy violation" not in said
    assert model.requests == []


async def test_a_library_that_is_locked_is_no_violation_of_a_policy(
    connect: Connect, policy: Path, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def locked(*_given: Any) -> None:
        raise SetupError("The library is locked.")

    monkeypatch.setattr(Studio, "take", locked)
    async with connect(policy=policy) as client:
        assert await _refusal(client) == "The library is locked."
    assert model.requests == []


async def test_a_projects_policy_that_is_a_link_is_not_followed_and_quotes_nothing(
    connect: Connect, project: Path, tmp_path: Path, model: FakeModel
) -> None:
    (tmp_path / "secrets.yaml").write_text(f"default: {SECRET}\n")
    (project / "nanobanana-policy.yaml").symlink_to(tmp_path / "secrets.yaml")
    async with connect() as client:
        said = await _refusal(client)
    assert "nanobanana-policy.yaml is a link" in said and SECRET not in said
    assert model.requests == []


async def test_a_users_own_policy_may_be_a_link(connect: Connect, policy: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(policy)
    async with connect(policy=link) as client:
        for prompt in ("a cat", "a dog"):
            await client.call_tool("generate_image", {"prompt": prompt})
        assert "Policy violation" in await _refusal(client, prompt="a heron")


@pytest.mark.parametrize(
    ("rules", "refused", "allowed"),
    [
        (
            "{action: deny, conditions: [{path: args.model_tier, op: eq, value: pro}]}",
            {"prompt": "a high quality professional poster with text", "resolution": "4k"},
            {"prompt": "a quick sketch"},
        ),
        (
            "{action: allow, conditions: [{path: args.model_tier, op: neq, value: pro}]}",
            {"prompt": "a high quality professional poster with text", "resolution": "4k"},
            {"prompt": "a quick sketch"},
        ),
        (
            "{action: deny, conditions: [{path: args.resolution, op: eq, value: 4k}]}",
            {"width": 4000, "height": 4000},
            {"width": 400, "height": 400},
        ),
        (
            "{action: allow, conditions: [{path: args.resolution, op: in, value: [high, 1k]}]}",
            {"resolution": "2k", "model_tier": "pro"},
            {"resolution": "high", "model_tier": "pro"},
        ),
    ],
)
async def test_a_policy_judges_what_auto_comes_to(
    connect: Connect, policy: Path, model: FakeModel, rules: str, refused: dict[str, Any], allowed: dict[str, Any]
) -> None:
    policy.write_text(f"tools: {{generate_image: {{rules: [{{rate_limit: 1/day}}, {rules}]}}}}\n")
    async with connect(policy=policy) as client:
        for dry_run in (True, False):
            assert (await _refusal(client, **refused, dry_run=dry_run)).startswith("Policy violation: generate_image")
        await client.call_tool("generate_image", {"prompt": "a cat"} | allowed)
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    ("arguments", "meta"),
    [({"idempotency_key": "one"}, None), ({}, {"claudecode/toolUseId": "toolu_1"})],
    ids=["key", "tool use id"],
)
async def test_asking_again_for_what_was_paid_for_uses_up_no_limit(
    connect: Connect, policy: Path, model: FakeModel, arguments: dict[str, Any], meta: dict[str, Any] | None
) -> None:
    policy.write_text(TWO.replace("2/minute", "1/day"))
    async with connect(policy=policy) as client:
        first = await client.call_tool("generate_image", {"prompt": "a cat"} | arguments, meta=meta)
        again = await client.call_tool("generate_image", {"prompt": "a cat"} | arguments, meta=meta)
        assert "Policy violation" in await _refusal(client, idempotency_key="two")
    assert first.structured_content["file_paths"] == again.structured_content["file_paths"]
    assert len(model.requests) == 1


SPELLINGS: dict[str, tuple[str, Any, list[Any]]] = {
    "n": (
        "{path: args.n, op: gt, value: 4}",
        10,
        [10, 10.0, "10", " 10 ", "10.0", "+10", "010", "\n10\t", "10."],
    ),
    "model_tier": (
        "{path: args.model_tier, op: eq, value: pro}",
        "pro",
        ["pro", "PRO", " Pro ", "nano-banana-pro", "Nano Banana Pro"],
    ),
    "output_format": (
        "{path: args.output_format, op: in, value: [jpeg]}",
        "jpeg",
        ["jpg", "JPEG", ".jpg", "image/jpeg", "Jpg "],
    ),
    "enable_grounding": (
        "{path: args.enable_grounding, op: eq, value: true}",
        True,
        [True, "true", "TRUE", " True "],
    ),
    "input_images": (
        "{path: args.input_images, op: contains, value: img_0000000000000000}",
        ["img_0000000000000000"],
        ['["img_0000000000000000"]', ' [ "img_0000000000000000" ] ', ["img_0000000000000000"]],
    ),
    "safety": (
        "{path: args.safety.harassment, op: eq, value: off}",
        {"harassment": "off"},
        ['{"harassment": "OFF"}', {"HARM_CATEGORY_HARASSMENT": "Off"}, {"Harassment": "off"}],
    ),
}


@pytest.mark.parametrize("name", SPELLINGS)
async def test_a_policy_judges_a_call_in_any_spelling_as_the_plain_one(
    name: str, connect: Connect, policy: Path, model: FakeModel
) -> None:
    condition, plain, spellings = SPELLINGS[name]
    policy.write_text(f"tools: {{generate_image: {{rules: [{{action: deny, conditions: [{condition}]}}]}}}}\n")
    async with connect(policy=policy) as client:
        told = await _refusal(client, **{name: plain})
        assert told.startswith("Policy violation")
        for given in spellings:
            assert await _refusal(client, **{name: given}) == told
    assert model.requests == []


@pytest.mark.parametrize("dry_run", ["false", "FALSE", " false "])
async def test_a_call_that_says_by_text_that_it_is_no_dry_run_uses_up_a_limit(
    connect: Connect, policy: Path, model: FakeModel, dry_run: str
) -> None:
    policy.write_text(TWO.replace("minute", "day"))
    async with connect(policy=policy) as client:
        for _ in range(3):
            await client.call_tool("generate_image", {"prompt": "a cat", "dry_run": "true"})
        for prompt in ("a cat", "a dog"):
            await client.call_tool("generate_image", {"prompt": prompt, "dry_run": dry_run})
        assert (await _refusal(client)).startswith("Policy violation:")
    assert len(model.requests) == 2


async def test_a_policy_with_a_misspelt_tool_stops_what_spends(connect: Connect, policy: Path) -> None:
    policy.write_text("tools: {generat_image: {rules: [{action: deny}]}, another_servers_tool: {rules: []}}\n")
    async with connect(policy=policy) as client:
        assert "write generate_image" in await _refusal(client)
        policy.write_text("tools: {another_servers_tool: {rules: [{action: deny}]}}\n")
        await client.call_tool("generate_image", {"prompt": "a cat"})
