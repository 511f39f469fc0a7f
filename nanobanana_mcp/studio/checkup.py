"""Finds what will go wrong before it does: settings, key, connection to Gemini, models, policy, disk and library.

Nothing here costs or changes anything: Gemini is asked only for the models' descriptions, and the library is read
without being opened.
"""

import asyncio
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

import httpx2

from nanobanana_mcp import __version__
from nanobanana_mcp.domain.catalog import BY_ID, successor_of
from nanobanana_mcp.domain.errors import ServiceError, SetupError, StudioError, UnknownOutcome
from nanobanana_mcp.gemini.client import GEMINI_ADDRESS, vertex_address
from nanobanana_mcp.gemini.transport import proxy_host
from nanobanana_mcp.library.glance import Condition, condition
from nanobanana_mcp.settings import Settings, env_file, load_settings, misspelt, project_folder
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.storage.processes import how_many_alive
from nanobanana_mcp.storage.writing import check_room
from nanobanana_mcp.studio.admission import Admission
from nanobanana_mcp.studio.open import Reached, models, open_model, open_places, reach

Level = Literal["good", "note", "warning", "problem"]

SOON_DAYS = 60
LITTLE_ROOM = 2_000_000_000
"""Bytes: about a hundred pictures in 4K."""
A_PICTURE = 100_000_000
"""Bytes that making one large picture needs: the answer, the file and its thumbnail."""
NEWEST_S = 5.0
PYPI = "https://pypi.org/pypi/nanobanana-studio/json"

