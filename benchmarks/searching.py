"""Measures searches of a large library, how long a reservation waits meanwhile, and close looks at large pictures."""

import asyncio
import gc
import itertools
import random
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.bench import Bench
from benchmarks.results import Goal, Result
from nanobanana_mcp.domain.finding import FindRequest, ViewRequest
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.studio.open import open_studio
from nanobanana_mcp.studio.studio import Studio

PAGE = 20
SUBJECTS = [
    "panda",
    "lighthouse",
    "harbour",
    "teapot",
    "bicycle",
    "orchid",
    "glacier",
    "violin",
    "lantern",
    "mosque",
    "tram",
    "heron",
    "walnut",
    "compass",
]
LOOKS = [
    "red",
    "blue",
    "golden",
    "quiet",
    "stormy",
    "tiny",
    "enormous",
    "paper",
    "glass",
    "wooden",
    "neon",
    "faded",
    "early",
    "late",
    "frozen",
    "burning",
]
PLACES = [
    "in a café at night",
    "on the coast of Brittany",
    "under a viaduct",
    "in zero gravity",
    "at a night market",
    "behind frosted glass",
    "beside a canal",
]
STYLES = [
    "watercolour",
    "35 mm photograph",
    "isometric vector",
    "linocut",
    "oil on canvas",
    "pencil sketch",
    "studio light",
    "poster of 1930",
]

WRITER = """
import sys, time, statistics
from pathlib import Path
from nanobanana_mcp.domain.budget import Limits
from nanobanana_mcp.domain.ids import new_id, now
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.journal import Journal, RequestRow
journal = Journal(Database.open(Path(sys.argv[1])))
taken = []
until = time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    one = new_id()
    row = RequestRow(id=one, created_at=now(), process="1-bench", mode="generate", tier="flash", model_id="m",
                     backend="gemini", plan="{}", fingerprint=one)
    begun = time.perf_counter()
    reservation = journal.reserve(row, n=1, estimate_usd=0.0, limits=Limits())
    taken.append((time.perf_counter() - begun) * 1000)
    journal.mark_failed(reservation.calls[0].id, reason="NEVER_SENT", message="", cost_usd=0.0)
    time.sleep(0.01)
taken.sort()
print(len(taken), statistics.median(taken), taken[int(len(taken) * 0.99)], taken[-1])
"""
"""A program that reserves a call and gives it back, a hundred times a second."""


def search(bench: Bench) -> Iterator[Result]:
    """Asks the same questions of libraries of 100,000 and 1,000,000 pictures, beside LIKE on the prompts."""
    for count in (10_000,) if bench.quick else (100_000, 1_000_000):
        folder = bench.folder / f"search-{count}"
        folder.mkdir()
        studio = _opened(folder)
        try:
            _fill(folder / "library.db", folder, count)
            begun = time.perf_counter()
            studio._search.follow(lambda: False)
            indexed = time.perf_counter() - begun
            yield from asyncio.run(_asked(studio, folder / "library.db", count, indexed, 20 if bench.quick else 300))
        finally:
            asyncio.run(studio.close())


