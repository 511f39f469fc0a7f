"""A policy file on disk: changes are noticed, and a file that is gone or broken allows nothing."""

import os
from pathlib import Path

import pytest

from nanobanana_mcp.domain.errors import PolicyError
from nanobanana_mcp.domain.policy.rules import PolicyFile


def denies(file: PolicyFile, tool: str) -> bool:
    return not file.current().judge(tool, {}, required=()).allowed


def write(path: Path, text: str, *, tick: int) -> None:
    """Write as an editor would; `tick` stands for the time that passes between two edits."""
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(tick, tick))


def test_without_files_everything_is_allowed() -> None:
    assert not denies(PolicyFile(None, None), "a")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    user, project = tmp_path / "policy.yaml", tmp_path / "project.yaml"
    write(user, "hide: [a]", tick=1)
    write(project, "hide: [b]", tick=1)
    file = PolicyFile(user, project)
    assert [denies(file, tool) for tool in "abc"] == [True, True, False]
    write(project, "hide: [c]", tick=2)
    assert [denies(file, tool) for tool in "abc"] == [True, False, True]
    replacement = tmp_path / "new.yaml"
    write(replacement, "hide: [b]", tick=1)
    replacement.replace(user)
    assert [denies(file, tool) for tool in "abc"] == [False, True, True]
    write(user, "hide: [a, b]", tick=1)
    assert [denies(file, tool) for tool in "abc"] == [True, True, True]


def test_an_unchanged_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "policy.yaml"
    write(path, "hide: [a]", tick=1)
    file = PolicyFile(path, None)
    first = file.current()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: pytest.fail("it was read again"))
    assert file.current() == first


def test_a_change_that_hides_behind_the_old_size_and_time_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    write(path, "hide: [a]", tick=1)
    file = PolicyFile(path, None)
    assert denies(file, "a")
    write(path, "hide: [b]", tick=1)
    assert denies(file, "b") and not denies(file, "a")


def test_a_file_that_became_invalid_or_unreadable_allows_nothing_until_it_is_restored(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    write(path, "hide: [a]", tick=1)
    file = PolicyFile(None, path)
    assert denies(file, "a")
    write(path, "hide: [a", tick=2)
    for _ in range(2):
        with pytest.raises(PolicyError, match=r"policy\.yaml, line 1"):
            file.current()
    path.unlink()
    with pytest.raises(PolicyError, match="cannot be read"):
        file.current()
    path.mkdir()
    with pytest.raises(PolicyError, match="is not a file"):
        file.current()
    path.rmdir()
    path.write_bytes(b"hide: [\xff]")
    with pytest.raises(PolicyError, match="UTF-8"):
        file.current()
    write(path, "#" * (256 * 1024 + 1), tick=3)
    with pytest.raises(PolicyError, match="256 kB"):
        file.current()
    write(path, "hide: [b]", tick=4)
    assert [denies(file, tool) for tool in "ab"] == [False, True]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_in_place_of_a_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "policy.yaml")
    with pytest.raises(PolicyError, match="is not a file"):
        PolicyFile(tmp_path / "policy.yaml", None).current()
