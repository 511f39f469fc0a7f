"""`nanobanana install`: each client's file as that client wants it, and nothing else in it touched."""

import json
import os
import shutil
import stat
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanobanana_mcp.cli.install import jsonfile, program, tomlfile
from nanobanana_mcp.cli.install.clients import CLIENTS, ClientKind, Surroundings, System
from nanobanana_mcp.cli.install.problem import NotEditable
from nanobanana_mcp.cli.install.verb import install_into, show_clients
from nanobanana_mcp.cli.main import run
from nanobanana_mcp.settings import config_folder
from nanobanana_mcp.storage.others import change_other

SECRET = "sk-somebody-elses-secret"
OTHER = f'{{"command": "npx", "env": {{"API_TOKEN": "{SECRET}"}}, "n": 1.50}}'


@pytest.fixture
def around(nobody: Path) -> Surroundings:
    """A Linux machine with an empty home and no program of a client."""
    return Surroundings(system="linux", home=nobody, environment={"PATH": ""})


def install(client: str, *, around: Surroundings, env: dict[str, str] | None = None, **more: Any) -> int:
    """The exit code of an installation on a machine of the test's own."""
    return install_into(CLIENTS[client], around, environment=env, **{"yes": False} | more)


def placed(kind: ClientKind, around: Surroundings, text: str | bytes) -> Path:
    """A client's file with a text in it."""
    path = kind.file(around)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def entries(kind: ClientKind, path: Path) -> dict[str, Any]:
    """The servers in a client's file, as the client reads it."""
    text = path.read_text("utf-8-sig")
    found = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    return found.get(kind.group, {})  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("client", "system", "path"),
    [
        ("claude-code", "linux", ".claude.json"),
        ("claude-code", "win32", ".claude.json"),
        ("claude-desktop", "linux", ".config/Claude/claude_desktop_config.json"),
        ("claude-desktop", "darwin", "Library/Application Support/Claude/claude_desktop_config.json"),
        ("claude-desktop", "win32", "AppData/Roaming/Claude/claude_desktop_config.json"),
        ("cursor", "linux", ".cursor/mcp.json"),
        ("cursor", "win32", ".cursor/mcp.json"),
        ("vscode", "linux", ".config/Code/User/mcp.json"),
        ("vscode", "darwin", "Library/Application Support/Code/User/mcp.json"),
        ("vscode", "win32", "AppData/Roaming/Code/User/mcp.json"),
        ("codex", "darwin", ".codex/config.toml"),
        ("gemini-cli", "win32", ".gemini/settings.json"),
        ("antigravity", "linux", ".gemini/antigravity/mcp_config.json"),
        ("windsurf", "darwin", ".codeium/windsurf/mcp_config.json"),
        ("zed", "linux", ".config/zed/settings.json"),
        ("zed", "darwin", ".config/zed/settings.json"),
        ("zed", "win32", "AppData/Roaming/Zed/settings.json"),
    ],
)
def test_each_client_is_entered_where_it_looks_on_each_system(
    client: str, system: System, path: str, nobody: Path
) -> None:
    around = Surroundings(system=system, home=nobody, environment={"PATH": ""})
    assert install(client, yes=True, around=around) == 0
    kind = CLIENTS[client]
    assert entries(kind, nobody / path)["nanobanana"]["command"] == program.server_command()[0]


@pytest.mark.parametrize(
    ("client", "variable", "file"),
    [
        ("claude-code", "CLAUDE_CONFIG_DIR", ".claude.json"),
        ("codex", "CODEX_HOME", "config.toml"),
        ("vscode", "XDG_CONFIG_HOME", "Code/User/mcp.json"),
        ("zed", "XDG_CONFIG_HOME", "zed/settings.json"),
    ],
)
def test_a_clients_own_variable_says_where_its_file_is(
    client: str, variable: str, file: str, nobody: Path, tmp_path: Path
) -> None:
    around = Surroundings(system="linux", home=nobody, environment={"PATH": "", variable: str(tmp_path)})
    assert install(client, yes=True, around=around) == 0
    assert "nanobanana" in entries(CLIENTS[client], tmp_path / file)


