"""Deletes a picture for good, with everything that is known of it, once a person has said so twice."""

import hashlib
from pathlib import Path

from nanobanana_mcp.domain.errors import RequestError, SetupError
from nanobanana_mcp.domain.finding import Deletion
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.jobs.files import no_such_picture
from nanobanana_mcp.jobs.store import PictureStore
from nanobanana_mcp.studio.maintenance import is_plain
from nanobanana_mcp.studio.search import state_of


class Deletions:
    """Only what is in the trash already, or whose file is gone, is deleted; of a caller's own picture only the record."""

    def __init__(self, store: PictureStore) -> None:
        self._store = store
        self._disk = store.disk

    def about(self, image_id: str) -> Deletion:
        """What would go. Raises SourceNotFound, RequestError for a picture that is not in the trash."""
        return self._about(image_id)[0]

    def delete(self, image_id: str, token: str) -> Deletion:
        """Delete what `about` told, if it still is that. Raises RequestError, SetupError.

        The files go first and the row last: after a kill in between, the picture is told as one without a file, and the same
        can be asked once more.
        """
        with self._disk.tidying():
            deletion, records = self._about(image_id)
            if token != deletion.token:
                raise RequestError(f"{image_id} has changed since you were asked; nothing was deleted. Look again.")
            for record in records:
                try:
                    self._drop_files(record)
                except OSError as error:
                    raise SetupError(
                        f"{record.id} could not be deleted ({error.strerror}: {error.filename})."
                    ) from error
                self._store.library.forget(record.id)
                if record.call_id is not None and record.id == f"img_{record.call_id}":
                    self._store.journal.forget_words(record.call_id)
        return deletion

    def _about(self, image_id: str) -> tuple[Deletion, list[ImageRecord]]:
        library = self._store.library
        record = library.get(image_id)
        if record is None:
            raise no_such_picture(image_id, library)
        if record.origin != "imported" and state_of(record) == "present":
            raise RequestError(
                f"{image_id} is at {record.path}. Move it to the trash first; from there it can be deleted."
            )
        children = library.children(image_id)
        records = [record, *self._own_parts(record)]
        facts = [f"{one.id} {one.sha256} {one.path} {one.trash_path}" for one in (*records, *children)]
        deletion = Deletion(
            id=image_id,
            path=None if record.origin == "imported" else record.trash_path or record.path,
            bytes=sum(one.bytes for one in records if one.origin != "imported"),
            children=len(children),
            token=hashlib.sha256("\n".join(facts).encode()).hexdigest()[:24],
        )
        return deletion, records

    def _own_parts(self, record: ImageRecord) -> list[ImageRecord]:
        """The model's answers that this picture alone was put together from."""
        library = self._store.library
        found = []
        for parent in record.parents:
            part = library.get(parent.image_id) if parent.role == "part" else None
            if (
                part is not None
                and part.origin == "part"
                and {one.id for one in library.children(part.id)} == {record.id}
            ):
                found.append(part)
        return found

    def _drop_files(self, record: ImageRecord) -> None:
        if record.origin == "imported":
            return
        places = self._disk.places
        for path in (record.trash_path, record.path if record.origin == "part" else None):
            held = Path(path) if path is not None else None
            if held is not None and held.is_relative_to(places.own) and is_plain(held) and self._is_ours(held, record):
                held.unlink()
        self._disk.sidecars.forget(record.id)

    def _is_ours(self, path: Path, record: ImageRecord) -> bool:
        return self._disk.has(path, record.sha256)
