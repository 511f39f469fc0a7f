"""The two archives that are published, built as they are published, and used by somebody who has nothing else."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.rooms import SAFELY

ROOT = Path(__file__).parents[1]
LONGEST_S = 600


def ran(*command: str | Path, cwd: Path, home: Path, **environment: str) -> str:
    """Runs a program and returns what it prints, with no settings but these; its failure is the test's."""
    settings = {"PATH": os.environ["PATH"], "HOME": str(home), **environment}
    ended = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=settings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist, and the wheel that is built from it and from nothing else, as installers do."""
    folder = tmp_path_factory.mktemp("archives")
    build = (sys.executable, "-m", "hatchling", "build", "-d", folder)
    ran(*build, "-t", "sdist", cwd=ROOT, home=folder)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as opened:
        opened.extractall(folder, **SAFELY)
    ran(*build, "-t", "wheel", cwd=unpacked(folder), home=folder)
    return folder


def unpacked(folder: Path) -> Path:
    (found,) = (one for one in folder.iterdir() if one.is_dir())
    return found


@pytest.fixture(scope="module")
def commands(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment that has the wheel, what it depends on, and no checkout."""
    place = tmp_path_factory.mktemp("clean")
    ran(sys.executable, "-m", "venv", "--without-pip", place, cwd=place, home=place)
    (wheel,) = archives.glob("*.whl")
    if importlib.util.find_spec("pip") is not None:
        installer = [sys.executable, "-m", "pip", "--python", place / "bin" / "python", "install"]
    else:
        uv = shutil.which("uv")
        if uv is None:
            pytest.skip("there is neither pip nor uv here to install a wheel")
        installer = [uv, "pip", "install", "--python", place / "bin" / "python"]
    ran(*installer, "--quiet", "--no-index", "--no-deps", wheel, cwd=place, home=place)
    (packages,) = place.glob("lib/python*/site-packages")
    # A path in such a file is searched, and the files of this kind within it are not: so not the checkout either.
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return place / "bin"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the folders of an environment are spelt as on Unix")
def test_the_wheel_alone_draws_from_the_command_line_and_gives_the_demo(commands: Path, tmp_path: Path) -> None:
    def nanobanana(*words: str, name: str = "nanobanana") -> str:
        return ran(commands / name, *words, cwd=tmp_path, home=tmp_path, NANOBANANA_BACKEND="emulator")

    where = ran(
        commands / "python", "-c", "import nanobanana_mcp; print(nanobanana_mcp.__file__)", cwd=tmp_path, home=tmp_path
    )
    assert Path(where.strip()).is_relative_to(commands.parent)
    assert nanobanana("--version") == nanobanana("--version", name="nanobanana-studio")
    made = Path(nanobanana("generate", "a red fox").strip())
    assert made.is_relative_to(tmp_path) and made.is_file()
    assert nanobanana("convert", str(made), "--width", "64", "-o", "small.png").strip() == str(tmp_path / "small.png")
    nanobanana("demo", "--output", "demo")
    assert (tmp_path / "demo" / "contact-sheet.png").is_file()


@pytest.mark.slow
def test_the_sdist_has_all_that_its_own_tests_need(archives: Path, tmp_path: Path) -> None:
    """All its tests are collected, so all that they import is there, and the quickest are run."""
    tests = "domain or test_house or test_manifests or test_packaging or test_readme"
    own = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", tests)
    source = unpacked(archives)
    assert " passed" in ran(*own, cwd=source, home=tmp_path, PYTHONPATH=str(source))


@pytest.mark.slow
def test_the_wheel_has_the_program_its_steps_and_its_types_and_no_tests(archives: Path) -> None:
    (wheel,) = archives.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top.partition("-")[0] for top in tops} == {"nanobanana_mcp", "nanobanana_studio"}
    checkout = {str(path.relative_to(ROOT)) for path in (ROOT / "nanobanana_mcp").rglob("*") if path.is_file()}
    assert {name for name in checkout if "__pycache__" not in name} <= names
    steps = {f"nanobanana_mcp/{path.relative_to(ROOT)}" for path in (ROOT / "migrations").rglob("*.py")}
    assert steps and steps <= names
