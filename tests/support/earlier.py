"""Makes a small library with an earlier version of the program and packs it, for tests of what an upgrade keeps.

A program of its own. It imports nothing of the package but the emulator's `Emulator` and the server's `main`, and
strikes only at methods of `Journal`, so that it runs in the checkouts of earlier versions:

    git worktree add ../earlier e51eae7 && cd ../earlier && make .venv/installed-dev
    .venv/bin/python THIS_CHECKOUT/tests/support/earlier.py THIS_CHECKOUT/tests/data/e51eae7.tar.xz

It drives real servers over stdio, whose Gemini is an emulator in this process. The archive has `library.sql`, the
database as SQL; `state`, `pictures` and `project`, the folders; and `told.json`: every wish with what became of it, the
lineage of every picture as that version tells it, and when all was made. `@ROOT@` stands where the folder's path was.
"""

import asyncio
import base64
import io
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import uvicorn
from PIL import Image, ImageDraw

ROOT = "@ROOT@"
KEY = "AIzaCANARY0123456789abcdefghijklmnopqrs"
PHOTO = "project/photo.png"
BOX = [40, 33, 87, 73]
SMALLER = 6
"""By which the emulator's pictures are made narrower and lower here: the archive is for a repository."""

PATIENCE_S = 120

ANSWERED: dict[str, tuple[str, dict[str, Any]]] = {
    "plain with a key": ("generate_image", {"prompt": "a red kite", "idempotency_key": "kite"}),
    "edit with a key": (
        "generate_image",
        {"prompt": "make it evening", "input_image_path_1": PHOTO, "idempotency_key": "evening"},
    ),
    "region with a key": (
        "edit_region",
        {"image": PHOTO, "instruction": "a window", "box": BOX, "idempotency_key": "window"},
    ),
    "plain without a key": ("generate_image", {"prompt": "a white sail"}),
}
"""Wishes whose answers arrived."""

UNANSWERED: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("generate_image", {"prompt": "a blue door", "model_tier": "flash", "aspect_ratio": "3:2"}),
    "three": ("generate_image", {"prompt": "a green hill", "n": 3}),
    "exact": (
        "generate_image",
        {"prompt": "a stone bridge", "width": 120, "height": 80, "output_format": "webp", "quality": 80},
    ),
    "named": ("generate_image", {"prompt": "a tall tree", "output_path": "named/tree.jpg"}),
    "all options": (
        "generate_image",
        {
            "prompt": "two cups",
            "negative_prompt": "tea",
            "system_instruction": "Draw plainly.",
            "model_tier": "pro",
            "resolution": "1k",
            "enable_grounding": False,
            "input_images": [PHOTO, "project/mask.png"],
            "input_roles": ["style"],
            "mode": "generate",
            "seed": 7,
            "safety": {"HARM_CATEGORY_HARASSMENT": "BLOCK_ONLY_HIGH"},
        },
    ),
    "edit": ("generate_image", {"prompt": "make it winter", "input_image_path_1": PHOTO}),
    "region by box": ("edit_region", {"image": PHOTO, "instruction": "a round window", "box": BOX}),
    "region by mask": (
        "edit_region",
        {"image": PHOTO, "instruction": "a small boat", "mask": "project/mask.png", "feather": 4, "grow": 2},
    ),
    "extension": ("extend_image", {"image": PHOTO, "right": 40, "instruction": "more of the hill"}),
    "cutout": ("remove_background", {"image": PHOTO, "subject": "the tower"}),
    "transparent": ("generate_image", {"prompt": "a yellow star", "background": "transparent"}),
}
"""Wishes without a key whose servers were killed before it was noted that the answer had arrived."""

KITE = "the kite"
GOING_ON: dict[str, tuple[str, dict[str, Any]]] = {
    "going on": ("generate_image", {"prompt": "with a longer tail", "continue_from": KITE})
}
"""Such a wish that goes on from the first picture, whose id is not known beforehand."""

KILLED: dict[str, tuple[str, str, int, str, dict[str, Any]]] = {
    "answer in the spool": ("spooled", "before", 1, "generate_image", {"prompt": "a lost lamp"}),
    "answer in the spool, with a key": (
        "spooled",
        "after",
        1,
        "generate_image",
        {"prompt": "a lost key", "idempotency_key": "lost"},
    ),
    "one kept, one in the spool": ("saved", "before", 2, "generate_image", {"prompt": "a lost pair", "n": 2}),
    "recipe": ("saved", "after", 1, "edit_region", {"image": PHOTO, "instruction": "a lost door", "box": BOX}),
    "unknown outcome": ("sent", "after", 1, "generate_image", {"prompt": "a lost letter"}),
    "never sent": ("sent", "before", 1, "generate_image", {"prompt": "a lost stamp"}),
}
"""Wishes whose servers were killed around a call of the journal: its method, when, and which call of it."""


