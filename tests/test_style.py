"""Rules of style that no linter has."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("nanobanana_mcp", "migrations", "benchmarks", "release", "tests")

RIDDLE = re.compile(r'^ *r?"""\s*(?:What|Whatever|Who|Whoever|Whose|Whether|Which|How|Why|Where|When|That)\b.*', re.M)
"""A docstring of a module, class, function or attribute that leaves it to the reader what the thing does."""


def test_a_docstring_says_what_a_thing_does_or_is_and_is_no_riddle() -> None:
    riddles = [
        f"{path.relative_to(ROOT)}: {found[0].strip()}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for found in RIDDLE.finditer(path.read_text("utf-8"))
    ]
    assert riddles == [], "begin with the verb (Tells whether ...) or with the noun (The number of ...)"
