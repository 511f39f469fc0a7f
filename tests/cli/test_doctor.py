"""`nanobanana doctor`: every finding with its remedy, an exit code by the worst, and nothing spent or changed."""

import json
import os
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from nanobanana_mcp.cli.doctor import exit_code
from nanobanana_mcp.cli.install.clients import CLIENTS, Surroundings
from nanobanana_mcp.cli.install.verb import install_into
from nanobanana_mcp.cli.main import run
from nanobanana_mcp.domain import catalog
from nanobanana_mcp.emulator.app import Emulator
from nanobanana_mcp.gemini import transport
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.settings import config_folder
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.storage.processes import ProcessLock
from nanobanana_mcp.studio.checkup import Finding

KEY = "AIzaSyCANARYcanaryCANARYcanaryCANARY1234"


@pytest.fixture(autouse=True)
def machine(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    """A machine without clients, where nobody answers for PyPI."""
    around = Surroundings(system="linux", home=nobody, environment={"PATH": ""})
    monkeypatch.setattr(Surroundings, "of_this_machine", lambda: around)
    monkeypatch.setattr("nanobanana_mcp.studio.checkup.PYPI", "http://127.0.0.1:9/nobody")
    return around


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """Answers in Gemini's place, under Gemini's own address."""
    made, real = Emulator(), transport.open_clients

    def opened(_transport: Any, **rest: Any) -> Any:
        return real(httpx2.ASGITransport(app=made.app), **rest)

    monkeypatch.setattr("nanobanana_mcp.gemini.client.open_clients", opened)
    return made


def key_file(text: str = f"GEMINI_API_KEY={KEY}\n") -> Path:
    path = config_folder() / ".env"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return path


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """The exit code, and the findings by their area."""
    capsys.readouterr()
    code = run(["doctor", "--json", *arguments])
    out, err = capsys.readouterr()
    assert KEY not in out + err
    found: dict[str, list[dict[str, Any]]] = {}
    for one in json.loads(out):
        assert set(one) == {"area", "level", "says", "remedy"}
        assert one["remedy"] or one["level"] in ("good", "note"), one
        found.setdefault(one["area"], []).append(one)
    return code, found


def words(findings: list[dict[str, Any]], level: str) -> str:
    return " ".join(f"{one['says']} {one['remedy']}" for one in findings if one["level"] == level)


def test_a_machine_that_is_set_up_has_no_problem_and_asking_costs_nothing(
    emulator: Emulator, capsys: pytest.CaptureFixture[str], nobody: Path
) -> None:
    key_file()
    before = sorted(nobody.rglob("*"))
    code, found = told(capsys)
    assert code == 0 and not [one for area in found.values() for one in area if one["level"] in ("problem", "warning")]
    assert "every model answers" in words(found["gemini"], "good") and "billing" in words(found["gemini"], "note")
    assert [one["level"] for one in found["models"]] == ["good"] * 3
    assert emulator.charges == [] and {request.method for request in emulator.requests} == {"GET"}
    assert sorted(nobody.rglob("*")) == before


def test_in_words_each_finding_is_a_line_and_its_remedy_another(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--offline"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert "PROBLEM  key: There is no key." in lines
    assert "nanobanana setup" in lines[lines.index("PROBLEM  key: There is no key.") + 1]


def test_offline_nobody_is_asked(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    key_file()
    code, found = told(capsys, "--offline")
    assert code == 0 and "gemini" not in found and emulator.requests == [] and len(found["version"]) == 1


@pytest.mark.parametrize(
    ("text", "area", "says"),
    [
        ("", "key", "There is no key"),
        ("GEMINI_API_KEY=${GEMINI_API_KEY:-}\n", "key", "There is no key"),
        ("GEMINI_API_KEY=your-key\n", "key", "placeholder"),
        ("GOOGLE_API_KEY=$OTHER\n", "key", "variable's name"),
        ("NANOBANANA_TIMEOUT_S=soon\n", "settings", "NANOBANANA_TIMEOUT_S"),
        ("NANOBANANA_POLICY=/nowhere.yaml\nNANOBANANA_BACKEND=emulator\n", "policy", "nowhere.yaml"),
        ("NANOBANANA_OUTPUT_DIR=/proc/nobody\nNANOBANANA_BACKEND=emulator\n", "disk", "/proc/nobody"),
        ("NANOBANANA_FLASH_MODEL=gemini-2.5-flash-image\nNANOBANANA_BACKEND=emulator\n", "models", "shut down"),
    ],
)
def test_what_keeps_it_from_working_is_a_problem_with_its_remedy(
    text: str, area: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    key_file(text)
    code, found = told(capsys, "--offline")
    assert code == 2 and says in words(found[area], "problem")


def test_a_key_that_gemini_refuses_is_a_problem_of_the_setup_told_once(
    emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.control.valid_keys = {"another-key"}
    key_file()
    code, found = told(capsys)
    assert code == 2 and len(found["gemini"]) == 1
    assert "does not accept the key" in words(found["gemini"], "problem") and "setup" in words(
        found["gemini"], "problem"
    )


def test_a_model_that_does_not_answer_is_named_with_its_setting(
    emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    key_file(f"GEMINI_API_KEY={KEY}\nNANOBANANA_PRO_MODEL=gemini-9-dream\n")
    code, found = told(capsys)
    assert code == 2 and "NANOBANANA_PRO_MODEL" in words(found["gemini"], "problem")
    assert "not in the table of models" in words(found["models"], "warning")


def test_when_gemini_cannot_be_reached_it_is_not_the_setup_that_is_at_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key_file()
    monkeypatch.setattr("nanobanana_mcp.gemini.client.GEMINI_ADDRESS", "http://127.0.0.1:9/")
    code, found = told(capsys)
    assert code == 3 and "could not be reached" in words(found["gemini"], "problem")
    assert "PyPI" in words(found["version"], "note")


def test_another_address_and_a_proxy_are_named_and_what_a_gateway_does_not_know_is_no_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key_file(f"GEMINI_API_KEY={KEY}\nGEMINI_BASE_URL=http://127.0.0.1:9/\n")
    code, found = told(capsys)
    assert code == 0 and "127.0.0.1:9" in words(found["network"], "note") and found["gemini"][0]["level"] == "warning"
    key_file()
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret-word@proxy.example:8080")
    code, found = told(capsys, "--offline")
    assert "proxy.example" in words(found["network"], "note") and "secret-word" not in json.dumps(found)
    monkeypatch.setenv("HTTPS_PROXY", "ftp://proxy.example")
    code, found = told(capsys, "--offline")
    assert code == 2 and "HTTPS_PROXY" in words(found["network"], "problem")


def test_a_model_that_ends_soon_is_told_with_its_day_and_its_successor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = catalog.BY_ID["gemini-3.1-flash-image"]
    end = datetime.now(UTC).date() + timedelta(days=12)
    monkeypatch.setitem(catalog.BY_ID, old.id, replace(old, shutdown=end))
    key_file(f"GEMINI_API_KEY={KEY}\nNANOBANANA_FLASH_MODEL={old.id}\n")
    code, found = told(capsys, "--offline")
    said = words(found["models"], "warning")
    assert code == 0 and end.isoformat() in said and "12 days" in said and f"to {old.successor}" in said


@pytest.mark.skipif(os.name == "nt", reason="modes as POSIX has them")
def test_a_key_where_others_read_it_or_in_the_shell_alone_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key_file().chmod(0o644)
    assert "chmod 600" in words(told(capsys, "--offline")[1]["key"], "warning")
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    assert "nanobanana setup" in words(told(capsys, "--offline")[1]["key"], "note")


def test_a_setting_that_is_misspelt_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    key_file(f"GEMINI_API_KEY={KEY}\nNANOBANANA_OUTPUT_DIRS=/a\n")
    assert "NANOBANANA_OUTPUT_DIR" in words(told(capsys, "--offline")[1]["settings"], "warning")


def test_the_library_is_looked_at_and_neither_made_nor_upgraded(
    settings: Any, places: Places, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key_file()
    path = settings.database_path
    monkeypatch.setenv("NANOBANANA_OUTPUT_DIR", str(settings.output_dir))
    monkeypatch.setenv("NANOBANANA_DATABASE_URL", settings.database_url)
    assert "is not there yet" in words(told(capsys, "--offline")[1]["library"], "note") and not path.exists()
    Database.open(path).close()
    sign = ProcessLock(places)
    code, found = told(capsys, "--offline")
    assert code == 0 and "can be read" in words(found["library"], "good")
    assert "1 of this program's servers" in words(found["library"], "note")
    sign.close()
    for revision, level, says in (("0001", "note", "older version"), ("9999", "problem", "newer version")):
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        connection.close()
        before = path.read_bytes()
        assert says in words(told(capsys, "--offline")[1]["library"], level) and path.read_bytes() == before
    path.write_bytes(b"\x00damage" * 1000)
    code, found = told(capsys, "--offline")
    assert code == 2 and "nanobanana rebuild" in words(found["library"], "problem")
    path.unlink()
    places.records.mkdir(parents=True)
    (places.records / "img_0000000000000000.json").write_text("{}")
    code, found = told(capsys, "--offline")
    assert code == 2 and "rebuild" in words(found["library"], "problem")


def test_clients_are_told_with_what_they_drop_and_what_is_wrong_with_their_entry(
    machine: Surroundings, capsys: pytest.CaptureFixture[str]
) -> None:
    key_file()
    assert "No known client" in words(told(capsys, "--offline")[1]["clients"], "note")
    for name in ("claude-desktop", "cursor"):
        install_into(CLIENTS[name], machine, yes=True)
    codex = CLIENTS["codex"].file(machine)
    codex.parent.mkdir()
    zed = CLIENTS["zed"].file(machine)
    zed.parent.mkdir()
    zed.write_text("// mine\n{}")
    entry = {"command": "/gone/nanobanana", "env": {"GEMINI_API_KEY": KEY}}
    CLIENTS["cursor"].file(machine).write_text(json.dumps({"mcpServers": {"nanobanana": entry}}))
    code, found = told(capsys, "--offline")
    assert code == 2
    assert "1 MB" in words(found["claude-desktop"], "good")
    assert "/gone/nanobanana" in words(found["cursor"], "problem")
    assert "where other programs read it" in words(found["cursor"], "warning")
    assert "nanobanana install codex" in words(found["codex"], "note")
    assert "comments" in words(found["zed"], "warning")


@pytest.mark.parametrize(
    ("levels", "code"),
    [
        ([("good", False), ("note", False), ("warning", True)], 0),
        ([("problem", True), ("warning", False)], 3),
        ([("problem", True), ("problem", False)], 2),
    ],
)
def test_the_exit_code_is_that_of_the_worst_finding(levels: list[tuple[Any, bool]], code: int) -> None:
    found = [Finding(area="a", level=level, says="s", theirs=theirs) for level, theirs in levels]
    assert exit_code(found) == code