async def _asked(studio: Studio, database: Path, count: int, indexed: float, rounds: int) -> list[Result]:
    chance = random.Random(7)
    await studio.find_images(FindRequest(query="panda", limit=PAGE))
    ours, like, by_kind, busy = [], [], dict[str, list[float]](), []
    plain = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    for _ in range(rounds):
        kind, wanted = _question(chance, count)
        begun, worked = time.perf_counter(), time.process_time()
        page = await studio.find_images(wanted)
        taken = (time.perf_counter() - begun) * 1000
        busy.append((time.process_time() - worked) * 1000)
        ours.append(taken)
        by_kind.setdefault(kind, []).append(taken)
        words = (wanted.query or "").replace('"', "").replace("*", "").split()
        if kind != "newest":
            begun = time.perf_counter()
            _like(plain, [" ".join(words)] if kind == "phrase" else words)
            like.append((time.perf_counter() - begun) * 1000)
        if kind == "common" and not page.pictures:
            raise RuntimeError("A common word was not found.")
    plain.close()
    goal = 20 if count <= 100_000 else 100
    detail = {kind: {"p50": statistics.median(some), "most": max(some)} for kind, some in by_kind.items()}
    detail["processor time"] = {"p50": statistics.median(busy), "p95": _p(busy, 95)}
    chance = random.Random(11)
    questions = (_question(chance, count)[1] for _ in itertools.count())
    waits = {
        "idle": _waits(database, None),
        "searching": await _while_asking(database, lambda: studio.find_images(next(questions))),
    }
    held = _waits(database, lambda: _read(database, LIKE))
    family = count // 20
    _descend(database, family)
    # Each asks for a little more than the one before, so that none is answered by what is known of it.
    oldest, old = "img_" + "0" * 16, datetime(2000, 1, 1, tzinfo=UTC)
    kin = (
        FindRequest(made_from=oldest, since=old - timedelta(days=number), limit=PAGE) for number in itertools.count()
    )
    waits["descendants"] = await _while_asking(database, lambda: studio.find_images(next(kin)))
    waits["lineage"] = await _while_asking(database, lambda: studio.lineage(oldest))
    walked = _waits(database, lambda: _read(database, WALK))
    sorted_whole = _waits(database, lambda: _read(database, OFFSPRING))
    named = f"{count:,}"
    size = database.with_name(f"{database.name}.search").stat().st_size
    return [
        Result(job=f"search in {named}, p50", unit="ms", ours=statistics.median(ours), beside={"bare": statistics.median(like)}, detail=detail),
        Result(job=f"search in {named}, p95", unit="ms", ours=_p(ours, 95), beside={"bare": _p(like, 95)}, goals=(Goal(most=goal),)),
        Result(job=f"index of {named} made anew", unit="ms", ours=indexed * 1000, detail={"bytes": size}),
        Result(job=f"reserving while {named} are searched, p99", unit="ms", ours=waits["searching"][2], beside={"bare": held[2]}, detail={"idle": waits["idle"], "searching": waits["searching"], "beside LIKE": held}),
        Result(job=f"reserving while {family:,} descendants are looked for, the longest", unit="ms", ours=waits["descendants"][3], beside={"bare": walked[3]}, goals=(Goal(most=300),), detail={"idle": waits["idle"], "ours": waits["descendants"], "beside one statement": walked}),
        Result(job=f"reserving while a lineage with {family // 2:,} children is read, the longest", unit="ms", ours=waits["lineage"][3], beside={"bare": sorted_whole[3]}, goals=(Goal(most=300),), detail={"idle": waits["idle"], "ours": waits["lineage"], "beside one statement": sorted_whole}),
    ]  # fmt: skip


def _question(chance: random.Random, count: int) -> tuple[str, FindRequest]:
    subject, look = chance.choice(SUBJECTS), chance.choice(LOOKS)
    questions = [
        ("common", FindRequest(query=subject, limit=PAGE)),
        ("two words", FindRequest(query=f"{look} {subject}", limit=PAGE)),
        ("rare", FindRequest(query=f"number{chance.randrange(count)}", limit=PAGE)),
        ("none", FindRequest(query=f"nothing{chance.randrange(count)}", limit=PAGE)),
        ("phrase", FindRequest(query=f'"{look} {subject}"', limit=PAGE)),
        ("begin", FindRequest(query=f"{subject[:3]}*", limit=PAGE)),
        ("long begin", FindRequest(query=f"number{chance.randrange(10, 100)}*", limit=PAGE)),
        ("filtered", FindRequest(query=subject, tier="pro", mode="edit", limit=PAGE)),
        ("newest", FindRequest(limit=PAGE)),
    ]
    return chance.choice(questions)


def _like(connection: sqlite3.Connection, words: list[str]) -> None:
    where = " AND ".join("prompt LIKE ?" for _ in words)
    query = f"SELECT id FROM images WHERE {where} ORDER BY created_at DESC LIMIT {PAGE}"
    connection.execute(query, [f"%{word}%" for word in words]).fetchall()


LIKE = f"SELECT id FROM images WHERE prompt LIKE '%nothing at all%' ORDER BY created_at DESC LIMIT {PAGE}"
WALK = f"""
WITH RECURSIVE kin(id) AS (
  SELECT image_id FROM image_sources WHERE parent_id = 'img_{"0" * 16}'
  UNION SELECT image_id FROM image_sources JOIN kin ON parent_id = kin.id
) SELECT id FROM images WHERE id IN kin ORDER BY created_at DESC, id DESC LIMIT {PAGE}"""
"""The same search as one statement."""

OFFSPRING = f"""
SELECT * FROM images WHERE id IN (SELECT image_id FROM image_sources WHERE parent_id = 'img_{"0" * 16}')
ORDER BY created_at DESC, id DESC LIMIT 100"""
"""The children of a lineage as one statement."""


def _read(database: Path, query: str) -> None:
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute(query).fetchall()


def _descend(database: Path, many: int) -> None:
    """Let so many pictures come of the oldest: half of them of itself, each of the others of one of these."""
    edges = ((f"img_{one:016d}", f"img_{max(0, one - many // 2):016d}") for one in range(1, many + 1))
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany("INSERT INTO image_sources VALUES (?, 0, ?, 'base')", edges)


