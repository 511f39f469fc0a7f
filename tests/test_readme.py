"""README, docs, `.env.example` and the code tell the same story."""

import re
import shlex
from pathlib import Path

import pytest
from fastmcp import Client

from nanobanana_mcp.cli.main import run
from nanobanana_mcp.domain.catalog import BY_ID, DEFAULTS, PRICES_DATE, ImageSize, ModelSpec, TierName
from nanobanana_mcp.domain.policy.rules import Policy
from nanobanana_mcp.domain.pricing import estimate
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.domain.selector import choose
from nanobanana_mcp.domain.terms import Resolution
from nanobanana_mcp.server.app import build_server
from nanobanana_mcp.settings import Settings, load_settings, variables

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
SETTINGS = (ROOT / "docs" / "settings.md").read_text("utf-8")
EXAMPLE = (ROOT / ".env.example").read_text("utf-8")
IN_WORDS = {
    "NANOBANANA_OUTPUT_DIR": "`nanobanana` in the pictures folder",
    "NANOBANANA_DATABASE_URL": "`library.db` in the user data folder",
}
"""Defaults that are found out on the machine."""

SIZES: tuple[tuple[ImageSize, Resolution], ...] = (("1K", "1k"), ("2K", "2k"), ("4K", "4k"))


def rows(heading: str) -> list[list[str]]:
    """The cells of the table of a section of the README, without its head."""
    return cells(README.split(f"\n## {heading}\n")[1].split("\n## ")[0])


def cells(section: str) -> list[list[str]]:
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def defaults() -> dict[str, str]:
    """Every variable with its default as one would write it; empty where there is none."""
    values = (
        "" if field.default_factory or field.default in (None, ()) else field.default
        for field in Settings.model_fields.values()
    )
    shown = (f"{value:g}" if isinstance(value, float) else str(value) for value in values)
    shown = (value.lower() if value in ("True", "False") else value for value in shown)
    return dict(zip(variables(), shown, strict=True))


def test_the_settings_table_and_the_settings_agree() -> None:
    table = {name.strip("`"): (default, meaning) for name, default, meaning in cells(SETTINGS)}
    expected = {
        name: (IN_WORDS.get(name) or (f"`{default}`" if default else ""), variables()[name])
        for name, default in defaults().items()
    }
    assert table == expected
    assert {name.strip("`"): (default, meaning) for name, default, meaning in rows("Settings")}.items() <= table.items()


def test_the_example_of_settings_and_the_settings_agree() -> None:
    written = re.findall(r"^# (.+)\n#([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE)
    assert [(name, value, meaning) for meaning, name, value in written] == [
        (name, default, variables()[name]) for name, default in defaults().items()
    ]


def test_the_example_of_settings_with_every_line_in_force_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_default = load_settings().model_dump()
    (tmp_path / "all.env").write_text(re.sub(r"^#([A-Z_]+=)", r"\1", EXAMPLE, flags=re.MULTILINE), "utf-8")
    monkeypatch.setenv("NANOBANANA_ENV_FILE", str(tmp_path / "all.env"))
    assert load_settings().model_dump() == by_default


def test_the_table_of_tiers_says_what_the_models_do_and_cost() -> None:
    models: dict[TierName, ModelSpec] = {tier: BY_ID[model_id] for tier, model_id in DEFAULTS.items()}
    expected = []
    for tier, spec in models.items():
        requests = [
            (size, ImageRequest(prompt="p", model_tier=tier, resolution=resolution, enable_grounding=False))
            for size, resolution in SIZES
        ]
        prices = [
            f"${estimate(choose(request, models), inputs=0, prompt_characters=100):.3f}" if size in spec.sizes else ""
            for size, request in requests
        ]
        search = "yes" if spec.grounding else "no"
        expected.append([tier, spec.nickname, *prices, str(len(spec.ratios)), str(spec.max_inputs), search])
    assert rows("Tiers and prices") == expected
    assert f"prices of {PRICES_DATE}," in README


async def test_the_table_of_tools_has_the_servers_tools() -> None:
    async with Client(build_server(Settings(backend="emulator"))) as client:
        tools = [tool.name for tool in await client.list_tools()]
    assert [name.strip("`") for name, _ in rows("The tools")] == tools


def test_every_command_of_ours_that_the_documents_name_exists(capsys: pytest.CaptureFixture[str]) -> None:
    documents = README + (ROOT / "CONTRIBUTING.md").read_text("utf-8") + (ROOT / "CHANGELOG.md").read_text("utf-8")
    commands = re.findall(r"nanobanana ([a-z]+(?: --[a-z]+(?: \d+)?)*)`", documents)
    assert len(commands) >= 3
    for command in commands:
        verb, *options = shlex.split(command)
        assert run([verb, "--help"]) == 0, verb
        words = capsys.readouterr().out
        assert all(option in words for option in options if option.startswith("--")), command


def test_every_make_target_that_the_documents_name_exists() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    documents = README + (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = set(re.findall(r"^make ([a-z]+)|`make ([a-z]+)`", documents, re.MULTILINE))
    assert {name for pair in named for name in pair if name} <= set(targets)


def test_every_file_that_the_documents_point_to_is_there_and_the_readmes_picture_is_small() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^):#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (page.parent / target).is_file(), (page.name, target)
    assert (ROOT / "docs" / "demo.jpg").stat().st_size < 150_000


def test_the_example_of_a_policy_does_what_it_says() -> None:
    (example,) = re.findall(r"`(tools: \{generate_image: .*?)`", SETTINGS)
    policy = Policy.parse(example, source="settings.md")
    allowed = policy.judge("generate_image", {"prompt": "p", "n": 4}, required=("prompt",))
    assert allowed.allowed and [(limit.maximum, limit.window_s) for limit in allowed.limits] == [(100, 86_400.0)]
    assert not policy.judge("generate_image", {"prompt": "p", "n": 5}, required=("prompt",)).allowed
