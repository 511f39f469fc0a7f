"""The command line: what it says, and with which exit code."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nanobanana_mcp import __version__
from nanobanana_mcp.cli.main import run


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"nanobanana {__version__}\n"


def test_help_tells_how_to_add_the_server_to_claude_code_and_names_the_verbs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["--help"]) == 0
    words = capsys.readouterr().out
    assert "claude mcp add nanobanana" in words
    assert "demo " in words
    assert "emulator " in words


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["paint"], "paint"),
        (["--frob"], "--frob"),
        (["demo", "extra"], "extra"),
        (["demo", "--liv"], "--liv"),
        (["emulator"], "--port"),
        (["emulator", "--port", "http"], "'http' is not a port from 0 to 65535"),
        (["emulator", "--port", "65536"], "'65536' is not a port"),
    ],
)
def test_what_is_not_understood_is_one_sentence_that_names_it_and_the_way_out(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert named in err
    assert err.count("\n") == 1
    assert "--help" in err


def test_a_taken_port_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run(["emulator", "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot be listened on" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_itself_passes_the_exit_code_on() -> None:
    done = subprocess.run([sys.executable, "-m", "nanobanana_mcp", "paint"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "paint" in done.stderr


def test_a_live_demo_without_a_key_says_what_to_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "--live", "--yes", "--output", str(tmp_path / "new")]) == 2
    assert "Set GEMINI_API_KEY" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_live_demo_is_not_an_emulated_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NANOBANANA_BACKEND", "emulator")
    assert run(["demo", "--live", "--yes", "--output", str(tmp_path / "new")]) == 2
    assert "NANOBANANA_BACKEND is emulator" in capsys.readouterr().err


def test_a_live_demo_says_its_price_and_spends_nothing_unless_somebody_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "never-sent")
    assert run(["demo", "--live", "--output", str(tmp_path / "new")]) == 2
    out = capsys.readouterr().out
    assert "one picture and one edit with gemini-nano-banana-2.1 and costs about $0.09" in out
    assert "--yes" in out
    assert not (tmp_path / "new").exists()


def test_the_price_of_a_model_that_nobody_knows_is_said_to_be_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "never-sent")
    monkeypatch.setenv("NANOBANANA_FLASH_MODEL", "gemini-9-image")
    assert run(["demo", "--live", "--output", str(tmp_path / "new")]) == 2
    assert "costs an amount that is not known for gemini-9-image" in capsys.readouterr().out


def test_a_demo_leaves_a_folder_that_exists_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "contact-sheet.png").write_text("mine")
    assert run(["demo", "--output", str(tmp_path)]) == 2
    assert f"{tmp_path} exists already; name a new folder with --output." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["contact-sheet.png"]


def test_a_demo_that_cannot_write_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(["demo", "--output", str(tmp_path / "file" / "new")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("program", ["not-there", "leaves"])
def test_a_server_that_does_not_start_is_said_in_words(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / program
    if program == "leaves":
        path.write_text("#!/bin/sh\nexit 3\n")
        path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    assert run(["demo", "--output", str(tmp_path / "new")]) == 1
    assert "The server did not start" in capsys.readouterr().err


def test_each_verb_says_what_it_does_in_the_list_and_more_when_it_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    listed = capsys.readouterr().out
    assert run(["rebuild", "--help"]) == 0
    asked = capsys.readouterr().out
    assert "Make a new library" in listed
    assert "never deleted" not in listed
    assert "never deleted" in asked
    assert "--yes" in asked


@pytest.mark.slow
def test_a_server_is_started_without_the_command_line() -> None:
    code = (
        "import sys, nanobanana_mcp.server.stdio; print('cyclopts' in sys.modules, 'nanobanana_mcp.cli' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
