"""Libraries of a thousand and a hundred thousand pictures, entered without making the pictures."""

import hashlib
from datetime import timedelta
from pathlib import Path

from sqlalchemy import insert

from nanobanana_mcp.domain.ids import new_id, now
from nanobanana_mcp.domain.records import ImageRecord, Parent
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.tables import calls, days, image_sources, images, requests, uploads

AT_A_TIME = 5000
MODEL = "gemini-3.1-flash-image"
PICTURE = b"\x89PNG not really"


def fill(
    database: Database,
    output: Path,
    *,
    count: int,
    files: int = 0,
    every: timedelta = timedelta(minutes=10),
) -> None:
    """Enter so many pictures, one in ten minutes of the last two years or `every` so often, each with its request and
    call, every third an edit of another, every tenth with an upload; the newest `files` of them get a file of a few bytes.
    """
    newest = now()
    with database.write() as connection:
        for start in range(0, count, AT_A_TIME):
            rows: dict[str, list[dict[str, object]]] = {"images": [], "edges": [], "requests": [], "calls": []}
            stays: list[dict[str, object]] = []
            for number in range(start, min(count, start + AT_A_TIME)):
                made = newest - every * (count - number)
                call = f"{number:016d}"
                path = output / f"picture-{number:06d}.png"
                if number >= count - files:
                    path.write_bytes(PICTURE + str(number).encode())
                picture = _picture(call, number, path).__dict__ | {"created_at": made}
                picture.pop("parents")
                rows["images"].append(picture)
                if number % 3 == 2:
                    parent = f"img_{number - 1:016d}"
                    rows["edges"].append(
                        {"image_id": picture["id"], "position": 0, "parent_id": parent, "role": "base"}
                    )
                rows["requests"].append(
                    {
                        "id": call,
                        "created_at": made,
                        "process": "1-gone",
                        "mode": "generate",
                        "tier": "flash",
                        "model_id": MODEL,
                        "backend": "gemini",
                        "plan": "{}",
                        "fingerprint": hashlib.sha256(call.encode()).hexdigest(),
                        "delivered_at": made,
                    }
                )
                rows["calls"].append(
                    {
                        "id": call,
                        "request_id": call,
                        "position": 0,
                        "state": "done",
                        "estimate_usd": 0.067,
                        "cost_usd": 0.067,
                        "reserved_at": made,
                        "sent_at": made,
                        "settled_at": made,
                        "image_id": picture["id"],
                    }
                )
                if number % 10 == 0:
                    stays.append(
                        {
                            "id": new_id(),
                            "image_id": picture["id"],
                            "name": f"files/nb{number}",
                            "uri": "https://files.example/1",
                            "mime_type": "image/png",
                            "bytes": 100,
                            "sha256": "0" * 64,
                            "state": "active",
                            "created_at": made,
                            "expires_at": made + timedelta(hours=48),
                            "backend": "gemini",
                        }
                    )
            for table, some in (
                (images, rows["images"]),
                (image_sources, rows["edges"]),
                (requests, rows["requests"]),
                (calls, rows["calls"]),
                (uploads, stays),
            ):
                if some:
                    connection.execute(insert(table), some)
        daily = min(count, max(1, timedelta(days=1) // every))
        per_day = [
            {
                "day": (newest - timedelta(days=day)).date().isoformat(),
                "backend": "gemini",
                "tier": "flash",
                "mode": "generate",
                "pictures": daily,
                "bytes": daily * 800_000,
                "usd": daily * 0.067,
            }
            for day in range(max(1, count // daily))
        ]
        connection.execute(insert(days), per_day)


def chain(database: Database, length: int) -> str:
    """Enter a picture, an edit of it, an edit of that and so on; the id of the last one."""
    records = []
    for number in range(length + 1):
        call = f"c{number:015d}"
        parents = (Parent(image_id=f"img_c{number - 1:015d}", role="base"),) if number else ()
        records.append((_picture(call, number, Path(f"/nowhere/{number}.png")), parents))
    with database.write() as connection:
        rows = [{name: value for name, value in one.__dict__.items() if name != "parents"} for one, _ in records]
        connection.execute(insert(images), rows)
        edges = [
            {"image_id": one.id, "position": 0, "parent_id": parent.image_id, "role": parent.role}
            for one, parents in records
            for parent in parents
        ]
        connection.execute(insert(image_sources), edges)
    return records[-1][0].id


def _picture(call: str, number: int, path: Path) -> ImageRecord:
    content = PICTURE + str(number).encode()
    return ImageRecord(
        id=f"img_{call}",
        created_at=now(),
        origin="edited" if number % 3 == 2 else "generated",
        path=str(path),
        thumbnail_path=None,
        mime_type="image/png",
        width=1024,
        height=1024,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        prompt=f"A heron at dawn, number {number}.",
        mode="edit" if number % 3 == 2 else "generate",
        tier="flash",
        model_id=MODEL,
        backend="gemini",
        call_id=call,
    )
