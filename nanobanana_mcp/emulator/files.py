"""The Files API: resumable uploads, reading back, pages, deletion and expiry after 48 hours."""

import base64
import hashlib
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from starlette.requests import Request

from nanobanana_mcp.emulator.control import Control
from nanobanana_mcp.emulator.wire import GoogleError

T = TypeVar("T")

_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
URI_PREFIX = "https://generativelanguage.googleapis.com/v1beta/files/"


@dataclass(frozen=True, kw_only=True)
class File:
    """One finished upload; times are seconds since 1970, `key` is who may see it."""

    id: str
    key: str
    data: bytes = field(repr=False)
    mime: str
    display_name: str | None
    created: float
    expires: float
    generated: bool = False

    def resource(self) -> dict[str, Any]:
        """The File resource as Google sends it; sha256Hash is the base64 of the hexadecimal text."""
        digest = hashlib.sha256(self.data).hexdigest()
        extra = {"displayName": self.display_name} if self.display_name is not None else {}
        if self.generated:
            extra["downloadUri"] = f"{URI_PREFIX}{self.id}:download?alt=media"
        return extra | {
            "name": f"files/{self.id}",
            "mimeType": self.mime,
            "sizeBytes": str(len(self.data)),
            "createTime": timestamp(self.created),
            "updateTime": timestamp(self.created),
            "expirationTime": timestamp(self.expires),
            "sha256Hash": base64.b64encode(digest.encode()).decode(),
            "uri": URI_PREFIX + self.id,
            "state": "ACTIVE",
            "source": "GENERATED" if self.generated else "UPLOADED",
        }


@dataclass(kw_only=True)
class Upload:
    """An upload under way."""

    key: str
    file_id: str
    mime: str
    display_name: str | None
    size: int | None
    received: bytearray = field(default_factory=bytearray, repr=False)