LIBRARY: dict[Condition, tuple[Level, str, str | None]] = {
    "missing": ("note", "is not there yet; the first call makes it", None),
    "current": ("good", "can be read", None),
    "older": ("note", "is of an older version; the next server that opens it upgrades it, and keeps a copy", None),
    "newer": ("problem", "was made by a newer version of nanobanana", "Upgrade nanobanana-studio."),
    "strange": ("problem", "is another program's file", "Name another in NANOBANANA_DATABASE_URL."),
    "damaged": (
        "problem",
        "cannot be read",
        "End every server, then run 'nanobanana rebuild'; it first says what it will do.",
    ),
    "busy": ("note", "is in use by another program right now", "Run the doctor again."),
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was checked. `remedy` says what to do about it; `theirs` is true when Gemini is at fault and not
    the setup.
    """

    area: str
    level: Level
    says: str
    remedy: str | None = None
    theirs: bool = False

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "theirs"}


async def check_up(*, offline: bool) -> list[Finding]:
    """Check everything; `offline` sends nothing."""
    found = list(_versions())
    if not offline:
        found.append(await _newest(PYPI))
    try:
        found += [
            Finding(area="settings", level="warning", says=words, remedy="Correct or remove it.")
            for words in misspelt()
        ]
        settings = load_settings()
    except SetupError as error:
        return [*found, Finding(area="settings", level="problem", says=str(error), remedy="Correct what it names.")]
    found.append(Finding(area="settings", level="good", says=f"The settings can be read; their file is {env_file()}."))
    found += _key(settings)
    found += _way(settings)
    found += _tables(settings)
    if not offline:
        found += await _asked(settings)
    found += await asyncio.to_thread(lambda: [*_policy(settings), *_places(settings)])
    return found


async def look_at_key(settings: Settings) -> StudioError | None:
    """Ask Gemini whether it accepts the key of these settings, which costs nothing; returns the error when it does not."""
    try:
        model = reach(settings)
    except SetupError as error:
        return error
    try:
        await model.look_at(settings.flash_model, setting=settings.variable("flash_model"))
    except StudioError as error:
        return error
    finally:
        await model.close()
    return None


def _versions() -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding(area="version", level="good", says=f"nanobanana-studio {__version__} on Python {python}.")


async def _newest(address: str) -> Finding:
    try:
        async with httpx2.AsyncClient(timeout=NEWEST_S, follow_redirects=False) as client:
            answer = await client.get(address)
            told = answer.json()["info"]["version"] if answer.status_code == 200 else None
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, LookupError, TypeError):
        return Finding(area="version", level="note", says="PyPI could not be asked for the newest version.")
    if told is None:
        return Finding(area="version", level="note", says="PyPI has no version of nanobanana-studio yet.")
    if _number(told) <= _number(__version__):
        return Finding(area="version", level="good", says=f"It is the newest ({str(told)[:20]} is on PyPI).")
    return Finding(
        area="version",
        level="warning",
        says=f"{str(told)[:20]} is newer.",
        remedy="Upgrade it, and run 'nanobanana install CLIENT --yes' so that clients start the new one.",
    )


def _number(version: object) -> tuple[int, ...]:
    return tuple(int(part) for part in str(version).split(".")[:3] if part.isdecimal())


def _key(settings: Settings) -> Iterator[Finding]:
    if settings.effective_backend != "gemini":
        words = (
            "the emulator draws here, free and offline, and its pictures are not real"
            if settings.backend == "emulator"
            else "Vertex AI signs in by itself"
        )
        yield Finding(area="key", level="note", says=f"No key is needed: {words}.")
        return
    problem = settings.key_problem
    variable = settings.variable("gemini_api_key")
    if settings.gemini_api_key is None or problem is not None:
        yield Finding(
            area="key",
            level="problem",
            says=f"{problem or 'There is no key'}.",
            remedy="Run 'nanobanana setup', with a key from https://aistudio.google.com/apikey.",
        )
        return
    if any(name.upper() == variable for name in os.environ):
        yield Finding(
            area="key",
            level="note",
            says=f"{variable} is in the environment of this shell, which clients do not all pass on.",
            remedy="Run 'nanobanana setup': a key in the studio's own file is found whichever client starts the server.",
        )
        return
    yield Finding(area="key", level="good", says=f"{variable} is in the settings file.")
    file = env_file()
    if os.name == "posix" and file.is_file() and file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield Finding(
            area="key",
            level="warning",
            says=f"Other users of this machine may read {file}.",
            remedy=f"chmod 600 '{file}'",
        )


def _way(settings: Settings) -> Iterator[Finding]:
    """The connection to Gemini: another address, a proxy."""
    if settings.effective_backend == "emulator":
        return
    usual = vertex_address(settings.vertex_location) if settings.effective_backend == "vertex_ai" else GEMINI_ADDRESS
    address = usual if settings.effective_backend == "vertex_ai" else settings.gemini_base_url or usual
    if address != usual:
        yield Finding(
            area="network",
            level="note",
            says=f"GEMINI_BASE_URL sends requests to {address} instead of Google: key, words and pictures.",
            remedy="Remove it, unless that is your gateway.",
        )
    try:
        proxy = proxy_host(address)
    except SetupError as error:
        yield Finding(area="network", level="problem", says=str(error), remedy="Correct the proxy, or set NO_PROXY.")
        return
    if proxy is not None:
        yield Finding(
            area="network",
            level="note",
            says=f"Requests go through the proxy {proxy}; it cannot read them, but may cut off a slow one.",
        )


def _tables(settings: Settings) -> Iterator[Finding]:
    """Look each tier's model up in the table of models."""
    today = datetime.now(UTC).date()
    for tier, spec in models(settings).items():
        setting = settings.variable(f"{tier}_model")
        after = successor_of(spec.id)
        remedy = f"Set {setting} to {after}." if after else f"Remove {setting}."
        known = BY_ID.get(spec.id)
        if known is None and after is None:
            yield Finding(
                area="models",
                level="warning",
                says=(
                    f"{spec.id} ({tier}) is not in the table of models, so its price is unknown and limits cannot "
                    "hold it."
                ),
                remedy=remedy,
            )
        elif known is None or (known.shutdown and known.shutdown <= today):
            yield Finding(area="models", level="problem", says=f"{spec.id} ({tier}) was shut down.", remedy=remedy)
        elif known.shutdown and (known.shutdown - today).days <= SOON_DAYS:
            yield Finding(
                area="models", level="warning", says=_ending(spec.id, tier, known.shutdown, today), remedy=remedy
            )
        else:
            end = f", until {known.shutdown.isoformat()}" if known.shutdown else "; Google has announced no end"
            yield Finding(area="models", level="good", says=f"{tier}: {known.nickname} ({spec.id}){end}.")


def _ending(model_id: str, tier: str, end: date, today: date) -> str:
    return f"{model_id} ({tier}) ends in {(end - today).days} days, on {end.isoformat()}."


async def _asked(settings: Settings) -> list[Finding]:
    """Ask Gemini about the key and each model; the descriptions are free."""
    model = open_model(settings)
    told = model.problem()
    if told is not None:
        await model.close()
        if settings.gemini_api_key is None or settings.key_problem is not None:
            return []  # the finding on the key has said it
        return [Finding(area="network", level="problem", says=told, remedy="Correct what it names.")]
    try:
        tiers = models(settings)
        answers = await asyncio.gather(
            *(_answer(model, spec.id, settings.variable(f"{tier}_model")) for tier, spec in tiers.items())
        )
    finally:
        await model.close()
    by_gateway = settings.gemini_base_url is not None
    found = [_said(error, by_gateway=by_gateway) for error in dict.fromkeys(answers) if error is not None]
    if not found:
        found.append(Finding(area="gemini", level="good", says="The key is accepted, and every model answers."))
        if settings.effective_backend == "gemini":
            found.append(
                Finding(
                    area="gemini",
                    level="note",
                    says="Whether billing is on cannot be checked for free, and image models have no free tier.",
                    remedy="If a call says 'no quota (limit 0)', turn billing on in Google AI Studio.",
                )
            )
    return found


async def _answer(model: Reached, model_id: str, setting: str) -> tuple[str, bool] | None:
    """Say what is wrong, and whether Gemini is at fault; None when nothing is wrong."""
    try:
        await model.look_at(model_id, setting=setting)
    except UnknownOutcome:  # its message speaks of a charge, and this question is free
        return "Gemini did not answer when it was asked for its models, which is free.", True
    except StudioError as error:
        return str(error), isinstance(error, ServiceError)
    return None


def _said(error: tuple[str, bool], *, by_gateway: bool) -> Finding:
    words, theirs = error
    remedy = (
        "Try again in a minute; check the network." if theirs else "Correct it; 'nanobanana setup' changes the key."
    )
    if by_gateway:  # a gateway may draw and still not serve models' descriptions
        remedy = f"Ask who runs the gateway whether it answers for models. {remedy}"
    return Finding(
        area="gemini", level="warning" if by_gateway else "problem", says=words, remedy=remedy, theirs=theirs
    )


def _policy(settings: Settings) -> Iterator[Finding]:
    async def nobody() -> Any:
        raise AssertionError("a policy is read without the studio")

    try:
        policy = Admission(user_policy=settings.policy, project=project_folder(), studio=nobody).policy()
    except SetupError as error:
        yield Finding(area="policy", level="problem", says=str(error), remedy="Correct the file it names.")
        return
    if policy is not None:
        yield Finding(
            area="policy", level="good", says=f"Rules hold: {', '.join(layer.name for layer in policy.layers)}."
        )


def _places(settings: Settings) -> Iterator[Finding]:
    """Folders, the room on their disks, the library, and who else has it open."""
    try:
        places = open_places(settings)
        check_room(A_PICTURE, places.output, places.state)
    except SetupError as error:
        yield Finding(area="disk", level="problem", says=str(error), remedy="Make room, or name another folder.")
        return
    yield _room(places)
    level, words, remedy = LIBRARY["missing"]
    state, pictures = condition(settings.database_path)
    level, words, remedy = LIBRARY[state]
    count = f" ({pictures} pictures)" if pictures else ""
    yield Finding(area="library", level=level, says=f"{settings.database_path} {words}{count}.", remedy=remedy)
    if state == "missing" and places.records.is_dir() and any(places.records.glob("img_*.json")):
        yield Finding(
            area="library",
            level="problem",
            says=f"{places.output} has records of pictures that were in another library.",
            remedy="Put that one back, or run 'nanobanana rebuild'.",
        )
    others = how_many_alive(places)
    if others:
        yield Finding(
            area="library",
            level="note",
            says=f"{others} of this program's servers have it open; they share its limits.",
        )


def _room(places: Places) -> Finding:
    there = next(parent for parent in (places.output, *places.output.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    says = f"Pictures go to {places.output}; {free / 1e9:.1f} GB are free there."
    if free < LITTLE_ROOM:
        return Finding(area="disk", level="warning", says=says, remedy="Make room before a large job.")
    return Finding(area="disk", level="good", says=says)