class Smaller:
    """An ASGI application in front of the emulator's that makes the pictures of its answers smaller."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not scope.get("path", "").endswith(":generateContent"):
            await self._app(scope, receive, send)
            return
        start: dict[str, Any] = {}
        body = b""

        async def collect(message: dict[str, Any]) -> None:
            nonlocal body
            if message["type"] == "http.response.start":
                start.update(message)
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                sent = _smaller(body) if start["status"] == 200 else body
                kept = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
                await send(start | {"headers": [*kept, (b"content-length", str(len(sent)).encode())]})
                await send({"type": "http.response.body", "body": sent})

        await self._app(scope, receive, collect)


def _smaller(body: bytes) -> bytes:
    answer = json.loads(body)
    for candidate in answer.get("candidates", []):
        for part in (candidate.get("content") or {}).get("parts") or []:
            if "inlineData" in part:
                with Image.open(io.BytesIO(base64.b64decode(part["inlineData"]["data"]))) as image:
                    size = image.width // SMALLER, image.height // SMALLER
                    target = io.BytesIO()
                    image.convert("RGB").resize(size, Image.Resampling.BOX).save(target, "JPEG", quality=75)
                part["inlineData"] = {"mimeType": "image/jpeg", "data": base64.b64encode(target.getvalue()).decode()}
    return json.dumps(answer).encode()


class Server:
    """One server of the version that is installed; with `fault` it kills itself at a method of the journal."""

    def __init__(self, root: Path, url: str, fault: tuple[str, str, int] | None = None) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(root / "home"),
            "GEMINI_API_KEY": KEY,
            "GEMINI_BASE_URL": url,
            "NANOBANANA_OUTPUT_DIR": str(root / "pictures"),
            "NANOBANANA_DATABASE_URL": f"sqlite:///{root / 'state' / 'library.db'}",
            "NANOBANANA_UPLOAD": "on_demand",
            "NANOBANANA_PREVIEW_PX": "128",
            "CLAUDE_PROJECT_DIR": str(root),
            "PYTHONPATH": str(Path.cwd()),
        }
        words = ["-m", "nanobanana_mcp"] if fault is None else [__file__, "--struck", *(str(word) for word in fault)]
        self.process = subprocess.Popen(
            [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=Path.cwd()
        )
        self._number = 0
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        self._answer(self._ask("initialize", hello))
        self._write({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def call(self, tool: str, **arguments: Any) -> dict[str, Any] | None:
        """The result; None when the server died before it answered."""
        answer = self._answer(self._ask("tools/call", {"name": tool, "arguments": arguments}))
        return None if answer is None else answer["result"]

    def dies(self, tool: str, **arguments: Any) -> None:
        """Call, and wait for the server's death."""
        self._ask("tools/call", {"name": tool, "arguments": arguments})
        assert self.process.stdout is not None
        said = self.process.stdout.read()
        assert self.process.wait(PATIENCE_S) == -signal.SIGKILL, (tool, arguments, said[-2000:])

    def hang_up(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)

    def _ask(self, method: str, params: dict[str, Any]) -> int:
        self._number += 1
        self._write({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params})
        return self._number

    def _write(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def _answer(self, number: int) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            if message.get("id") == number:
                return message
        return None


def struck(method: str, when: str, nth: int) -> None:
    """Be a server that is killed before or after the `nth` call of a method of the journal."""
    journal = resolve_name("nanobanana_mcp.library.journal:Journal")
    method = method if hasattr(journal, method) else f"mark_{method}"  # the names that these methods got later
    function, calls = getattr(journal, method), 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if calls == nth and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(journal, method, wrapped)
    sys.argv = ["nanobanana"]
    resolve_name("nanobanana_mcp.__main__:main")()


def draw(project: Path) -> None:
    """The user's own files: a tower on a hill, and a mask of its door."""
    project.mkdir(parents=True)
    width, height = 240, 180
    ramp = Image.linear_gradient("L").resize((width, height))
    photo = Image.merge("RGB", (ramp.point(lambda v: 120 + v // 4), ramp.point(lambda v: 170 + v // 5), ramp))
    pen = ImageDraw.Draw(photo)
    pen.polygon([(0, 180), (0, 130), (90, 95), (170, 120), (240, 90), (240, 180)], fill=(70, 110, 60))
    pen.rectangle((75, 30, 120, 125), fill=(170, 150, 130))
    pen.polygon([(68, 32), (97, 8), (127, 32)], fill=(150, 60, 50))
    for row in range(36, 120, 9):
        pen.line((75, row, 120, row + row % 3), fill=(140, 120, 100))
        pen.point([(80 + (row * 7) % 38, row + 4), (78 + (row * 11) % 40, row + 5)], fill=(90, 70, 60))
    for step in range(60):
        x, y = (step * 53) % width, 132 + (step * 29) % 46
        pen.line((x, y, x + 3, y - 5), fill=(50 + step, 90 + step // 2, 40))
    photo.resize((160, 120), Image.Resampling.LANCZOS).save(project / "photo.png")
    mask = Image.new("L", (160, 120))
    ImageDraw.Draw(mask).ellipse((93, 40, 127, 73), fill=255)
    mask.save(project / "mask.png")


def make(root: Path, url: str) -> dict[str, Any]:
    """Fill the library; what was asked and told."""
    draw(root / "project")
    wishes: list[dict[str, Any]] = []
    first = Server(root, url)
    _well(first.call("generate_image", prompt="an old cup"))
    _well(first.call("maintenance", operation="cleanup_local", dry_run=False, max_age_hours=0, keep_count=0))
    for name, (tool, arguments) in ANSWERED.items():
        told = _well(first.call(tool, **arguments))
        wishes.append({"name": name, "tool": tool, "arguments": arguments, "told": told})
    kite = wishes[0]["told"]["images"][0]["id"]
    _well(first.call("convert_image", image=kite, width=64, output_format="jpeg"))
    _well(first.call("convert_image", image=PHOTO, crop=[0, 0, 0.5, 0.5]))
    _well(first.call("upload_file", path=PHOTO))
    first.hang_up()
    for name, (tool, given) in (UNANSWERED | GOING_ON).items():
        before, arguments = _newest(root), {key: kite if value == KITE else value for key, value in given.items()}
        Server(root, url, ("delivered", "before", 1)).dies(tool, **arguments)
        wishes.append({"name": name, "tool": tool, "arguments": arguments, "images": _made(root, before)})
    doomed = {name: Server(root, url, (at, when, nth)) for name, (at, when, nth, _, _) in KILLED.items()}
    for server in doomed.values():  # a studio that opens later would finish what one of the others leaves behind
        _well(server.call("output_stats"))
        time.sleep(1)
    with closing(sqlite3.connect(root / "state" / "library.db")) as library:
        ids = [one for (one,) in library.execute("SELECT id FROM images ORDER BY id")]
    some = next(iter(doomed.values()))
    lineage = {one: _well(some.call("output_stats", lineage_of=one)) for one in ids}
    for name, (_, _, _, tool, arguments) in KILLED.items():
        doomed[name].dies(tool, **arguments)
        wishes.append({"name": name, "tool": tool, "arguments": arguments})
    return {"wishes": wishes, "lineage": lineage}


def _well(result: dict[str, Any] | None) -> Any:
    assert result is not None and not result.get("isError"), result
    return result["structuredContent"]


def _newest(root: Path) -> str:
    with closing(sqlite3.connect(root / "state" / "library.db")) as library:
        return str(library.execute("SELECT max(id) FROM requests").fetchone()[0])


def _made(root: Path, before: str) -> list[str]:
    """The ids of the pictures of the requests after one."""
    with closing(sqlite3.connect(root / "state" / "library.db")) as library:
        query = "SELECT id FROM images WHERE call_id IN (SELECT id FROM calls WHERE request_id > ?) ORDER BY id"
        return [one for (one,) in library.execute(query, (before,))]


def pack(root: Path, told: dict[str, Any], archive: Path) -> None:
    """Write the archive, with ROOT where the folder's path is."""
    with closing(sqlite3.connect(root / "state" / "library.db")) as library:
        assert library.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        sql = "\n".join(library.iterdump())
    files = {
        "library.sql": (sql.encode(), time.time()),
        "told.json": (json.dumps(told, indent=1).encode(), time.time()),
    }
    for path in sorted(root.glob("*/**/*")):
        inside = path.relative_to(root)
        if path.is_file() and inside.parts[0] != "home" and path.parent != root / "state":  # the database lies there
            files[str(inside)] = path.read_bytes(), path.stat().st_mtime
    with tarfile.open(archive, "w:xz", preset=9) as packed:
        for name, (data, written_at) in files.items():
            member = tarfile.TarInfo(name)
            whole = data if _is_picture(data) else data.replace(str(root).encode(), ROOT.encode())
            member.size, member.mtime = len(whole), int(written_at)
            packed.addfile(member, io.BytesIO(whole))


def _is_picture(data: bytes) -> bool:
    return data.startswith((b"\x89PNG", b"\xff\xd8", b"RIFF", b"\0\0\1\0"))


def main() -> None:
    if sys.argv[1] == "--struck":
        struck(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        return
    emulator = resolve_name("nanobanana_mcp.emulator.app:Emulator")()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(Smaller(emulator.app), log_level="warning", access_log=False, lifespan="off")
    gemini = uvicorn.Server(config)
    threading.Thread(target=lambda: asyncio.run(gemini.serve([listener])), daemon=True).start()
    root = Path(tempfile.mkdtemp(prefix="earlier-")).resolve()
    try:
        made_at = time.time()
        told = make(root, f"http://127.0.0.1:{listener.getsockname()[1]}")
        pack(root, told | {"made_at": made_at, "charges": len(emulator.charges)}, Path(sys.argv[1]))
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
