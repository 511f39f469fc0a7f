"""The files kept beside each picture: its thumbnail, its record and the model's turn."""

import json
import os
import stat
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from nanobanana_mcp.domain.ids import is_image_id
from nanobanana_mcp.domain.records import ImageRecord, Parent
from nanobanana_mcp.domain.terms import Backend, Mode, Origin, Role
from nanobanana_mcp.storage.paths import Places, is_utf8
from nanobanana_mcp.storage.writing import make_private, replace_durably

MAX_RECORD_BYTES = 1_000_000


class Sidecars:
    """The files beside the pictures, by the picture's id."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def write_thumbnail(self, image_id: str, data: bytes, extension: str) -> Path:
        path = self._places.thumbnails / f"{image_id}{extension}"
        replace_durably(path, data, flush=False)  # not flushed: a thumbnail lost to a power cut can be made again
        return path

    def write_turn(self, image_id: str, body: bytes) -> None:
        """Write the model's turn of a picture, so that its conversation can go on later and from another library."""
        replace_durably(self._turn(image_id), body, flush=False)  # without it an edit begins afresh

    def read_turn(self, image_id: str) -> bytes | None:
        path = self._turn(image_id)
        return path.read_bytes() if path.is_file() else None

    def write_record(self, record: ImageRecord, *, extra: dict[str, Any] | None = None) -> None:
        """Write the picture's record, from which a new library is rebuilt when the database is lost."""
        body = asdict(record) | {"created_at": record.created_at.isoformat()} | (extra or {})
        replace_durably(self._record(record.id), json.dumps(body, ensure_ascii=False, indent=1).encode())

    def write_notes(self, image_id: str, notes: dict[str, Any] | None) -> None:
        """Writes the notes on a picture to a file apart from its record, which is written anew when its file moves;
        None removes that file.
        """
        if notes is None:
            self._notes(image_id).unlink(missing_ok=True)
        else:
            replace_durably(self._notes(image_id), json.dumps(notes, ensure_ascii=False, indent=1).encode())

    def read_notes(self, image_id: str) -> dict[str, Any] | None:
        """Reads the notes on a picture; None where there are none or the file is none of ours."""
        try:
            body = json.loads(_record_bytes(self._notes(image_id)))
        except (OSError, ValueError, RecursionError):
            return None
        return body if isinstance(body, dict) else None

    def forget(self, image_id: str) -> None:
        """Remove everything that lies beside a picture. Raises OSError."""
        for path in (*self._thumbnails(image_id), self._turn(image_id), self._notes(image_id), self._record(image_id)):
            path.unlink(missing_ok=True)

    def has_record(self, image_id: str) -> bool:
        return self._record(image_id).is_file()

    def begin(self, image_id: str) -> bool:
        """Note that a file is about to be made. True when an earlier attempt, which was cut short, had noted it before."""
        note = self._begun(image_id)
        try:
            make_private(note.parent)
            os.close(os.open(note, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return True
        return False

    def ended(self, image_id: str) -> None:
        with suppress(OSError):  # at worst a later attempt checks a file with the same bytes once more
            self._begun(image_id).unlink(missing_ok=True)

    def _record(self, image_id: str) -> Path:
        return self._places.records / f"{image_id}.json"

    def _notes(self, image_id: str) -> Path:
        return self._places.own / "notes" / f"{image_id}.json"

    def _thumbnails(self, image_id: str) -> list[Path]:
        return [self._places.thumbnails / f"{image_id}{suffix}" for suffix in (".jpg", ".webp", ".png")]

    def _turn(self, image_id: str) -> Path:
        return self._places.own / "turns" / f"{image_id}.json"

    def _begun(self, image_id: str) -> Path:
        return self._places.state / "begun" / image_id


def read_record(path: Path) -> ImageRecord | None:
    """Read a record; None when the file is not a record of ours."""
    try:
        body = json.loads(_record_bytes(path))
        parents = tuple(Parent(**parent) for parent in body.pop("parents"))
        body["created_at"] = datetime.fromisoformat(body["created_at"])
        known = {name: body[name] for name in ImageRecord.__dataclass_fields__ if name in body}
        record = ImageRecord(**known, parents=parents)
        return record if _is_sound(record) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None


def _record_bytes(path: Path) -> bytes:
    """Read a bounded number of bytes, and of a plain file only: reading a pipe would wait for ever. Raises OSError or
    ValueError.
    """
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_RECORD_BYTES:
        raise ValueError(f"{path} is no record")
    return path.read_bytes()


def _is_sound(record: ImageRecord) -> bool:
    """Tells whether a record has what the library demands: anybody may have edited the file."""
    words = (record.mime_type, record.sha256, *(parent.image_id for parent in record.parents))
    optional = (
        record.path,
        record.thumbnail_path,
        record.prompt,
        record.tier,
        record.model_id,
        record.call_id,
        record.words,
    )
    chosen = (
        (record.origin, get_args(Origin)),
        (record.mode, (*get_args(Mode), None)),
        (record.backend, (*get_args(Backend), None)),
        *((parent.role, get_args(Role)) for parent in record.parents),
    )
    return (
        isinstance(record.id, str)
        and is_image_id(record.id)
        and all(isinstance(word, str) for word in words)
        and all(word is None or isinstance(word, str) for word in optional)
        and all(word in known for word, known in chosen)
        and all(type(number) is int and 0 <= number < 2**40 for number in (record.width, record.height, record.bytes))
        and record.created_at.tzinfo is not None
        and 2000 < record.created_at.year < 3000
        and "\0" not in (record.path or "")
        and all(is_utf8(Path(word)) for word in (*words, *(word for word in optional if word)))
    )
