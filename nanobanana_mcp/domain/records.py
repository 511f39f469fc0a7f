"""The records of pictures and uploads, as the library has them."""

from dataclasses import dataclass
from datetime import datetime

from nanobanana_mcp.domain.terms import Backend, Mode, Origin, Role, UploadState


@dataclass(frozen=True, kw_only=True)
class Upload:
    """One upload to the Files API. `name` is `files/...` and is chosen by us; it ends when Google lets the file expire."""

    id: str
    image_id: str
    name: str
    uri: str | None
    mime_type: str
    bytes: int
    sha256: str
    """The digest of the bytes that were sent, which for a caller's own photo are the file's without its metadata."""
    display_name: str | None
    state: UploadState
    created_at: datetime
    expires_at: datetime | None
    backend: Backend
    error: str | None = None

    def alive(self, at: datetime, *, margin_s: float = 0) -> bool:
        """Tells whether a request sent at `at` may use it; `margin_s` keeps clear of the expiry."""
        if self.state != "active" or self.expires_at is None:
            return False
        return (self.expires_at - at).total_seconds() > margin_s


@dataclass(frozen=True, kw_only=True)
class Parent:
    """One edge of the lineage, from a picture to what it was made from."""

    image_id: str
    role: Role


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """One picture the library knows. An imported one is the caller's own file: referenced, never copied or removed."""

    id: str
    created_at: datetime
    origin: Origin
    path: str | None
    """Absolute path of the master; None for a picture known only from the Files API."""
    thumbnail_path: str | None
    mime_type: str
    width: int
    height: int
    bytes: int
    sha256: str
    prompt: str | None = None
    mode: Mode | None = None
    tier: str | None = None
    model_id: str | None = None
    backend: Backend | None = None
    call_id: str | None = None
    trash_path: str | None = None
    """The path to which maintenance moved the master; the record and the lineage stay."""
    words: str | None = None
    """The words that the model wrote beside the picture."""
    parents: tuple[Parent, ...] = ()


def made_here(origin: Origin, parents: tuple[Parent, ...]) -> bool:
    """Tells whether a picture was made on this machine, out of a caller's or the model's."""
    return origin in ("derived", "mask") or any(parent.role == "part" for parent in parents)
