"""How the house is built: who may know whom, where each foreign library enters, and how big a file gets."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "nanobanana_mcp"
HERE = "tests/test_house.py"

FLOORS: tuple[tuple[str, tuple[str, ...]], ...] = (
    # Lowest first. A module imports from lower rows only: not from higher ones, not from its neighbours in the row.
    # A package is one module.
    ("words", ("errors", "tiers")),
    ("words", ("domain",)),
    ("rules", ("selector", "pricing", "shapes", "budget", "references", "strict_yaml", "address")),
    ("rules", ("condition", "exact")),
    ("rules", ("policy",)),
    ("hands: each touches one outside thing", ("gemini", "library", "pixels", "storage", "settings")),
    ("the plan", ("plan",)),
    ("procedures: several hands, one purpose", ("model", "stored")),
    ("procedures", ("previews",)),
    ("procedures", ("uploads", "maintenance", "rebuild")),
    ("procedures", ("sources", "stats", "conversation")),
    ("procedures", ("keeping",)),
    ("procedures", ("settling", "mending")),
    ("procedures", ("run", "underway", "together")),
    ("procedures", ("drawing", "replay", "recovery")),
    ("procedures", ("job", "recipes")),
    ("the studio", ("studio",)),
    ("verbs of more than plain calls", ("edits", "converting")),
    ("beside the house: a stand-in for the outside world", ("emulator",)),
    ("opening", ("opening",)),
    ("doors: what is said", ("answers",)),
    ("doors", ("reports",)),
    ("doors: the tools", ("tools",)),
    ("doors: the pipes to a client", ("lines",)),
    ("doors: the server", ("server",)),
    ("doors: how it is served", ("serving",)),
    ("doors: the demo", ("tour", "snapshot")),
    ("doors: the demo", ("sheet",)),
    ("doors: the demo", ("demo",)),
    ("doors: the command line", ("commands",)),
    ("doors", ("__main__",)),
)

INSIDE: dict[str, tuple[str, ...]] = {
    # What a module may import inside a function, since the list of tools must not wait for it.
    "__main__": ("nanobanana_mcp", "pydantic"),
    "commands": ("nanobanana_mcp",),
    "server": ("nanobanana_mcp.opening",),
    "opening": ("nanobanana_mcp.emulator",),
    "settings": ("difflib",),
    "condition": ("re2",),
    "tools": (
        "difflib",
        *(f"nanobanana_mcp.{module}" for module in ("answers", "reports", "edits", "converting", "policy")),
    ),
    "library": ("alembic",),
    # What few calls need.
    "keeping": ("nanobanana_mcp.pixels.export",),
    "mending": ("nanobanana_mcp.pixels.patch",),
    "pixels": ("numpy", "pillow_heif"),
}

DOORS_OF: dict[str, tuple[str, ...]] = {
    # Each foreign library, and the modules that may know it.
    "alembic": ("library",),
    "anyio": ("tools", "lines", "serving", "demo"),
    "dotenv": ("settings",),
    "fastmcp": ("tools", "server", "serving", "demo", "tour"),
    "filelock": ("library", "storage"),
    "google": ("gemini",),
    "httpx2": ("gemini", "emulator", "opening"),
    "mcp": ("tools", "lines", "server", "serving", "demo", "tour"),
    "numpy": ("pixels", "emulator", "snapshot"),
    "PIL": ("pixels", "emulator", "snapshot"),
    "pillow_heif": ("pixels",),
    "platformdirs": ("settings",),
    "pybase64": ("gemini", "emulator"),
    "pydantic": ("settings", "tools", "emulator", "__main__"),
    "pydantic_core": ("gemini", "emulator"),
    "pydantic_settings": ("settings",),
    "re2": ("condition",),
    "rich": ("demo", "sheet", "commands"),
    "sqlalchemy": ("library",),
    "sqlite3": ("library",),
    "starlette": ("emulator", "serving"),
    "uvicorn": ("emulator", "serving"),
    "yaml": ("strict_yaml",),
}

MODEL_IDS = ("tiers", "emulator")
"""Where the id of a model may be written."""

LONGEST = 500

ROWS = {module: number for number, (_, row) in enumerate(FLOORS) for module in row}


@dataclass(frozen=True, kw_only=True)
class Import:
    """One import statement's module, where it stands, and whether that is inside a function."""

    where: str
    module: str
    name: str
    inside: bool


def _module_of(path: Path) -> str:
    """The name by which a file stands in the tables: its package's, if it is in one."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


@cache
def _imports(path: Path) -> list[Import]:
    found: list[Import] = []

    def walk(node: ast.AST, inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            where = f"{path.relative_to(ROOT)}:{getattr(child, 'lineno', 0)}"
            if isinstance(child, ast.Import):
                found.extend(Import(where=where, module=a.name, name=a.name, inside=inside) for a in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{where}: write the whole name of what is imported."
                module = child.module or ""
                found.extend(
                    Import(where=where, module=module, name=f"{module}.{a.name}", inside=inside) for a in child.names
                )
            walk(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    walk(_tree(path), False)
    return found


def _ours(one: Import) -> str | None:
    """The module of ours that is imported; None for others' and for the version."""
    parts = one.name.split(".")
    if parts[0] != "nanobanana_mcp" or len(parts) == 1 or parts[1].startswith("__version"):
        return None
    return parts[1]


