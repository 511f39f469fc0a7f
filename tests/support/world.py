"""One installation to break: its folders, the user's own files, and a Gemini on a port that counts what it charges."""

import logging
import os
import shutil
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from nanobanana_mcp.emulator.app import Emulator
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.storage.paths import Places
from tests.support.fakes import photo
from tests.support.rooms import tree

KEY = "AIzaCANARY0123456789abcdefghijklmnopqrs"
"""Looks like a key, and must be found nowhere but in the environment and on the way to its host."""


@dataclass(kw_only=True)
class World:
    """`said` gathers every byte that a process wrote to stdout or stderr."""

    root: Path
    emulator: Emulator
    url: str
    users: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    said: list[bytes] = field(default_factory=list)

    @property
    def output(self) -> Path:
        return self.root / "pictures"

    @property
    def database(self) -> Path:
        return self.root / "state" / "library.db"

    @property
    def project(self) -> Path:
        """The user's own folder, in which nothing may change."""
        return self.root / "project"

    @property
    def places(self) -> Places:
        settings = Settings(NANOBANANA_OUTPUT_DIR=self.output, database_url=f"sqlite:///{self.database}")
        return Places(output=self.output, state=settings.state_dir, base=self.project)

    def environment(self, **changes: str) -> dict[str, str]:
        """All that a server is given; nothing comes from the machine that runs the tests but the path."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root / "home"),
            "GEMINI_API_KEY": KEY,
            "GEMINI_BASE_URL": self.url,
            "NANOBANANA_OUTPUT_DIR": str(self.output),
            "NANOBANANA_DATABASE_URL": f"sqlite:///{self.database}",
            "NANOBANANA_UPLOAD": "on_demand",
            "CLAUDE_PROJECT_DIR": str(self.project),
        } | changes

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database, timeout=30)) as connection:
            return connection.execute(query).fetchall()

    def states(self) -> list[str]:
        """The state of every call, oldest first."""
        return [state for (state,) in self.rows("SELECT state FROM calls ORDER BY reserved_at, id")]

    def remember(self) -> None:
        """Put aside what is kept now, for `go_back`; no process may be at work."""
        for folder in (self.output, self.database.parent):
            assert all(path.is_dir() or path.stat().st_nlink == 1 for path in folder.rglob("*")), "links would be lost"
            shutil.copytree(folder, self.root / "before" / folder.name)

    def go_back(self) -> None:
        """As it was when it was remembered; what was charged until then stays charged."""
        self._clear()
        for folder in (self.output, self.database.parent):
            shutil.copytree(self.root / "before" / folder.name, folder)

    def forget(self) -> None:
        """As new for the next case: no library, no pictures, no charges."""
        self._clear()
        shutil.rmtree(self.root / "before", ignore_errors=True)
        self.emulator.reset()
        self.emulator.control.cheap = True
        self.said.clear()

    def _clear(self) -> None:
        for folder in (self.output, self.database.parent):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def world(root: Path) -> Iterator[World]:
    """A world with a Gemini that listens as long as the block runs."""
    emulator = Emulator()
    emulator.control.cheap = True
    with listening(emulator.app) as url:
        made = World(root=root, emulator=emulator, url=url)
        (root / "home").mkdir()
        photo(made.project / "holiday.jpg")
        (made.project / "notes.txt").write_text("mine\n")
        made.users = tree(made.project)
        yield made


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """Serve an ASGI application from a thread; its address."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(timeout=5)
        listener.close()
