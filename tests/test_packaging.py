"""The package is installed under its name, with dependencies in the versions that were tried."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
PINS = {
    canonicalize_name(pin.name): pin for pin in map(Requirement, PYPROJECT["tool"]["uv"]["constraint-dependencies"])
}
DECLARED = [
    requirement
    for requirement in map(
        Requirement,
        PROJECT["dependencies"] + [one for extra in PROJECT["optional-dependencies"].values() for one in extra],
    )
    if requirement.name != PROJECT["name"]
]


def test_every_dependency_ends_before_its_next_major_and_is_pinned_within_its_bounds() -> None:
    for requirement in DECLARED:
        assert any(bound.operator == "<" for bound in requirement.specifier), requirement
        pin = PINS[canonicalize_name(requirement.name)]
        (exact,) = pin.specifier
        assert exact.operator == "==" and requirement.specifier.contains(exact.version), (requirement, pin)
        assert pin.url is None


def test_the_distribution_has_our_name_and_its_three_commands_are_one() -> None:
    assert PROJECT["name"] == "nanobanana-studio" and version("nanobanana-studio")
    assert set(PROJECT["scripts"]) == {"nanobanana", "nanobanana-mcp", PROJECT["name"]}
    assert len(set(PROJECT["scripts"].values())) == 1


def test_nothing_of_ours_tells_anybody_to_install_the_strangers_distribution() -> None:
    installs = re.compile(r"(uvx|install|add|--with|requires?)\W+(?:-\S+\s+)*nanobanana-mcp\b", re.IGNORECASE)
    texts = [
        path
        for folder in ("nanobanana_mcp", "docs")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".md")
    ]
    texts += [*ROOT.glob("*.md"), ROOT / ".env.example", ROOT / "Makefile", ROOT / "pyproject.toml"]
    said = [(path.name, found.group()) for path in texts for found in installs.finditer(path.read_text("utf-8"))]
    assert said == []
    assert installs.search("uvx nanobanana-mcp") and installs.search("pip install -U nanobanana-mcp[heic]")


def test_the_photographs_of_an_iphone_need_no_extra() -> None:
    assert any(requirement.name == "pillow-heif" for requirement in map(Requirement, PROJECT["dependencies"]))