@pytest.mark.parametrize("client", list(CLIENTS))
def test_without_yes_the_change_is_shown_and_nothing_is_written(
    client: str, around: Surroundings, nobody: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install(client, around=around) == 0
    out = capsys.readouterr().out
    assert str(CLIENTS[client].file(around)) in out and program.server_command()[0] in out and "--yes" in out
    assert list(nobody.rglob("*")) == []


@pytest.mark.slow
@pytest.mark.parametrize("client", [name for name in CLIENTS if name != "codex"])
@pytest.mark.parametrize("line", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_else_is_in_a_file_stays_to_the_letter_and_remove_takes_out_only_ours(
    client: str, line: str, mark: str, around: Surroundings, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = CLIENTS[client]
    text = (
        f'{mark}{{\n\t"theme": "d\\u00e4rk",\n\t"{kind.group}": {{\n\t\t"other": {OTHER}\n\t}},\n\t"big": 1E400\n}}\n'
    )
    text = text.replace("\n", line)
    path = placed(kind, around, text)
    assert install(client, yes=True, around=around) == 0
    changed = path.read_bytes().decode()
    assert set(entries(kind, path)) == {"other", "nanobanana"}
    begin, end = text.split(OTHER)
    assert changed.startswith(begin + OTHER) and changed.endswith(end) and changed.count("\n") == changed.count(line)
    assert install(client, yes=True, around=around) == 0 and path.read_bytes().decode() == changed
    assert "already" in capsys.readouterr().out
    assert install(client, yes=True, remove=True, around=around) == 0 and path.read_bytes().decode() == text
    assert SECRET not in "".join(capsys.readouterr())


@pytest.mark.slow
@given(
    group=st.dictionaries(
        st.text(max_size=5), st.recursive(st.none() | st.floats(allow_nan=False) | st.text(), st.lists), max_size=3
    ),
    rest=st.dictionaries(st.text(max_size=5).filter(lambda key: key != "g"), st.integers() | st.text(), max_size=3),
    indent=st.sampled_from([None, 0, 1, 2, "\t"]),
    blanks=st.sampled_from(["", "\n", " \r\n"]),
)
def test_setting_and_removing_an_entry_changes_nothing_else_whatever_the_file_looks_like(
    group: dict[str, Any], rest: dict[str, Any], indent: int | str | None, blanks: str
) -> None:
    group.pop("n", None)
    text = blanks + json.dumps(rest | {"g": group}, indent=indent) + blanks
    entered = jsonfile.with_entry(text, "g", "n", {"command": "c", "args": ["é"]})
    assert json.loads(entered) == rest | {"g": group | {"n": {"command": "c", "args": ["é"]}}}
    again = jsonfile.with_entry(entered, "g", "n", {"command": "d"})
    assert json.loads(jsonfile.with_entry(again, "g", "n", None)) == json.loads(text)


CODEX = f"""# my models
model = "o9" # the good one

[mcp_servers.other]
command = "npx"
env = {{ TOKEN = "{SECRET}" }}

# below here: profiles
[profiles.fast]
model = "o9-mini"
"""


@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_codexs_file_keeps_its_comments_and_order(
    line: str, around: Surroundings, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = CLIENTS["codex"]
    path = placed(kind, around, CODEX.replace("\n", line))
    assert install("codex", yes=True, env={"NANOBANANA_BACKEND": "emulator"}, around=around) == 0
    assert path.read_bytes().decode().startswith(CODEX.replace("\n", line))
    entry = entries(kind, path)["nanobanana"]
    assert entry["env"] == {"NANOBANANA_BACKEND": "emulator"} and entry["tool_timeout_sec"] >= 300
    assert install("codex", yes=True, remove=True, around=around) == 0
    assert path.read_bytes().decode() == CODEX.replace("\n", line)
    assert SECRET not in "".join(capsys.readouterr())


def test_an_entry_in_the_middle_of_codexs_file_is_replaced_and_the_comment_of_the_next_table_stays() -> None:
    text = CODEX.replace("[mcp_servers.other]", '[mcp_servers.nanobanana]\ncommand = "old"\n\n[mcp_servers.other]')
    changed = tomlfile.with_entry(text, "mcp_servers", "nanobanana", {"command": "new", "env": {"A.B": 'q"\\'}})
    assert tomllib.loads(changed)["mcp_servers"]["nanobanana"] == {"command": "new", "env": {"A.B": 'q"\\'}}
    assert "# below here: profiles\n[profiles.fast]" in changed and "# the good one" in changed and "old" not in changed


@pytest.mark.parametrize(
    ("client", "text", "reason"),
    [
        ("zed", '// my settings\n{"theme": "a"}\n', "comments"),
        ("vscode", '{"servers": {/* none yet */}}', "comments"),
        ("cursor", '{"mcpServers": {"a": 1,}}', "no JSON (line 1)"),
        ("cursor", '{"url": "http://x", nonsense', "no JSON"),
        ("cursor", "[1]", "no JSON object"),
        ("cursor", '{"mcpServers": []}', "mcpServers has no entries with names"),
        ("cursor", '{"a": 1, "a": 2}', "one key twice"),
        ("cursor", '{"mcpServers": {}}'.encode("utf-16"), "not in UTF-8"),
        ("gemini-cli", "[" * 5000, "no JSON"),
        ("codex", "model = \n", "no TOML"),
        ("codex", 'mcp_servers = { other = { command = "x" } }\n', "in a way"),
        ("codex", "mcp_servers = 1\n", "no entries with names"),
        ("codex", '[mcp_servers.nanobanana]\n# mine\ncommand = "nanobanana"\n', "comments"),
        ("windsurf", '{"mcpServers": {"nanobanana": {"command": "npx", "args": ["x"]}}}', "--name"),
        ("windsurf", '{"mcpServers": {"nanobanana": "text"}}', "--name"),
    ],
)
def test_a_file_that_cannot_be_changed_without_harm_is_left_alone_with_the_lines_to_paste(
    client: str, text: str | bytes, reason: str, around: Surroundings, capsys: pytest.CaptureFixture[str]
) -> None:
    path = placed(CLIENTS[client], around, text)
    before = path.read_bytes()
    assert install(client, yes=True, around=around) == 2
    err = capsys.readouterr().err
    assert reason in err and str(path) in err and "Nothing was changed" in err
    pasted = err.split(":\n", 1)[1]
    found = tomllib.loads(pasted) if client == "codex" else json.loads(pasted)
    assert found[CLIENTS[client].group]["nanobanana"]["command"] == program.server_command()[0]
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1


def test_a_stranger_of_our_name_is_neither_replaced_nor_removed_and_another_name_can_be_chosen(
    around: Surroundings,
) -> None:
    path = placed(CLIENTS["cursor"], around, '{"mcpServers": {"nanobanana": {"command": "npx", "args": ["x"]}}}')
    assert install("cursor", yes=True, remove=True, around=around) == 2
    assert install("cursor", yes=True, name="studio", around=around) == 0
    assert entries(CLIENTS["cursor"], path)["nanobanana"] == {"command": "npx", "args": ["x"]}
    assert set(entries(CLIENTS["cursor"], path)) == {"nanobanana", "studio"}


def test_what_a_user_set_in_our_entry_stays_when_it_is_renewed_and_its_key_is_not_shown(
    around: Surroundings, capsys: pytest.CaptureFixture[str]
) -> None:
    old = {"command": "/old/bin/nanobanana-mcp", "args": ["--old"], "alwaysAllow": ["output_stats"]}
    old |= {"env": {"GEMINI_API_KEY": SECRET, "NANOBANANA_PREVIEW_PX": "0"}}  # type: ignore[dict-item]  # a mixed entry
    path = placed(CLIENTS["cursor"], around, json.dumps({"mcpServers": {"nanobanana": old}}))
    assert install("cursor", yes=True, env={"NANOBANANA_PREVIEW_PX": "256"}, around=around) == 0
    command, *arguments = program.server_command()
    assert entries(CLIENTS["cursor"], path)["nanobanana"] == old | {
        "command": command,
        "args": arguments,
        "env": {"GEMINI_API_KEY": SECRET, "NANOBANANA_PREVIEW_PX": "256"},
    }
    assert SECRET not in "".join(capsys.readouterr())


@pytest.mark.parametrize("pair", [f"GEMINI_API_KEY={SECRET}", f"google_api_key={SECRET}"])
def test_a_key_does_not_go_into_a_clients_file(pair: str, nobody: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["install", "cursor", "--yes", "--env", pair]) == 1
    out, err = capsys.readouterr()
    assert "nanobanana setup" in err and SECRET not in out + err and list(nobody.rglob("*")) == []


@pytest.mark.parametrize(
    "arguments", [["cursor", "--env", "NANOBANANA_OUTPUT=x"], ["cursor", "--env", "no"], ["paint"]]
)
def test_a_variable_that_is_none_of_ours_no_pair_or_an_unknown_client_is_refused(
    arguments: list[str], nobody: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["install", *arguments, "--yes"]) == 1
    assert capsys.readouterr().err.count("\n") == 1 and list(nobody.rglob("*")) == []


def test_whoever_has_a_file_of_settings_of_their_own_gets_it_into_the_entry(nobody: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "my.env")
    around = Surroundings(system="linux", home=nobody, environment={"PATH": "", "NANOBANANA_ENV_FILE": file})
    assert install("cursor", yes=True, around=around) == 0
    entry = entries(CLIENTS["cursor"], CLIENTS["cursor"].file(around))["nanobanana"]
    assert entry["env"] == {"NANOBANANA_ENV_FILE": file}


@pytest.mark.skipif(os.name == "nt", reason="modes and links as POSIX has them")
def test_links_and_modes_stay_and_the_copy_of_what_was_there_is_private(
    around: Surroundings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = tmp_path / "dotfiles" / "mcp.json"
    real.parent.mkdir()
    real.write_text('{"mcpServers": {}}')
    real.chmod(0o644)
    link = CLIENTS["cursor"].file(around)
    link.parent.mkdir(parents=True)
    link.symlink_to(real)
    assert install("cursor", yes=True, around=around) == 0
    assert link.is_symlink() and "nanobanana" in entries(CLIENTS["cursor"], real)
    assert stat.S_IMODE(real.stat().st_mode) == 0o644
    (copy,) = real.parent.glob("*.bak")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600 and copy.read_text() == '{"mcpServers": {}}'
    assert str(copy) in capsys.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="modes as POSIX has them")
def test_a_file_that_is_made_anew_is_for_this_user_alone(around: Surroundings) -> None:
    assert install("cursor", yes=True, around=around) == 0
    assert stat.S_IMODE(CLIENTS["cursor"].file(around).stat().st_mode) == 0o600


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.skipif(os.name == "nt", reason="modes and links as POSIX has them")
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(lambda path: path.chmod(0o444), "read-only"), (_folder, "is a folder"), (_circle, "symbolic links")],
)
def test_a_read_only_file_a_folder_or_a_circle_in_its_place_is_said_and_left(
    spoil: Callable[[Path], object], reason: str, around: Surroundings, capsys: pytest.CaptureFixture[str]
) -> None:
    path = placed(CLIENTS["cursor"], around, "{}")
    spoil(path)
    assert install("cursor", yes=True, around=around) == 2
    assert reason in capsys.readouterr().err and len(list(path.parent.iterdir())) == 1


def test_a_disk_that_fails_leaves_the_file_as_it_was(
    around: Surroundings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = placed(CLIENTS["cursor"], around, "{}")

    def full(_self: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert install("cursor", yes=True, around=around) == 2
    assert "No space left" in capsys.readouterr().err
    assert path.read_text() == "{}" and not list(path.parent.glob(".*tmp"))


def test_installs_at_the_same_time_all_arrive(around: Surroundings) -> None:
    names = [f"studio-{number}" for number in range(8)]
    ready = threading.Barrier(len(names))

    def one(name: str) -> None:
        ready.wait()
        install("cursor", yes=True, name=name, around=around)

    workers = [threading.Thread(target=one, args=(name,)) for name in names]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert set(entries(CLIENTS["cursor"], CLIENTS["cursor"].file(around))) == set(names)


def test_what_the_client_writes_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text("1")
    seen: list[bytes] = []

    def change(data: bytes) -> bytes:
        if not seen:
            path.write_text("2")  # the client, between our reading and our writing
        seen.append(data)
        return data + b"+"

    copy = change_other(path, change, lock=config_folder() / "lock")
    assert path.read_text() == "2+" and seen == [b"1", b"2"]
    assert copy is not None and copy.read_text() == "2" and len(list(tmp_path.glob("*.bak"))) == 1


@pytest.mark.parametrize(
    ("entry", "ours"),
    [
        ({"command": "/a/nanobanana"}, True),
        ({"command": r"C:\x\nanobanana-mcp.EXE"}, True),
        ({"command": "uvx", "args": ["nanobanana-studio==0.1.0"]}, True),
        ({"command": "uvx", "args": ["--from", "git+https://x@1", "nanobanana-studio"]}, True),
        ({"command": "uv", "args": ["run", "--directory", "/a", "nanobanana"]}, True),
        ({"command": "/a/python", "args": ["-m", "nanobanana_mcp"]}, True),
        ({"command": "uvx", "args": ["nanobanana-mcp-server"]}, False),
        ({"command": "uvx", "args": ["nanobanana-mcp"]}, False),
        ({"url": "https://nanobanana.example/mcp"}, False),
        ("nanobanana", False),
    ],
)
def test_an_entry_is_ours_when_it_starts_this_program(entry: object, ours: bool) -> None:
    assert program.is_ours(entry) is ours


@pytest.mark.parametrize(
    ("direct_url", "arguments"),
    [
        (None, ["nanobanana-studio==0.1.0"]),
        (
            {"url": "https://x/y.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            ["--from", "git+https://x/y.git@abc", "nanobanana-studio"],
        ),
        ({"url": "file:///a%20b", "dir_info": {}}, ["--from", "/a b", "nanobanana-studio"]),
    ],
)
def test_under_uvx_the_entry_starts_the_same_version_from_the_same_source(
    direct_url: dict[str, Any] | None, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Installed:
        def read_text(self, _name: str) -> str | None:
            return None if direct_url is None else json.dumps(direct_url)

    monkeypatch.setattr(program, "distribution", lambda _name: Installed())
    monkeypatch.setattr(program, "__version__", "0.1.0")
    monkeypatch.setattr(sys, "executable", "/home/me/.cache/uv/archive-v0/Ab1/bin/python")
    monkeypatch.setattr(shutil, "which", lambda _name: "/home/me/.local/bin/uvx")
    assert program.server_command() == ["/home/me/.local/bin/uvx", *arguments]
    assert program.is_ours({"command": "uvx", "args": arguments})


def test_a_toml_text_that_ends_without_a_line_break_and_an_entry_that_cannot_be_written() -> None:
    changed = tomlfile.with_entry('model = "a"', "mcp_servers", "n", {"command": "c"})
    assert tomllib.loads(changed) == {"model": "a", "mcp_servers": {"n": {"command": "c"}}}
    with pytest.raises(NotEditable):
        tomlfile.with_entry("", "mcp_servers", "n", {"command": None})


def test_the_command_line_shows_and_makes_the_change(
    around: Surroundings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(Surroundings, "of_this_machine", lambda: around)
    path = CLIENTS["cursor"].file(around)
    assert run(["install", "cursor"]) == 0 and not path.exists()
    assert "Nothing was changed" in capsys.readouterr().out
    assert run(["install", "cursor", "--yes", "--name", "b", "--env", "NANOBANANA_PREVIEW_PX=0"]) == 0
    assert entries(CLIENTS["cursor"], path)["b"]["env"] == {"NANOBANANA_PREVIEW_PX": "0"}
    assert run(["install", "cursor", "--remove", "--yes", "--name", "b"]) == 0
    assert entries(CLIENTS["cursor"], path) == {}


def test_without_a_client_all_are_listed_with_what_they_have(
    around: Surroundings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install("cursor", yes=True, around=around) == 0
    placed(CLIENTS["zed"], around, "// a\n{}")
    capsys.readouterr()
    assert show_clients(around) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == list(CLIENTS)
    assert lines["cursor"] == "has nanobanana" and "left alone" in lines["zed"] and lines["codex"] == "was not found"
