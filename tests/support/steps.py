"""Runs a studio in forked processes that die or fail at one step; a program of its own, fed with jobs on stdin.

A job is a JSON object: `act` ("create", "recover", "tidy" with `bounds`, or "spend"), the folders, and at most one
fault as `at` ("module:name", several with commas between them, or "calls" for the `nth` call of those that make files durable), `when` ("before" or
"after") and `how` ("kill", or the number of an error that is raised, from then on always when `lasting`). What comes
back is `status` (the return code, -9 for a kill), `calls` (how many of those calls there were), `text`, and `error`,
the class of what went wrong. Everything is imported before the first fork, so that a case takes a fraction of a second.
"""

import asyncio
import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import alembic.command  # noqa: F401 - not again in every process
import google.genai  # noqa: F401

from nanobanana_mcp.domain.budget import Limits
from nanobanana_mcp.domain.catalog import BY_ID, DEFAULTS
from nanobanana_mcp.domain.errors import BudgetExceeded, StudioError
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.gemini.client import Gemini
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.studio.studio import Studio

DURABLE = ("write", "fsync", "link", "unlink", "replace", "rename", "mkdir", "posix_fallocate", "ftruncate")
"""The calls of os by which everything of the studio's but the database gets to the disk."""


class Fault:
    """Counts calls and strikes at the chosen one."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.calls = 0
        self._nth = job.get("nth", 1)
        self._how = job.get("how")
        self._after = job.get("when") == "after"
        self._lasting = job.get("lasting", False)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            struck = self.calls == self._nth or (self._lasting and self.calls > self._nth)
            if struck and not self._after:
                self._strike()
            result = function(*args, **kwargs)
            if struck and self._after:
                self._strike()
            return result

        return wrapped

    def _strike(self) -> None:
        if self._how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._how is not None:
            raise OSError(self._how, os.strerror(self._how))


def insert(fault: Fault, at: str | None) -> None:
    """Put the fault where it belongs."""
    if at is None:
        return
    if at == "calls":
        for name in DURABLE:
            setattr(os, name, fault.around(getattr(os, name)))
        return
    for one in at.split(","):
        module, _, name = one.partition(":")
        *owner, last = name.split(".")
        holder = resolve_name(f"{module}:{'.'.join(owner)}" if owner else module)
        setattr(holder, last, fault.around(getattr(holder, last)))


async def act(job: dict[str, Any]) -> str:
    """Does what the job asks for and returns the words of its outcome."""
    output, state, base = (Path(job[name]) for name in ("output", "state", "base"))
    studio = Studio(
        model=Gemini(api_key=job["key"], base_url=job["url"], timeout_s=20),
        database=Database.open(Path(job["database"])),
        places=Places(output=output, state=state, base=base),
        backend="gemini",
        models={tier: BY_ID[model_id] for tier, model_id in DEFAULTS.items()},
        uploading="never",
        limits=Limits(**job.get("limits", {})),
    )
    try:
        if job["act"] == "recover":
            return "; ".join(one.outcome for one in await studio.recover())
        if job["act"] == "tidy":
            return "; ".join((await studio.maintain(job["operation"], dry_run=False, **job.get("bounds", {}))).left)
        if job["act"] == "spend":
            return str(await spend(studio))
        request = job["request"] | {"inputs": tuple(job["request"]["inputs"])}
        created = await studio.create(ImageRequest(**request), key=job.get("wish"))
        await studio.mark_delivered(created.request_id)
        return "; ".join((*(image.record.path or "" for image in created.images), *created.warnings))
    finally:
        await studio.close()


async def spend(studio: Studio) -> int:
    """Ask for pictures until the limit says no; how many came."""
    made = 0
    while True:
        try:
            created = await studio.create(ImageRequest(prompt=f"again {made} by {os.getpid()}"))
        except BudgetExceeded:
            return made
        await studio.mark_delivered(created.request_id)
        made += len(created.images)


def run(job: dict[str, Any], answer: int) -> None:
    """One job from beginning to end, in a process of its own."""
    write, fault = os.write, Fault(job)
    insert(fault, job.get("at"))
    text = ""
    try:
        text = asyncio.run(act(job))
    finally:  # whatever went wrong, the test shall see its name
        error = sys.exc_info()[1]
        kind = None if error is None else "StudioError" if isinstance(error, StudioError) else type(error).__name__
        said = {"error": kind, "text": text if error is None else str(error), "calls": fault.calls}
        write(answer, json.dumps(said).encode())
        os._exit(0)


def begin(job: dict[str, Any]) -> tuple[int, int]:
    """Fork a process for the job; its id, and where its answer will come."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        run(job, writing)
    os.close(writing)
    return child, reading


def main() -> None:
    """Take a line of jobs (a list, run at once), give a line of outcomes."""
    for line in sys.stdin:
        begun = [begin(job) for job in json.loads(line)]
        outcomes = []
        for child, reading in begun:
            with os.fdopen(reading, "rb") as pipe:
                said = pipe.read()
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            outcomes.append({"status": status} | (json.loads(said) if said else {}))
        sys.stdout.write(json.dumps(outcomes) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