def _is_below(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _each_import() -> Iterator[tuple[str, Import]]:
    for path in _files():
        for one in _imports(path):
            yield _module_of(path), one


def _said(problems: list[str]) -> None:
    assert not problems, "\n" + "\n".join(problems)


def test_every_module_has_a_floor() -> None:
    _said(
        [
            f"nanobanana_mcp/{module} stands on no floor. Enter it in FLOORS at the top of {HERE}: in the lowest row "
            "that is above everything it imports."
            for module in sorted({_module_of(path) for path in _files()} - ROWS.keys())
        ]
    )


def test_every_entry_of_the_tables_is_a_module() -> None:
    there = {_module_of(path) for path in _files()}
    entered = set(ROWS) | set(INSIDE) | {module for modules in DOORS_OF.values() for module in modules}
    _said([f"{module} is no longer in nanobanana_mcp; take it out of {HERE}." for module in sorted(entered - there)])


def test_imports_go_down() -> None:
    problems = []
    for module, one in _each_import():
        other = _ours(one)
        if other is None or other == module or module not in ROWS or other not in ROWS:
            continue
        if ROWS[other] >= ROWS[module]:
            floors = f"{module} is on '{FLOORS[ROWS[module]][0]}', {other} on '{FLOORS[ROWS[other]][0]}'"
            problems.append(f"{one.where}: {module} may not import {other} ({floors}). Import from lower rows only.")
    _said(problems)


def test_the_stand_in_for_gemini_knows_nothing_of_the_studio() -> None:
    _said(
        [
            f"{one.where} imports {one.name}"
            for m, one in _each_import()
            if m == "emulator" and _ours(one) not in (None, m)
        ]
    )


def test_imports_stand_at_the_top() -> None:
    _said(
        [
            f"{one.where}: {one.name} is imported inside a function. Move it to the top, or enter it in INSIDE in {HERE}."
            for module, one in _each_import()
            if one.inside and not _is_below(one.name, INSIDE.get(module, ()))
        ]
    )


def test_each_foreign_library_has_its_doors() -> None:
    problems = []
    for module, one in _each_import():
        library = one.module.split(".")[0]
        if library == "nanobanana_mcp" or (library in sys.stdlib_module_names and library not in DOORS_OF):
            continue
        if library not in DOORS_OF:
            problems.append(f"{one.where}: {library} is new here. Enter it and its one door in DOORS_OF in {HERE}.")
        elif module not in DOORS_OF[library]:
            problems.append(f"{one.where}: {library} is known to {', '.join(DOORS_OF[library])}, not to {module}.")
    _said(problems)


def test_the_steps_of_the_database_know_only_its_tables() -> None:
    allowed = ("alembic", "sqlalchemy", "nanobanana_mcp.library")
    _said(
        [
            f"{one.where} imports {one.name}"
            for path in sorted((ROOT / "migrations").rglob("*.py"))
            for one in _imports(path)
            if not _is_below(one.name, allowed) and one.name.split(".")[0] not in sys.stdlib_module_names
        ]
    )


def test_model_ids_have_one_home() -> None:
    spoken_id = re.compile(r"\bgemini-(\d|nano|pro|flash)|\bnano-banana-\w")
    _said(
        [
            f"{path.relative_to(ROOT)}:{node.lineno}: {node.value!r} belongs in tiers.py."
            for path in _files()
            if _module_of(path) not in MODEL_IDS
            for node in ast.walk(_tree(path))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and spoken_id.search(node.value)
        ]
    )


def test_no_file_is_longer_than_a_sitting() -> None:
    paths = [path for folder in ("nanobanana_mcp", "migrations", "tests") for path in (ROOT / folder).rglob("*.py")]
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in paths}
    _said(
        [
            f"{path.relative_to(ROOT)} has {length} lines; at {LONGEST} a module becomes a package of the same name."
            for path, length in sorted(lengths.items())
            if length > LONGEST
        ]
    )


def test_every_module_says_its_one_job() -> None:
    paths = (*PACKAGE.rglob("*.py"), *(ROOT / "migrations").rglob("*.py"))
    _said(
        [
            f"{path.relative_to(ROOT)} begins without a docstring."
            for path in paths
            if not ast.get_docstring(_tree(path))
        ]
    )


def test_importing_a_package_imports_nothing() -> None:
    _said(
        [
            f"{one.where} imports {one.name}; a package's __init__ imports nothing."
            for path in PACKAGE.rglob("__init__.py")
            for one in _imports(path)
        ]
    )


def _too_broad(node: ast.AST) -> bool:
    broad = {"Exception", "BaseException"}
    if isinstance(node, ast.ExceptHandler):
        if node.type is None:
            return True
        return any(isinstance(part, ast.Name) and part.id in broad for part in ast.walk(node.type))
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
        return any(isinstance(argument, ast.Name) and argument.id in broad for argument in node.args)
    return False


CATCHES_EVERYTHING = {
    "nanobanana_mcp/recovery.py": 1,  # what befalls one paid call keeps no other from coming home; logged, and told
}


def test_a_bug_looks_like_a_bug() -> None:
    found: dict[str, list[int]] = {}
    for path in (*_files(), *sorted((ROOT / "migrations").rglob("*.py"))):
        for node in ast.walk(_tree(path)):
            if _too_broad(node):
                found.setdefault(str(path.relative_to(ROOT)), []).append(getattr(node, "lineno", 0))
    _said(
        [
            f"{path}: lines {lines} catch everything; name what is expected."
            for path, lines in found.items()
            if len(lines) > CATCHES_EVERYTHING.get(path, 0)
        ]
    )


@pytest.mark.parametrize("module", ["nanobanana_mcp.server", "nanobanana_mcp.serving"])
def test_the_list_of_tools_does_not_wait_for_the_studio(module: str) -> None:
    heavy = (
        "google.genai",
        "sqlalchemy",
        "PIL",
        "alembic",
        "numpy",
        "nanobanana_mcp.studio",
        "nanobanana_mcp.emulator",
    )
    code = f"import sys, {module}; print(*(name for name in {heavy!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []
