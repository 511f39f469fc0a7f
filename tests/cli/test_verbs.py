"""The verbs of the command line: the tools' own arguments, data on stdout, words on stderr, and an exit code that says who can help."""

import inspect
import io
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from nanobanana_mcp.cli import look as cli_look
from nanobanana_mcp.cli import outcome, pictures, upkeep
from nanobanana_mcp.cli.main import VERBS, run
from nanobanana_mcp.cli.wording import VERB_OF
from nanobanana_mcp.domain.terms import TOOLS
from nanobanana_mcp.emulator.control import Behaviour, Block, Drop
from nanobanana_mcp.server.tools import edit, generate, library, look
from tests.support.fakes import photo
from tests.support.processes import wait_until
from tests.support.world import World, world

DOCS = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text("utf-8")
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The user's folder, in which the shell is, with a Gemini that charges; nothing of a verb outlives its test."""
    level = logging.getLogger("fastmcp").level
    with world(tmp_path) as made:
        monkeypatch.delenv("CLAUDE_PROJECT_DIR", raising=False)
        for name, value in made.environment().items():
            if name not in ("PATH", "CLAUDE_PROJECT_DIR"):
                monkeypatch.setenv(name, value)
        for name in ("NANOBANANA_STRUCTURED", "NANOBANANA_PREVIEW_PX", "NANOBANANA_TOOLS"):
            monkeypatch.setenv(name, "")
        monkeypatch.setattr("nanobanana_mcp.studio.checkup.PYPI", "http://127.0.0.1:9/nobody")
        monkeypatch.chdir(made.project)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        yield made
    logging.getLogger("fastmcp").setLevel(level)


def send(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def command(at: World, *arguments: str | bytes, **options: object) -> "subprocess.Popen[bytes]":
    """The command as a process of its own, in the user's folder."""
    environment = at.environment()
    del environment["CLAUDE_PROJECT_DIR"]
    process: subprocess.Popen[bytes] = subprocess.Popen(
        [sys.executable, "-m", "nanobanana_mcp", *arguments],
        cwd=at.project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **{"stdin": subprocess.DEVNULL, **options},  # type: ignore[call-overload]  # what Popen takes
    )
    return process


@pytest.mark.parametrize(
    ("verb", "tool", "decided"),
    [
        (pictures.generate, generate.generate_image, set()),
        (pictures.edit, generate.generate_image, {"mode"}),
        (pictures.region, edit.edit_region, set()),
        (pictures.extend, edit.extend_image, set()),
        (pictures.cutout, edit.remove_background, set()),
        (pictures.convert, edit.convert_image, set()),
        (cli_look.find, look.find_images, set()),
        (cli_look.view, look.view_image, set()),
        (upkeep.upload, library.upload_file, set()),
        (upkeep.stats, library.output_stats, set()),
        (upkeep.maintain, library.maintenance, set()),
    ],
)
def test_a_verb_takes_all_that_its_tool_takes_under_the_same_names(
    verb: Callable[..., int], tool: Callable[..., object], decided: set[str]
) -> None:
    own = {"file", "json", "yes"} | ({"image"} if verb is pictures.edit else set())
    own |= {"output_path"} if verb is cli_look.view else set()
    assert (
        set(inspect.signature(verb).parameters) - own
        == set(inspect.signature(tool).parameters) - decided - {"caller"} - own
    )


@pytest.mark.slow
def test_stdout_has_paths_alone_and_stderr_the_words(at: World, capsys: Capture) -> None:
    assert run(["generate", "a red fox", "-n", "2", "-o", "foxes/"]) == outcome.MADE
    out, err = capsys.readouterr()
    paths = [Path(line) for line in out.splitlines()]
    assert [path.parent for path in paths] == [at.project / "foxes"] * 2
    assert all(path.is_file() for path in paths)
    assert "Made 2 pictures" in err


def test_json_is_the_structure_of_the_tool(at: World, capsys: Capture) -> None:
    assert run(["generate", "a red fox", "--json"]) == outcome.MADE
    made = json.loads(capsys.readouterr().out)
    assert made["generation_prompt"] == "a red fox"
    assert Path(made["file_paths"][0]).is_file()
    assert run(["show", made["images"][0]["id"], "--json"]) == outcome.MADE
    shown = json.loads(capsys.readouterr().out)
    assert shown["image"]["prompt"] == "a red fox"
    assert shown["image"]["cost_usd"] == made["cost_usd"]


def test_show_tells_the_prompt_the_cost_and_the_lineage(at: World, capsys: Capture) -> None:
    assert run(["edit", "holiday.jpg", "make it evening", "--json"]) == outcome.MADE
    made = json.loads(capsys.readouterr().out)["images"][0]
    assert run(["show", made["id"]]) == outcome.MADE
    words = capsys.readouterr().out
    assert "Prompt: make it evening" in words
    assert "Cost: " in words
    assert f"made from {made['parents'][0]} imported, {at.project / 'holiday.jpg'}" in words


def test_a_terminal_is_shown_the_picture_and_its_lineage_as_a_tree(
    at: World, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert run(["convert", "holiday.jpg", "--width", "64", "--json"]) == outcome.MADE
    first = json.loads(capsys.readouterr().out)["images"][0]
    assert run(["convert", first["path"], "--width", "32"]) == outcome.MADE
    capsys.readouterr()
    assert run(["convert", first["path"], "--width", "16", "--json"]) == outcome.MADE
    smallest = json.loads(capsys.readouterr().out)["images"][0]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run(["show", first["id"]]) == outcome.MADE
    words = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
    tree = [line.rstrip() for line in words.split("\n\n", 1)[1].splitlines()]
    assert tree[0].startswith(first["id"]) and first["path"] in tree[0]
    assert tree[1] == "\u251c\u2500\u2500 made from"
    assert tree[2].startswith(f"\u2502   \u2514\u2500\u2500 {first['parents'][0]}")
    assert tree[3] == "\u2514\u2500\u2500 source of"
    assert len(tree) == 6 and any(smallest["id"] in line for line in tree[4:])
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm-kitty")
    assert run(["show", smallest["id"]]) == outcome.MADE
    assert capsys.readouterr().out.startswith("\x1b_Ga=T,f=100")


@pytest.mark.slow
def test_what_tools_say_to_models_is_said_to_a_shell_in_its_own_words(at: World, capsys: Capture) -> None:
    assert run(["generate", "x"]) == outcome.MADE
    old = ["maintain", "cleanup_local", "--max-age-hours", "0", "--keep-count", "0"]
    capsys.readouterr()
    assert run(old) == outcome.MADE
    assert capsys.readouterr().out.endswith("nothing was changed. --no-dry-run does exactly this.\n")


def test_every_tool_is_known_by_its_verb() -> None:
    assert set(VERB_OF) == TOOLS and set(VERB_OF.values()) <= set(VERBS)


def test_a_file_that_exists_is_never_overwritten(at: World, capsys: Capture) -> None:
    mine = photo(at.project / "out" / "fox.jpg").read_bytes()
    assert run(["convert", "holiday.jpg", "--width", "32", "-o", "out/fox.jpg"]) == outcome.MADE
    assert capsys.readouterr().out == f"{at.project / 'out' / 'fox-2.jpg'}\n"
    assert (at.project / "out" / "fox.jpg").read_bytes() == mine


@pytest.mark.slow
@pytest.mark.parametrize("way", ["--file", "stdin", "-", "editor"])
def test_words_come_from_a_file_from_stdin_or_from_an_editor(
    way: str, at: World, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (at.project / "prompt.txt").write_text("a lighthouse\n")
    arguments = {"--file": ["--file", "prompt.txt"], "-": ["-"]}.get(way, [])
    send(monkeypatch, b"a lighthouse\n")
    if way == "editor":
        editor = at.root / "my editor"
        editor.write_text('#!/bin/sh\necho "a lighthouse" > "$2"\n')
        editor.chmod(0o755)
        monkeypatch.setenv("EDITOR", f"'{editor}' --wait")
        for stream in (sys.stdin, sys.stderr):
            monkeypatch.setattr(stream, "isatty", lambda: True)
    assert run(["generate", *arguments, "--json"]) == outcome.MADE
    assert json.loads(capsys.readouterr().out)["generation_prompt"] == "a lighthouse"


def test_a_picture_on_stdin_is_kept_where_the_lineage_can_name_it(
    at: World, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    data = (at.project / "holiday.jpg").read_bytes()
    send(monkeypatch, data)
    assert run(["convert", "-", "--width", "32", "--dry-run"]) == outcome.MADE
    assert not (at.output / "stdin").exists()
    send(monkeypatch, data)
    assert run(["convert", "-", "--width", "32"]) == outcome.MADE
    assert [path.read_bytes() for path in (at.output / "stdin").iterdir()] == [data]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["generate", "x", "--model-tier", "gold"], '"gold"'),
        (["generate", "x", "-n", "99", "--yes"], "-n: must be at most 20"),
        (["generate", "x", "-n", "few"], "-n takes a whole number, and 'few' is none"),
        (["generate", "x", "--width"], "--width wants a value"),
        (["generate", "a", "red fox"], "'red fox' is more than it takes"),
        (["generate", "x", "--modeltier", "pro"], "was --model-tier meant?"),
        (["generate", "x", "--image-size", "2K"], "use --resolution (1k, 2k, 4k), with --aspect-ratio"),
        (["edit", "holiday.jpg", "x", "--strength", "0.5"], "no such control; say it in words"),
        (["generate", "x", "--box", "1,2,3,4"], "'nanobanana region', 'nanobanana view' have box"),
        (
            ["generate", "x", "--quality", "80"],
            "--output-format jpeg, webp or avif, or an -o that ends in one of these",
        ),
        (["generate", "x", "-o", ".ssh/x.png"], "name another, or leave -o out"),
        (["generate", "x", "--safety", "anger=off"], "safety: 'anger' must be 'harassment'"),
        (["region", "holiday.jpg", "x", "--box", "50", "40", "80", "65"], "commas: --box 50,40,80,65"),
        (["region", "holiday.jpg", "x", "--box", "50,", "40,", "80,", "65"], "commas: --box 50,40,80,65"),
        (["region", "holiday.jpg", "x", "--box", "50,40,80"], "such as --box 10,20,300,400; '50,40,80' is not"),
        (["convert", "holiday.jpg", "--crop", "a,b,c,d"], "--crop takes four numbers in one word"),
        (["region"], "IMAGE is missing"),
        (["maintain"], "OPERATION is missing"),
        (["mantain", "recover"], "there is no verb 'mantain'; was maintain meant?"),
        (["generate", "x", "-n", "9"], "--yes"),
        (["generate"], "empty"),
        (["generate", "x", "--file", "notes.txt"], "not both"),
        (["generate", "x", "-o", "-"], "-o names a file"),
        (["generate", "x", "--safety", "harassment"], "harassment=off"),
        (["edit", "gone.jpg", "x"], "There is no image"),
        (["edit", "-", "-"], "stdin cannot hold both"),
        (["convert", "-x.jpg"], "./-x.jpg"),
        (["convert", os.fsdecode(b"caf\xe9.jpg")], "- < FILE"),
        (["convert", "-"], "nothing came there"),
        (["show", "img_nope"], "'nanobanana stats' lists the recent ones"),
    ],
)
def test_a_request_that_is_wrong_leaves_with_1_and_says_what_to_change(
    arguments: list[str], named: str, at: World, capsys: Capture
) -> None:
    photo(at.project / "-x.jpg")
    assert run(arguments) == outcome.REFUSED
    out, err = capsys.readouterr()
    assert out == ""
    assert named in err
    assert at.emulator.charges == []


def test_what_is_missing_in_the_settings_leaves_with_2(
    at: World, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.delenv("GEMINI_API_KEY")
    assert run(["generate", "x"]) == outcome.SETTINGS
    told = capsys.readouterr().err
    assert "Set GEMINI_API_KEY in the environment (get one" in told and "'nanobanana setup' writes" in told
    monkeypatch.setenv("NANOBANANA_MAX_CONCURRENCY", "zero")
    assert run(["generate", "x"]) == outcome.SETTINGS
    told = capsys.readouterr().err
    assert "NANOBANANA_MAX_CONCURRENCY" in told and "client" not in told and "server" not in told
    monkeypatch.delenv("NANOBANANA_MAX_CONCURRENCY")
    monkeypatch.setenv("GEMINI_API_KEY", "${GEMINI_API_KEY}")
    assert run(["generate", "x"]) == outcome.SETTINGS
    told = capsys.readouterr().err
    assert "GEMINI_API_KEY is not a key but a variable's name. " in told and "client" not in told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "code"), [(Block(), outcome.GEMINI), (Drop(when="after_charge"), outcome.UNKNOWN)]
)
def test_no_picture_and_an_unknown_outcome_have_codes_of_their_own(
    behaviour: Behaviour, code: int, at: World, capsys: Capture
) -> None:
    at.emulator.control.standing = behaviour
    assert run(["generate", "x"]) == code
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_limits_and_the_policy_hold_and_leave_with_4(
    at: World, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert run(["generate", "x", "--max-cost", "0.01"]) == outcome.LIMITED
    assert capsys.readouterr().err.endswith("nothing was sent. Ask for less, or give a higher --max-cost.\n")
    monkeypatch.setenv("NANOBANANA_MAX_USD_PER_HOUR", "0.06")
    assert run(["generate", "a first"]) == outcome.MADE
    assert run(["generate", "a second"]) == outcome.LIMITED
    assert "NANOBANANA_MAX_USD_PER_HOUR" in capsys.readouterr().err
    (at.project / "nanobanana-policy.yaml").write_text('hide: ["*"]\ndefault: deny\n')
    assert run(["convert", "holiday.jpg"]) == outcome.LIMITED
    assert run(["show", "img_0123456789abcdef"]) == outcome.LIMITED
    assert "olicy" in capsys.readouterr().err
    assert len(at.emulator.charges) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "made"), [(b"y\n", 5), (b"\n", 0)])
def test_many_pictures_are_made_when_somebody_agrees(
    answer: bytes, made: int, at: World, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    send(monkeypatch, answer)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert run(["generate", "x", "-n", "5"]) == (outcome.MADE if made else outcome.REFUSED)
    out, err = capsys.readouterr()
    assert "Make 5 pictures?" in err
    assert len(out.splitlines()) == len(at.emulator.charges) == made


@pytest.mark.slow
def test_a_dear_call_is_asked_about_unless_its_price_was_named(
    at: World, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("NANOBANANA_ASK_ABOVE_USD", "0.02")
    assert run(["generate", "x"]) == outcome.REFUSED
    assert "say --yes" in capsys.readouterr().err
    assert run(["generate", "x", "--max-cost", "0.20"]) == outcome.MADE


def test_a_relative_path_is_meant_from_the_folder_of_the_shell(
    at: World, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("CLAUDE_PROJECT_DIR", str(at.root))
    assert run(["convert", "holiday.jpg", "--width", "32", "-o", "small/"]) == outcome.MADE
    assert capsys.readouterr().out == f"{at.project / 'small' / 'holiday.jpg'}\n"


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_and_nothing_is_written(shell: str, nobody: Path, capsys: Capture) -> None:
    assert run(["completion", shell]) == outcome.MADE
    script = capsys.readouterr().out
    assert "generate" in script
    assert list(nobody.iterdir()) == []
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_models_opens_no_library(nobody: Path, capsys: Capture) -> None:
    assert run(["models", "--json"]) == outcome.MADE
    assert [one["tier"] for one in json.loads(capsys.readouterr().out)["models"]] == ["flash", "pro", "lite"]
    assert list(nobody.iterdir()) == []


def test_the_page_names_every_verb_and_every_exit_code() -> None:
    codes = {value for value in vars(outcome).values() if isinstance(value, int)}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", DOCS, re.MULTILINE)} == codes
    told = set(re.findall(r"^\| `(\w+)` \|", DOCS, re.MULTILINE))
    assert told <= set(VERBS)
    assert {
        name
        for name, (place, _) in VERBS.items()
        if re.search(r"cli\.(pictures|look|upkeep|show|gallery|models|compl)", place)
    } == told


@pytest.mark.slow
def test_ctrl_c_is_a_client_that_hangs_up(at: World) -> None:
    at.emulator.control.paused = True
    with command(at, "generate", "a banana") as process:
        wait_until(lambda: any(":generate" in one.path for one in at.emulator.requests), "the request reached Gemini")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert b"Interrupted" in process.stderr.readline()
        process.send_signal(signal.SIGINT)  # who presses it twice loses nothing either
        at.emulator.control.paused = False
        assert process.stdout is not None
        assert process.stdout.read() == b""
    assert process.returncode == outcome.INTERRUPTED
    assert at.states() == ["saved"]
    with command(at, "generate", "a banana") as again:
        out, err = again.communicate()
    assert Path(out.decode().strip()).is_file()
    assert b"nothing was charged again" in err
    assert len(at.emulator.charges) == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the shell of the examples")
@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"demo", "emulator", "gallery", "paint"}))  # they have their own
def test_the_examples_of_the_help_work(verb: str, at: World, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run([verb, "--help"]) == outcome.MADE
    examples = [
        line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  ") and "nanobanana " in line
    ]
    assert examples
    monkeypatch.setenv("NANOBANANA_BACKEND", "emulator")
    monkeypatch.setenv("MY_KEY", "AIzaSyMADEupMADEupMADEupMADEupMADEup1234")
    (at.project / "key.txt").write_text("AIzaSyMADEupMADEupMADEupMADEupMADEup1234\n")
    if verb in ("find", "rebuild", "show", "view"):  # there has to be something
        assert run(["generate", "a lighthouse", "--json"]) == outcome.MADE
        made = json.loads(capsys.readouterr().out)["images"][0]["id"]
        examples = [re.sub(r"img_\w+", made, example) for example in examples]
    Image.open(Path(__file__).parents[2] / "docs" / "demo.jpg").crop((40, 40, 640, 440)).save("photo.jpg")
    for name in ("other.png", "before.png", "after.png", "downloads/unknown.png"):
        photo(at.project / name)
    (at.project / "prompt.txt").write_text("a lighthouse\n")
    for example in examples:
        code, told = _of_a_shell(example, at) if set(example) & set("|<>$*~;&") else _of_here(example, capsys)
        asks = example == "nanobanana setup"  # where nobody is there to be asked
        assert code in ((0, 3) if verb == "region" else (int(asks),)), (example, told)


def _of_a_shell(example: str, at: World) -> tuple[int, str]:
    """The exit code and stderr of an example that a shell has something to do with."""
    here = shlex.quote(sys.executable)
    ran = subprocess.run(
        ["bash", "-c", f'nanobanana() {{ {here} -m nanobanana_mcp "$@"; }}; set -o pipefail; {example}'],
        cwd=at.project,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return ran.returncode, ran.stderr


def _of_here(example: str, capsys: Capture) -> tuple[int, str]:
    """The exit code and stderr of an example of words alone, without a process of its own."""
    name, *words = shlex.split(example)
    assert name == "nanobanana"
    return run(words), capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full, and descriptors that are closed")
@pytest.mark.parametrize(
    ("ending", "code"), [("| head -1", 0), ("> /dev/full", 1), (">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0)]
)
def test_streams_that_are_closed_or_full_lose_nothing(ending: str, code: int, at: World) -> None:
    line = f"{shlex.quote(sys.executable)} -m nanobanana_mcp convert holiday.jpg --width 32 -o out/ {ending}"
    ran = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], cwd=at.project, capture_output=True, text=True)
    assert ran.returncode == code, ran.stderr
    assert "Traceback" not in ran.stderr
    with Image.open(at.project / "out" / "holiday.jpg") as made:
        assert made.width == 32


def test_find_tells_paths_and_view_saves_what_it_shows_and_overwrites_nothing(at: World, capsys: Capture) -> None:
    assert run(["convert", "holiday.jpg", "--width", "320", "-o", "out/small.png"]) == outcome.MADE
    capsys.readouterr()
    assert run(["find", "--kind", "derived"]) == outcome.MADE
    assert str(at.project / "out" / "small.png") in capsys.readouterr().out
    assert run(["find", "--copy-of", "out/small.png", "--json"]) == outcome.MADE
    found = json.loads(capsys.readouterr().out)
    assert found["images"][0]["recognised_by"] == "the same bytes"
    compared = ["view", "out/small.png", "--compare-with", "holiday.jpg", "--box", "0,0,0.5,0.5", "-o", "seen.jpg"]
    assert run(compared) == outcome.MADE
    out = capsys.readouterr().out
    assert "scaled to 320x240" in out
    assert {path.name for path in at.project.glob("seen*")} == {"seen.jpg", "seen-2.jpg"}
    before = (at.project / "seen.jpg").read_bytes()
    assert run(compared) == outcome.REFUSED
    assert "File exists" in capsys.readouterr().err and (at.project / "seen.jpg").read_bytes() == before
    (at.project / ".private").mkdir()
    assert run(["view", "out/small.png", "-o", ".private/seen.jpg"]) == outcome.REFUSED
    assert "hidden folder" in capsys.readouterr().err and not list((at.project / ".private").iterdir())
    assert run(["view", "out/small.png", "--box", "1,2,3"]) == outcome.REFUSED
    assert "four numbers" in capsys.readouterr().err
