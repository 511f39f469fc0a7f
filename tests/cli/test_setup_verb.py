"""`nanobanana setup`: a key that is asked for unseen, tried for free and kept for one user, and the clients here."""

import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from nanobanana_mcp.cli.install.clients import CLIENTS, Surroundings
from nanobanana_mcp.cli.main import run
from nanobanana_mcp.emulator.app import Emulator
from nanobanana_mcp.gemini import transport
from nanobanana_mcp.settings import config_folder, load_settings

KEY = "AIzaSyCANARYcanaryCANARYcanaryCANARY1234"
OTHER = "AIzaSyOTHERotherOTHERotherOTHERother5678"


@pytest.fixture(autouse=True)
def machine(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    """A machine on which Cursor is, and no other client."""
    around = Surroundings(system="linux", home=nobody, environment={"PATH": ""})
    monkeypatch.setattr(Surroundings, "of_this_machine", lambda: around)
    (nobody / ".cursor").mkdir()
    return around


@pytest.fixture(autouse=True)
def emulator(monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """Answers in Gemini's place, and takes only KEY and OTHER."""
    made, real = Emulator(), transport.open_clients
    made.control.valid_keys = {KEY, OTHER}

    def opened(_transport: Any, **rest: Any) -> Any:
        return real(httpx2.ASGITransport(app=made.app), **rest)

    monkeypatch.setattr("nanobanana_mcp.gemini.client.open_clients", opened)
    return made


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Types for a person: the key where it is asked for unseen, and lines of answers."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def by(key: str, *answers: str) -> None:
        monkeypatch.setattr("getpass.getpass", lambda _prompt: key)
        monkeypatch.setattr(sys, "stdin", Terminal("".join(f"{answer}\n" for answer in answers)))
        monkeypatch.setattr(sys, "stderr", Terminal())

    return by


def file() -> Path:
    return config_folder() / ".env"


def piped(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_a_script_hands_the_key_over_by_stdin_and_it_is_tried_for_free_and_kept_for_one_user(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    piped(monkeypatch, f"{KEY}\n")
    assert run(["setup", "--key-stdin", "--no-clients"]) == 0
    assert load_settings().gemini_api_key.get_secret_value() == KEY
    if os.name == "posix":
        assert stat.S_IMODE(file().stat().st_mode) == 0o600 and stat.S_IMODE(file().parent.stat().st_mode) == 0o700
    assert emulator.charges == [] and {request.method for request in emulator.requests} == {"GET"}
    out, err = capsys.readouterr()
    assert KEY not in out + err and str(file()) in err and "accepts" in err


def test_a_script_hands_the_key_over_by_a_variable_and_installs_into_all_clients(
    machine: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    assert run(["setup", "--key-env", "MY_KEY", "--all-clients"]) == 0
    text = CLIENTS["cursor"].file(machine).read_text()
    assert "nanobanana" in json.loads(text)["mcpServers"] and KEY not in text
    assert run(["setup", "--keep-key", "--client", "codex", "--client", "zed"]) == 0
    assert CLIENTS["codex"].file(machine).is_file() and CLIENTS["zed"].file(machine).is_file()


def test_a_person_is_asked_for_the_key_and_for_each_client(machine: Surroundings, typed: Callable[..., None]) -> None:
    typed(KEY, "")
    assert run(["setup"]) == 0
    assert file().read_text() == f"GEMINI_API_KEY={KEY}\n" and CLIENTS["cursor"].file(machine).is_file()
    typed(OTHER, "n", "n")  # there is a key: it stays
    assert run(["setup"]) == 0 and KEY in file().read_text()
    typed(OTHER, "y", "n")
    assert run(["setup"]) == 0 and file().read_text() == f"GEMINI_API_KEY={OTHER}\n"


def test_a_client_that_a_person_declines_is_left_as_it_is(machine: Surroundings, typed: Callable[..., None]) -> None:
    typed(KEY, "n")
    assert run(["setup"]) == 0 and not CLIENTS["cursor"].file(machine).exists()


def test_a_change_is_shown_once_and_a_client_that_has_the_server_is_not_asked_about(
    machine: Surroundings, typed: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    typed(KEY, "")
    assert run(["setup"]) == 0
    told = capsys.readouterr().out
    assert told.count("mcpServers") == 1 and "--yes does it" not in told and "Done." in told
    typed(KEY, "n")  # to the one question, about the key
    assert run(["setup"]) == 0
    assert "has nanobanana already" in capsys.readouterr().out
    assert sys.stdin.read() == "" and sys.stderr.getvalue().count("?") == 1


def test_the_end_of_input_where_a_key_is_asked_for_is_no_key(
    typed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ctrl_d(_prompt: str) -> str:
        raise EOFError

    typed(KEY)
    monkeypatch.setattr("getpass.getpass", ctrl_d)
    assert run(["setup"]) == 1
    assert sys.stderr.getvalue() == "nanobanana setup: no key was given. Nothing was changed.\n" and not file().exists()


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("", 1, "printable ASCII"),
        ("your-key", 1, "placeholder"),
        ("${GEMINI_API_KEY}", 1, "variable's name"),
        ("AIzaSyWRONGwrongWRONGwrongWRONGwrong0000", 2, "does not accept the key"),
    ],
)
def test_what_is_no_key_or_is_refused_is_not_kept(
    line: str, code: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    piped(monkeypatch, f"{line}\n")
    assert run(["setup", "--key-stdin", "--all-clients"]) == code
    err = capsys.readouterr().err
    assert says in err and "othing was changed" in err and not file().exists()
    assert not line.startswith("AIza") or line not in err


def test_a_key_that_cannot_be_tried_is_kept_only_when_somebody_says_so(
    monkeypatch: pytest.MonkeyPatch, typed: Callable[..., None]
) -> None:
    monkeypatch.setattr("nanobanana_mcp.gemini.client.open_clients", transport.open_clients)
    monkeypatch.setenv("GEMINI_BASE_URL", "http://127.0.0.1:9/")
    piped(monkeypatch, f"{KEY}\n")
    assert run(["setup", "--key-stdin", "--no-clients"]) == 3 and not file().exists()
    typed(KEY, "n")
    assert run(["setup", "--no-clients"]) == 3 and not file().exists()
    typed(KEY, "y")
    assert run(["setup", "--no-clients"]) == 0 and KEY in file().read_text()
    file().unlink()
    piped(monkeypatch, f"{KEY}\n")
    assert run(["setup", "--key-stdin", "--unchecked", "--no-clients"]) == 0 and KEY in file().read_text()


@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_every_other_line_of_the_file_stays_when_the_key_is_changed_and_deleted(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = f"# mine{line}NANOBANANA_PREVIEW_PX=0{line}#GEMINI_API_KEY={line}NANOBANANA_TOOLS='core' # few{line}"
    file().parent.mkdir(parents=True)
    file().write_bytes(f"export google_api_key = 'old'{line}{rest}GEMINI_API_KEY=older{line}".encode())
    piped(monkeypatch, KEY)
    assert run(["setup", "--key-stdin", "--no-clients"]) == 0
    assert file().read_bytes().decode() == f"{rest}GEMINI_API_KEY={KEY}\n"
    assert run(["setup", "--delete-key"]) == 0
    assert (
        file().read_bytes().decode() == rest
        and [one.name for one in file().parent.iterdir() if "bak" in one.name] == []
    )
    assert run(["setup", "--delete-key"]) == 0


@pytest.mark.parametrize("key", ["ab#c'd\\e$f", 'quo"te=$$x`', "AQ.Ab8RN6-x_yz"])
def test_a_key_with_strange_letters_is_read_back_as_it_is(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, key)
    assert run(["setup", "--key-stdin", "--unchecked", "--no-clients"]) == 0
    assert load_settings().gemini_api_key.get_secret_value() == key


def test_a_file_of_settings_that_cannot_be_edited_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file().parent.mkdir(parents=True)
    for data in (f"GEMINI_API_KEY={KEY}\n".encode("utf-16"), b'GEMINI_API_KEY="a\nb"\nX=1\n'):
        file().write_bytes(data)
        piped(monkeypatch, KEY)
        assert run(["setup", "--key-stdin", "--unchecked", "--no-clients"]) == 2
        assert str(file()) in capsys.readouterr().err and file().read_bytes() == data


@pytest.mark.parametrize(
    "arguments",
    [
        ["--key-stdin", "--key-env", "A"],
        ["--delete-key", "--keep-key"],
        ["--keep-key", "--all-clients", "--no-clients"],
        ["--key", KEY],
        [KEY],
        [],
    ],
)
def test_a_key_on_the_command_line_and_what_contradicts_itself_is_refused_and_nobody_waits_for_an_answer(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    piped(monkeypatch, KEY)
    assert run(["setup", *arguments]) == 1
    assert capsys.readouterr().err.count("\n") == 1 and not file().exists()


def test_a_variable_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["setup", "--key-env", "NOT_THERE"]) == 2
    assert "NOT_THERE" in capsys.readouterr().err


def test_another_key_in_the_environment_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", OTHER)
    piped(monkeypatch, KEY)
    assert run(["setup", "--key-stdin", "--no-clients"]) == 0
    assert "comes first" in capsys.readouterr().err
    assert run(["setup", "--delete-key"]) == 0
    assert "GEMINI_API_KEY in the environment" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
def test_on_a_real_terminal_the_key_is_not_shown(nobody: Path) -> None:
    import pty  # not on Windows

    near, far = pty.openpty()
    program = (
        "import sys; from nanobanana_mcp.cli.main import run; sys.exit(run(['setup', '--unchecked', '--no-clients']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=far, stdout=far, stderr=far, start_new_session=True
    ) as process:
        shown = b""
        while b"is not shown" not in shown:
            shown += os.read(near, 1000)
        os.write(near, f"{KEY}\n".encode())
        while b"for you alone" not in shown:
            shown += os.read(near, 1000)
        assert process.wait(60) == 0
    os.close(far)
    os.close(near)
    assert KEY.encode() not in shown and KEY in file().read_text()