class Files:
    """Every file of every key, in memory."""

    def __init__(self, *, clock: Callable[[], float], control: Control) -> None:
        self._clock = clock
        self._control = control
        self._files: dict[str, File] = {}
        self._uploads: dict[str, Upload] = {}

    def start(self, *, key: str, file: Mapping[str, Any], headers: Mapping[str, str]) -> str:
        """Begin an upload; answers its id. `file` is the request's File as parsed."""
        name = file.get("name")
        file_id = secrets.token_hex(6) if name is None else str(name).removeprefix("files/")
        if not _ID.fullmatch(file_id):
            raise GoogleError(
                400,
                f"* CreateFileRequest.file.name: Invalid resource name: {name}. An id has up to 40 lowercase letters, "
                "digits and inner dashes.",
            )
        if file_id in self._files and not self._gone(self._files[file_id]):
            raise GoogleError(409, f"File files/{file_id} already exists.")
        if len(file.get("displayName", "")) > 512:
            raise GoogleError(400, "* CreateFileRequest.file.display_name: longer than 512 characters.")
        mime = file.get("mimeType") or headers.get("x-goog-upload-header-content-type")
        if not mime:
            raise GoogleError(400, "* CreateFileRequest.file.mime_type: MIME type of the file is unknown.")
        length = headers.get("x-goog-upload-header-content-length")
        size = file.get("sizeBytes", int(length) if length and length.isdigit() else None)
        upload_id = secrets.token_urlsafe(16)
        self._uploads[upload_id] = Upload(
            key=key, file_id=file_id, mime=mime, display_name=file.get("displayName"), size=size
        )
        return upload_id

    def take(self, upload_id: str, *, command: str, offset: str | None, data: bytes) -> tuple[str, File | None]:
        """Do one command of an upload; answers the X-Goog-Upload-Status and, when final, the file."""
        upload = self._uploads.get(upload_id)
        if upload is None:
            raise GoogleError(404, "Upload session not found or already finished.")
        commands = {word.strip() for word in command.split(",")}
        if commands == {"cancel"}:
            del self._uploads[upload_id]
            return "cancelled", None
        if commands == {"query"}:
            return "active", None
        if not commands <= {"upload", "finalize"}:
            raise GoogleError(400, f"Invalid X-Goog-Upload-Command: {command}")
        if "upload" in commands:
            if offset != str(len(upload.received)):
                raise GoogleError(400, f"Upload offset {offset} is not the {len(upload.received)} bytes received.")
            upload.received += data
        if "finalize" not in commands:
            return "active", None
        if upload.size is not None and upload.size != len(upload.received):
            raise GoogleError(400, f"Upload has {len(upload.received)} bytes, {upload.size} were announced.")
        del self._uploads[upload_id]
        return "final", self._keep(
            id=upload.file_id,
            key=upload.key,
            data=bytes(upload.received),
            mime=upload.mime,
            display_name=upload.display_name,
        )

    def generate(self, file_id: str, *, key: str, data: bytes, mime: str) -> File:
        """Keep a file that Google made itself; only such a one can be downloaded."""
        return self._keep(id=file_id, key=key, data=data, mime=mime, display_name=None, generated=True)

    def _keep(self, **parts: Any) -> File:
        now = self._clock()
        file = File(created=now, expires=now + self._control.file_ttl_s, **parts)
        self._files[file.id] = file
        return file

    def received(self, upload_id: str) -> int:
        """The number of bytes of an unfinished upload that have come."""
        upload = self._uploads.get(upload_id)
        return len(upload.received) if upload else 0

    def get(self, file_id: str, *, key: str) -> File:
        """The file; one unknown, expired, deleted or of another key is refused in the same words."""
        file = self._files.get(file_id)
        if file is None or file.key != key or self._gone(file):
            raise GoogleError(403, f"You do not have permission to access the File {file_id} or it may not exist.")
        return file

    def download(self, file_id: str, *, key: str) -> File:
        """The file, if its bytes are given out."""
        file = self.get(file_id, key=key)
        if not file.generated:
            raise GoogleError(400, "Only generated files can be downloaded, uploaded files can't be downloaded.")
        return file

    def page(self, *, key: str, size: int | None, token: str | None) -> tuple[list[File], str | None]:
        """A page of the key's files, newest first, and the token of the next page."""
        mine = sorted(
            (file for file in self._files.values() if file.key == key and not self._gone(file)),
            key=lambda file: (file.created, file.id),
            reverse=True,
        )
        return page_of(mine, size=size, token=token, usual=10, largest=100)

    def delete(self, file_id: str, *, key: str) -> None:
        """Forget the file at once."""
        del self._files[self.get(file_id, key=key).id]

    def clear(self) -> None:
        """Forget every file and every upload."""
        self._files.clear()
        self._uploads.clear()

    def _gone(self, file: File) -> bool:
        return file.expires <= self._clock()


def page_of(
    items: list[T], *, size: int | None, token: str | None, usual: int, largest: int
) -> tuple[list[T], str | None]:
    """`size` (else `usual`) items from where `token` points, and the token of the next page. Raises GoogleError 400."""
    if token is not None and not re.fullmatch(r"p\d{1,9}", token):
        raise GoogleError(400, "Page token is invalid.")
    if size is not None and not 0 <= size <= largest:
        raise GoogleError(400, f"Page size must be between 0 and {largest}.")
    first = int(token[1:]) if token else 0
    last = first + (size or usual)
    return items[first:last], f"p{last}" if last < len(items) else None


def paging(request: Request) -> tuple[int | None, str | None]:
    """The size and the token of the page that is asked for. Raises GoogleError 400."""
    size = request.query_params.get("pageSize")
    if size is not None and not re.fullmatch(r"-?\d{1,9}", size):
        raise GoogleError(400, f"Invalid value at 'page_size' (TYPE_INT32), \"{size}\"")
    return None if size is None else int(size), request.query_params.get("pageToken")


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC with nine digits, as Google writes it; a float holds no more than the microseconds of today."""
    microseconds = round(seconds * 1_000_000)
    whole = datetime.fromtimestamp(microseconds // 1_000_000, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{microseconds % 1_000_000:06d}000Z"
