"""Deletes a picture for good, with everything that is known of it, once a person has confirmed it."""

import hashlib
from pathlib import Path

from nanobanana_mcp.domain.errors import RequestError, SetupError
from nanobanana_mcp.domain.finding import Deletion
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.jobs.files import no_such_picture
from nanobanana_mcp.jobs.store import PictureStore
from nanobanana_mcp.studio.maintenance import is_plain
from nanobanana_mcp.studio.search import Search, state_of


class Deletions:
    """Deletes pictures that are in the trash, or whose files are gone; of a caller's own picture only the record."""

    def __init__(self, store: PictureStore, search: Search) -> None:
        self._store = store
        self._search = search
        self._disk = store.disk

    def about(self, image_id: str) -> Deletion:
        """Returns the files that would go, with the token that confirms it. Raises SourceNotFound, and RequestError for
        a picture that is not in the trash.
        """
        return self._about(image_id)[0]

    def delete(self, image_id: str, token: str) -> Deletion:
        """Deletes the files that `about` returned, if nothing changed since. Raises RequestError, SetupError.

        The files go first and the row last: after a kill in between, the library has the picture without its file, and
        it can be deleted again.
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
        self._search.forget_deleted()
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
        self._check_unchanged(record)
        children = library.child_count(image_id)
        masks = library.children(image_id, origin="mask", most=children)
        records = [record, *self._own_parts(record), *masks]
        children -= len(masks)
        facts = [f"{one.id} {one.sha256} {one.path} {one.trash_path}" for one in records]
        facts += [str(children), *(one.id for one in library.children(image_id, most=1))]
        deletion = Deletion(
            id=image_id,
            path=None if record.origin == "imported" else record.trash_path or record.path,
            bytes=sum(one.bytes for one in records if one.origin != "imported"),
            children=children,
            token=hashlib.sha256("\n".join(facts).encode()).hexdigest()[:24],
        )
        return deletion, records

    def _own_parts(self, record: ImageRecord) -> list[ImageRecord]:
        """The model's answers that only this picture was put together from."""
        library = self._store.library
        found = []
        for parent in record.parents:
            part = library.get(parent.image_id) if parent.role == "part" else None
            if (
                part is not None
                and part.origin == "part"
                and {one.id for one in library.children(part.id, most=2)} == {record.id}
            ):
                found.append(part)
        return found

    def _check_unchanged(self, record: ImageRecord) -> None:
        """Raises SetupError where the file may only be out of reach, RequestError where somebody changed it in the trash."""
        if record.origin == "imported" or (record.trash_path or record.path) is None:
            return
        held, output = Path(record.trash_path or record.path or ""), self._disk.places.output
        folder = output if held.is_relative_to(output) else held.parent
        if not folder.is_dir():
            raise SetupError(f"The folder {folder} is not there. Mount or restore it; nothing was deleted.")
        if record.trash_path is not None and is_plain(held) and not self._is_ours(held, record):
            raise RequestError(
                f"The file {held} was changed since it was made, so it is not deleted. Move it elsewhere, and ask again."
            )

    def _drop_files(self, record: ImageRecord) -> None:
        if record.origin == "imported":
            return
        places = self._disk.places
        for path in (record.trash_path, record.path if record.origin in ("part", "mask") else None):
            held = Path(path) if path is not None else None
            if held is not None and held.is_relative_to(places.own) and is_plain(held) and self._is_ours(held, record):
                held.unlink()
        self._disk.sidecars.forget(record.id)

    def _is_ours(self, path: Path, record: ImageRecord) -> bool:
        return self._disk.has(path, record.sha256)
