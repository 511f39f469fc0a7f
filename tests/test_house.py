"""The house has rooms and floors, one door for each foreign library, and its exceptions by name."""

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

FLOOR = {
    # A room imports from lower floors only; rooms of one floor do not know each other.
    "domain": 1,
    **dict.fromkeys(("settings", "gemini", "pixels", "storage", "library"), 2),
    "jobs": 3,
    "studio": 4,
    "gallery": 5,
    "server": 6,
    **dict.fromkeys(("cli", "__main__"), 7),
}
BESIDE = "emulator"
"""Knows nothing of ours; only `studio/open.py` and the command line know it."""

DOORS = ("gallery", "server", "cli", "__main__")
BEHIND_A_DOOR = ("studio", "domain", "settings")
"""The rooms that a door may know; the command line also starts the doors below it."""

KNOWN_TO = {"gemini": ("studio",)}
"""A room of a lower floor that not every room above may know: jobs know a model by its protocol in the domain."""

EXCEPTIONS = {
    ("cli/demo/sheet.py", "pixels"): "the demo's contact sheet is not the studio's",
    ("cli/doctor.py", "storage"): "it says why a file of another program is left alone",
    ("cli/install/install.py", "storage"): "files of other programs are changed as safely as our own",
    ("cli/keyfile.py", "storage"): "the key is kept as safely as the studio's own state",
    ("cli/install/verb.py", "storage"): "it says why a file of another program is left alone",
    ("server/arguments.py", "storage"): "the spellings of a path are put right once, before anything judges a call",
    ("server/asking.py", "gallery"): "a person is sent to the gallery to paint",
    ("server/inside.py", "gallery"): "the gallery spends money through the server's tools",
    (
        "server/tools/generate.py",
        "jobs",
    ): "the studio hands a planned job to the tool, which shows its price before it is carried out",
}

INSIDE = {
    # What may be imported inside a function, since the list of tools or most calls must not wait for it.
    "__main__": ("nanobanana_mcp", "pydantic"),
    "cli": ("nanobanana_mcp",),
    "server": ("difflib", "nanobanana_mcp.gallery", "nanobanana_mcp.studio"),
    "studio": ("nanobanana_mcp.emulator", "difflib", "nanobanana_mcp.domain.policy", "nanobanana_mcp.studio.view"),
    "library": ("alembic",),
    "jobs": ("nanobanana_mcp.pixels",),
    "pixels": ("numpy", "pillow_heif"),
    "settings": ("difflib",),
    "domain": ("re2",),
}

DOORS_OF = {
    # Each foreign library, and the rooms that may know it; the emulator stands in for the world outside.
    "alembic": ("library",),
    "anyio": ("server", "cli"),
    "cyclopts": ("cli",),
    "dotenv": ("settings",),
    "fastmcp": ("server", "cli"),
    "filelock": ("library", "storage"),
    "google": ("gemini",),
    "httpx2": ("gemini", "emulator", "studio"),
    "jinja2": ("gallery",),
    "mcp": ("server", "cli"),
    "numpy": ("pixels", "emulator", "cli"),
    "PIL": ("pixels", "emulator", "cli"),
    "pillow_heif": ("pixels",),
    "platformdirs": ("settings",),
    "pybase64": ("gemini", "emulator"),
    "pydantic": ("settings", "server", "domain", "emulator", "__main__", "cli"),
    "pydantic_core": ("gemini", "emulator"),
    "pydantic_settings": ("settings",),
    "re2": ("domain",),
    "rich": ("cli",),
    "ruamel": ("domain",),
    "sqlalchemy": ("library",),
    "sqlite3": ("library",),
    "starlette": ("emulator", "gallery"),
    "uvicorn": ("emulator", "gallery"),
}

CATCHES_EVERYTHING = {
    "nanobanana_mcp/jobs/recovery.py": 1,  # an error in one paid call must not stop the recovery of the others; it is logged and reported
}