def _waits(database: Path, meanwhile: Callable[[], None] | None, seconds: float = 5.0) -> tuple[float, ...]:
    """The number of reservations, and their median, 99th percentile and longest in ms."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(database), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    while meanwhile is not None and writer.poll() is None:
        meanwhile()
    return tuple(float(one) for one in writer.communicate()[0].split())


async def _while_asking(database: Path, ask: Callable[[], Awaitable[object]]) -> tuple[float, ...]:
    waiting = asyncio.create_task(asyncio.to_thread(_waits, database, None))
    while not waiting.done():
        await ask()
    return await waiting


def look(bench: Bench) -> Iterator[Result]:
    """A box of a 24-megapixel JPEG and of a 4K PNG, and two of each compared."""
    folder = bench.folder / "look"
    folder.mkdir()
    studio = _opened(folder)
    try:
        for name, size, kind in (("24 megapixel JPEG", (6000, 4000), "JPEG"), ("4K PNG", (3840, 2160), "PNG")):
            paths = [folder / f"{number}.{kind.lower()}" for number in (1, 2)]
            for number, path in enumerate(paths):
                path.write_bytes(_photograph(size, number, kind))
            box = (size[0] // 2, size[1] // 2, size[0] // 2 + 900, size[1] // 2 + 700)
            asked = {
                "a box": ViewRequest(image=str(paths[0]), box=box),
                "the whole": ViewRequest(image=str(paths[0])),
                "compared": ViewRequest(image=str(paths[0]), box=box, compare_with=str(paths[1])),
            }
            for what, wanted in asked.items():
                taken, largest = [], 0
                for _ in bench.rounds(7, 2):
                    begun = time.perf_counter()
                    seen = asyncio.run(studio.view(wanted))
                    taken.append((time.perf_counter() - begun) * 1000)
                    largest = max(largest, sum(len(one.data) for one in seen.look.pictures))
                yield Result(
                    job=f"view_image, {name}, {what}",
                    unit="ms",
                    ours=statistics.median(taken),
                    detail={"bytes": largest},
                )
    finally:
        asyncio.run(studio.close())


def _photograph(size: tuple[int, int], number: int, kind: str) -> bytes:
    """Gradients, shapes and noise: as many bytes as a photograph has, about."""
    chance = np.random.default_rng(3)
    rows, columns = np.ogrid[: size[1], : size[0]]
    base = np.stack([(columns + 0 * rows) % 251, (rows + 0 * columns) % 241, (rows + columns) % 239], axis=2)
    pixels = np.clip(base + chance.normal(0, 6, (size[1], size[0], 1)), 0, 255).astype(np.uint8)
    if number:
        pixels[size[1] // 2 + 100 : size[1] // 2 + 200, size[0] // 2 + 100 : size[0] // 2 + 300] = (200, 30, 30)
    out = BytesIO()
    Image.fromarray(pixels).save(out, kind, **({"quality": 92} if kind == "JPEG" else {"compress_level": 1}))
    return out.getvalue()


def _opened(folder: Path) -> Studio:
    studio = open_studio(
        Settings(
            GEMINI_API_KEY="AIzaBench",
            NANOBANANA_OUTPUT_DIR=folder / "pictures",
            database_url=f"sqlite:///{folder / 'library.db'}",
        )
    )
    gc.freeze()  # as the server and the gallery do, so that the collector does not go through a thousand modules
    return studio


def _fill(database: Path, folder: Path, count: int) -> None:
    """Enter so many pictures with prompts of their own, one in five minutes."""
    chance = random.Random(1)
    start = int(time.time() * 1000) - count * 300_000

    def rows() -> Iterator[tuple[object, ...]]:
        for number in range(count):
            prompt = (
                f"{chance.choice(STYLES)} of a {chance.choice(LOOKS)} {chance.choice(SUBJECTS)} {chance.choice(PLACES)}, "
                f"with {chance.choice(LOOKS)} {chance.choice(LOOKS)} colours and plenty of room above, number{number}"
            )
            edited = number % 3 == 2
            yield (
                f"img_{number:016d}", start + number * 300_000, "edited" if edited else "generated",
                f"{folder}/pictures/picture-{number:07d}.png", "image/png", 1024, 1024, 900_000, f"{number:064x}", prompt,
                "edit" if edited else "generate", "pro" if number % 5 == 0 else "flash", "m", "gemini", f"{number:016d}",
            )  # fmt: skip

    connection = sqlite3.connect(database)
    with connection:
        connection.executemany(
            "INSERT INTO images (id, created_at, origin, path, mime_type, width, height, bytes, sha256, prompt, mode, tier,"
            " model_id, backend, call_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows(),
        )
    connection.close()


def _p(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]
