"""Every promise of docs/promises.md names a test that keeps it, and that test is there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEADING = "What it promises"


def promises(text: str) -> list[str]:
    """The bullets of the section, each in one line."""
    section = re.search(rf"^#+ {HEADING}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    if section is None:
        return []
    bullets = re.findall(r"^[-*] (.+(?:\n  .+)*)", section[1], re.MULTILINE)
    return [" ".join(bullet.split()) for bullet in bullets]


def names() -> set[str]:
    """The name of every test function of the suite."""
    return {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_promise_ends_with_the_name_of_a_test_that_exists() -> None:
    made = promises((ROOT / "docs" / "promises.md").read_text(encoding="utf-8"))
    known = names()
    assert len(made) >= 10
    for promise in made:
        named = re.findall(r"`(test_\w+)`", promise)
        assert named, f"this promise names no test: {promise}"
        assert promise.rstrip(".)").endswith("`"), f"this promise does not end with its test: {promise}"
        assert set(named) <= known, f"no such test: {sorted(set(named) - known)}"


def test_a_section_is_read_bullet_by_bullet() -> None:
    text = "# A\n- no\n## What it promises\nWords.\n\n- One\n  thing. (`test_a`)\n- Two. (`test_b`)\n\n## B\n- no\n"
    assert promises(text) == ["One thing. (`test_a`)", "Two. (`test_b`)"]
    assert promises("# A\n- no\n") == []