LONG: dict[str, str] = {}
"""Files over 500 lines, each with the reason why it is one subject."""


MANY = 8
"""Parameters of a function, self apart; a tool has those that its callers need."""

WIDE = {
    "gemini/client.py Gemini.__init__": "the two ways to Google, each with its own settings",
    "studio/studio.py Studio.__init__": "everything is handed in, so that a test hands in a stand-in",
}


@dataclass(frozen=True, kw_only=True)
class Import:
    """One import, where it stands, and whether that is inside a function."""

    path: Path
    line: int
    module: str
    name: str
    inside: bool

    @property
    def where(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    @property
    def room(self) -> str:
        return _room(self.path)

    @property
    def ours(self) -> str | None:
        """The room of ours that is imported; None for others' modules and for the version."""
        parts = self.name.split(".")
        ours = parts[0] == "nanobanana_mcp" and len(parts) > 1 and not parts[1].startswith("__version")
        return parts[1] if ours else None


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


@cache
def _imports(path: Path) -> tuple[Import, ...]:
    found: list[Import] = []

    def walk(node: ast.AST, inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                module = (child.module or "") if isinstance(child, ast.ImportFrom) else ""
                assert isinstance(child, ast.Import) or child.level == 0, f"{path}: write the whole name."
                for alias in child.names:
                    name = f"{module}.{alias.name}" if module else alias.name
                    found.append(Import(path=path, line=child.lineno, module=module or name, name=name, inside=inside))
            walk(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    walk(_tree(path), False)
    return tuple(found)


def _files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def _all_imports() -> Iterator[Import]:
    for path in _files():
        yield from _imports(path)


def _is_below(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _said(problems: list[str]) -> None:
    assert not problems, "\n" + "\n".join(problems)


def test_the_package_has_the_rooms_of_the_plan() -> None:
    there = {_room(path) for path in _files()}
    assert there == {*FLOOR, BESIDE}
    assert len(there - {"__main__"}) <= 12


def test_imports_go_down_and_doors_know_the_studio_alone() -> None:
    problems = []
    for one in _all_imports():
        other = one.ours
        if other in (None, one.room) or (str(one.path.relative_to(PACKAGE)), other) in EXCEPTIONS:
            continue
        if one.room == BESIDE:
            problems.append(f"{one.where}: the emulator stands in for Gemini and knows nothing of ours")
        elif other == BESIDE:
            if one.path != PACKAGE / "studio" / "open.py" and one.room != "cli":
                problems.append(f"{one.where}: only studio/open.py and the command line know the emulator")
        elif one.room in ("cli", "__main__") and other in DOORS:
            continue
        elif one.room not in KNOWN_TO.get(other, FLOOR):
            problems.append(f"{one.where}: {one.room} may not know {other}")
        elif FLOOR[other] >= FLOOR[one.room] or (one.room in DOORS and other not in BEHIND_A_DOOR):
            problems.append(f"{one.where}: {one.room} may not import {one.name}")
    _said(problems)


def test_every_exception_is_still_one() -> None:
    there = {(str(one.path.relative_to(PACKAGE)), one.ours) for one in _all_imports()}
    assert set(EXCEPTIONS) <= there
    assert set(DOORS_OF) <= {one.module.split(".")[0] for one in _all_imports()}


def test_no_module_imports_itself_by_way_of_others() -> None:
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in _files()
    }
    needs = {
        module: {one.name if one.name in modules else one.module for one in _imports(path) if not one.inside}
        for module, path in modules.items()
    }
    lazy = {module for module in modules if "TYPE_CHECKING" in modules[module].read_text("utf-8")}
    done: set[str] = set()

    def follow(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a circle: {' > '.join((*way, module))}"
        if module in done or module not in needs or module in lazy:
            return
        for other in sorted(needs[module]):
            follow(other, (*way, module))
        done.add(module)

    for module in needs:
        follow(module, ())


def test_imports_stand_at_the_top() -> None:
    _said(
        [
            f"{one.where}: {one.name} is imported inside a function; move it up, or enter it in INSIDE"
            for one in _all_imports()
            if one.inside and not _is_below(one.name, INSIDE.get(one.room, ()))
        ]
    )


def test_each_foreign_library_has_its_doors() -> None:
    problems = []
    for one in _all_imports():
        library = one.module.split(".")[0]
        if library == "nanobanana_mcp" or (library in sys.stdlib_module_names and library not in DOORS_OF):
            continue
        if one.room not in DOORS_OF.get(library, ()):
            problems.append(f"{one.where}: {library} is not known to {one.room}; see DOORS_OF")
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
            f"{path.relative_to(ROOT)}:{node.lineno}: {node.value!r} belongs in domain/catalog.py."
            for path in _files()
            if _room(path) != BESIDE and path != PACKAGE / "domain" / "catalog.py"
            for node in ast.walk(_tree(path))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and spoken_id.search(node.value)
        ]
    )


def test_a_file_is_one_subject() -> None:
    paths = [path for folder in ("nanobanana_mcp", "migrations", "tests") for path in (ROOT / folder).rglob("*.py")]
    long = {str(path.relative_to(ROOT)) for path in paths if len(path.read_text("utf-8").splitlines()) > 500}
    assert long == set(LONG), "a file over 500 lines stands in LONG with its reason, or becomes a package"


def test_every_module_says_its_one_job_and_a_package_imports_nothing() -> None:
    paths = [*PACKAGE.rglob("*.py"), *(ROOT / "migrations").rglob("*.py")]
    _said(
        [f"{path.relative_to(ROOT)} begins without a docstring" for path in paths if not ast.get_docstring(_tree(path))]
    )
    _said([one.where for path in PACKAGE.rglob("__init__.py") for one in _imports(path)])


def _too_broad(node: ast.AST) -> bool:
    broad = {"Exception", "BaseException"}
    if isinstance(node, ast.ExceptHandler):
        parts = [] if node.type is None else list(ast.walk(node.type))
        return node.type is None or any(isinstance(part, ast.Name) and part.id in broad for part in parts)
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
        return any(isinstance(argument, ast.Name) and argument.id in broad for argument in node.args)
    return False


def test_a_bug_looks_like_a_bug() -> None:
    found: dict[str, int] = {}
    for path in (*_files(), *sorted((ROOT / "migrations").rglob("*.py"))):
        count = sum(_too_broad(node) for node in ast.walk(_tree(path)))
        if count:
            found[str(path.relative_to(ROOT))] = count
    assert found == CATCHES_EVERYTHING, "name what is expected, or list the place with its reason"


@pytest.mark.parametrize("module", ["nanobanana_mcp.server.app", "nanobanana_mcp.server.stdio"])
def test_the_list_of_tools_does_not_wait_for_the_studio(module: str) -> None:
    ours = ("nanobanana_mcp.studio.studio", "nanobanana_mcp.emulator", "nanobanana_mcp.jobs", "nanobanana_mcp.gallery")
    heavy = ("google.genai", "sqlalchemy", "PIL", "alembic", "numpy", "ruamel", *ours)
    code = f"import sys, {module}; print(*(name for name in {heavy!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.split() == []


def test_a_function_that_others_call_has_few_parameters() -> None:
    wide = set()
    for path in _files():
        owners: list[ast.Module | ast.ClassDef] = [_tree(path)]
        owners += [node for node in _tree(path).body if isinstance(node, ast.ClassDef)]
        for owner in owners:
            for node in owner.body:
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    continue
                if node.name.startswith("_") and node.name != "__init__":
                    continue
                names = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                if len([name for name in names if name != "self"]) > MANY:
                    of = f"{owner.name}." if isinstance(owner, ast.ClassDef) else ""
                    wide.add(f"{path.relative_to(PACKAGE)} {of}{node.name}")
    assert {one for one in wide if not one.startswith("server/tools/")} == set(WIDE)
