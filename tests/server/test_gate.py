"""The gate before the tools counts the calls that are made, and names the rule that refused one."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from fastmcp.exceptions import ToolError

from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Connect
from tests.support.fakes import FakeModel, jpeg, photo, reply

TWO = "tools: {generate_image: {rules: [{rate_limit: 2/day}]}}\n"
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

    monkeypatch.setattr(Studio, "consume", locked)
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


@pytest.mark.slow
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
    policy.write_text(TWO.replace("2/day", "1/day"))
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
        "{path: args.safety.harassment, op: eq, value: 'off'}",
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


@pytest.mark.slow
@pytest.mark.parametrize("dry_run", ["false", "FALSE", " false "])
async def test_a_call_that_says_by_text_that_it_is_no_dry_run_uses_up_a_limit(
    connect: Connect, policy: Path, model: FakeModel, dry_run: str
) -> None:
    policy.write_text(TWO)
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
        assert "did you mean generate_image?" in await _refusal(client)
        policy.write_text("tools: {another_servers_tool: {rules: [{action: deny}]}}\n")
        await client.call_tool("generate_image", {"prompt": "a cat"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("{action: deny, conditions: [{path: 'args.input_images', op: exists}]}", "denied"),
        ("{action: deny, conditions: [{path: 'args.input_images[*]', op: contains, value: img_}]}", "denied"),
        ("{conditions: [{path: 'args.input_images[*]', op: contains, value: approved}]}", "only when"),
    ],
)
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("generate_image", {"prompt": "a", "input_images": ["img_1"]}),
        *(("generate_image", {"prompt": "a", f"input_image_path_{n}": "img_1"}) for n in (1, 2, 3)),
        ("generate_image", {"prompt": "a", "file_id": "files/img_1"}),
        ("generate_image", {"prompt": "a", "continue_from": "img_1"}),
        ("generate_image", {"prompt": "a", "input_images": ["approved.png"], "file_id": "files/img_1"}),
        ("edit_region", {"instruction": "a", "image": "img_1", "box": [0, 0, 0.5, 0.5]}),
        ("edit_region", {"instruction": "a", "image": "approved.png", "mask": "img_1"}),
        ("upload_file", {"path": "img_1"}),
    ],
)
async def test_a_rule_on_input_images_sees_every_way_a_call_names_one(
    connect: Connect, policy: Path, model: FakeModel, rule: str, says: str, tool: str, arguments: dict[str, Any]
) -> None:
    policy.write_text(f"tools: {{'*': {{rules: [{rule}]}}}}\n")
    async with connect(policy=policy) as client:
        with pytest.raises(ToolError, match=f"Policy violation: {tool} is .*{says}"):
            await client.call_tool(tool, arguments)
        await client.call_tool("generate_image", {"prompt": "no picture goes in"})


UNCLEAR = "tools: {generate_image: {rules: [{conditions: [{path: args.enable_grounding, op: eq, value: no}]}]}}\n"
BROKEN = ["tools: {generate_image: {rulez: []}}\n", UNCLEAR, "- a list\n", "", None]


@pytest.mark.parametrize("text", BROKEN, ids=["typo", "unclear", "list", "empty", "gone"])
async def test_a_policy_that_cannot_be_read_stops_all_that_sends_moves_or_writes(
    connect: Connect, policy: Path, model: FakeModel, tmp_path: Path, text: str | None
) -> None:
    mine = photo(tmp_path / "private.jpg")
    policy.write_text("hide: [upload_file, maintenance, convert_image]\n")
    calls: list[tuple[str, dict[str, Any]]] = [
        ("upload_file", {"path": str(mine)}),
        ("convert_image", {"image": str(mine), "width": 20}),
        ("maintenance", {"operation": "full_cleanup", "dry_run": False}),
        ("maintenance", {"operation": "check_quota"}),
        ("generate_image", {"prompt": "a cat"}),
        ("edit_region", {"image": str(mine), "instruction": "a", "box": [0, 0, 0.5, 0.5]}),
    ]
    async with connect(policy=policy) as client:
        await client.call_tool("output_stats", {})
        if text is None:
            policy.unlink()
        else:
            policy.write_text(text)
        for tool, arguments in calls:
            with pytest.raises(ToolError, match=re.escape(str(policy))):
                await client.call_tool(tool, arguments)
        await client.call_tool("output_stats", {})
    assert model.requests == [] and model.uploads == []


async def test_an_answer_that_comes_while_the_policy_cannot_be_read_is_kept_and_not_uploaded(
    connect: Connect, policy: Path, model: FakeModel, studio: Studio
) -> None:
    async def breaks() -> bytes:
        policy.write_text("default: alow\n")
        return reply(jpeg())

    model.answers.append(breaks)
    async with connect(policy=policy, open_it=lambda: studio) as client:
        made = await client.call_tool("generate_image", {"prompt": "a cat"})
        await studio.noted()
        assert Path(made.structured_content["images"][0]["path"]).exists()
        assert model.uploads == []
        policy.write_text(TWO)
        await client.call_tool("generate_image", {"prompt": "a dog"})
        await studio.uploads.drain(5)
        assert len(model.uploads) == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="links want rights there")
@pytest.mark.parametrize(
    "given",
    [
        "{}/public/../private/p.jpg",
        "{}/public/./../private/p.jpg",
        "{}/public/link.jpg",
        "{}//public/%2e%2e/private/p.jpg",
    ],
)
async def test_a_rule_for_a_folder_sees_where_a_path_leads(
    connect: Connect, policy: Path, tmp_path: Path, given: str
) -> None:
    root = tmp_path.resolve()
    photo(root / "private" / "p.jpg")
    own = photo(root / "public" / "own.jpg")
    (root / "public" / "link.jpg").symlink_to(root / "private" / "p.jpg")
    rule = f"{{conditions: [{{path: 'args.input_images[*]', op: regex, value: '^{root}/public/'}}]}}"
    there = f"{{conditions: [{{path: args.output_path, op: regex, value: '^{root}/public/'}}]}}"
    policy.write_text(
        f"tools: {{generate_image: {{rules: [{rule}]}}, upload_file: {{rules: [{rule}]}}, convert_image: {{rules: [{there}]}}}}\n"
    )
    path = given.format(root)
    async with connect(policy=policy) as client:
        for tool, arguments in (
            ("generate_image", {"prompt": "a cat", "input_images": [path]}),
            ("upload_file", {"path": path}),
            ("convert_image", {"image": str(own), "width": 9, "output_path": str(Path(path).with_name("o.png"))}),
        ):
            if tool == "convert_image" and ".." not in given:
                continue  # a link of its own name is replaced there, and %2e is a name like any other
            with pytest.raises(ToolError, match="Policy violation"):
                await client.call_tool(tool, arguments)
        await client.call_tool("generate_image", {"prompt": "a cat", "input_images": [str(own)]})
    assert not list(root.rglob("o.png"))


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("path: args.resoluton, op: eq, value: 4k", "args.resoluton, which generate_image does not have"),
        ("path: args.resolution, op: eq, value: 4K", "'4K', which generate_image never accepts: write one of"),
        ("path: args.model_tier, op: in, value: [pro, Flash]", "'Flash', which generate_image never accepts"),
    ],
)
async def test_a_rule_that_can_never_hold_is_refused(connect: Connect, policy: Path, condition: str, told: str) -> None:
    policy.write_text(f"tools: {{generate_image: {{rules: [{{action: deny, conditions: [{{{condition}}}]}}]}}}}\n")
    async with connect(policy=policy) as client:
        assert told in await _refusal(client)


async def test_a_policy_that_closes_the_statistics_closes_the_pictures_by_id(connect: Connect, policy: Path) -> None:
    async with connect() as client:
        made = await client.call_tool("generate_image", {"prompt": "a cat"})
        image_id = made.structured_content["images"][0]["id"]
        assert await client.read_resource(f"image://{image_id}")
    policy.write_text("hide: ['*']\n")
    async with connect(policy=policy) as client:
        with pytest.raises(Exception, match="does not allow output_stats"):
            await client.read_resource(f"image://{image_id}")
