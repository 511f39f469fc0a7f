"""Uploads pictures to the Files API under ids of our own, in the background, and again when they have expired."""

import asyncio
import hashlib
from datetime import timedelta
from weakref import WeakValueDictionary

from nanobanana_mcp.domain.errors import ServiceError, SourceNotFound, StudioError
from nanobanana_mcp.domain.ids import new_id, now
from nanobanana_mcp.domain.provider import ImageModel
from nanobanana_mcp.domain.records import ImageRecord, Upload
from nanobanana_mcp.domain.terms import Backend
from nanobanana_mcp.jobs.store import PictureStore

MARGIN_S = 600
"""Seconds that an upload must still live to be used: a request may wait for minutes before it is read."""

RETENTION = timedelta(hours=48)
"""The time that Google keeps a file; used only until Google has said so itself."""

DISPLAY_NAME = 512
"""Characters that the Files API takes."""


class Uploads:
    """Knows the uploads under way in this process; the library knows all others."""

    def __init__(self, model: ImageModel, store: PictureStore, backend: Backend) -> None:
        self._model = model
        self._store = store
        self._library = store.library
        self._backend: Backend = backend
        self._running: dict[str, asyncio.Task[Upload]] = {}
        self._gate = asyncio.Semaphore(4)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def turn(self, image_id: str) -> asyncio.Lock:
        """Hold this while looking for a picture's upload and making one where there is none, so that only one is made."""
        lock = self._turns.get(image_id)
        if lock is None:
            lock = self._turns[image_id] = asyncio.Lock()
        return lock

    async def begin(self, record: ImageRecord, data: bytes, mime_type: str, display_name: str | None = None) -> Upload:
        """Enter an upload and start it; the returned row already has the name that the file will have."""
        upload = await asyncio.to_thread(self.prepare, record, data, mime_type, display_name)
        await asyncio.to_thread(self._library.add_upload, upload)
        self.start(upload, data)
        return upload

    def prepare(self, record: ImageRecord, data: bytes, mime_type: str, display_name: str | None = None) -> Upload:
        """An upload as it will be entered; nothing is sent or written yet."""
        upload_id = new_id()
        as_kept = record.origin != "imported" and len(data) == record.bytes  # else without its metadata
        return Upload(
            id=upload_id,
            image_id=record.id,
            name=f"files/nb{upload_id}",
            uri=None,
            mime_type=mime_type,
            bytes=len(data),
            sha256=record.sha256 if as_kept else hashlib.sha256(data).hexdigest(),
            display_name=display_name[:DISPLAY_NAME] if display_name else None,
            state="pending",
            created_at=now(),
            expires_at=None,
            backend=self._backend,
        )

    def start(self, upload: Upload, data: bytes) -> None:
        """Send an entered upload in the background."""
        task = asyncio.create_task(self._carry_out(upload, data))
        self._running[upload.name] = task
        task.add_done_callback(lambda done: self._finished(upload.name, done))

    async def wait(self, upload: Upload) -> Upload:
        """Wait for an upload of this process. Raises its error."""
        task = self._running.get(upload.name)
        return await asyncio.shield(task) if task is not None else upload

    async def ready(self, record: ImageRecord, *, data: bytes | None = None, mime_type: str = "") -> Upload:
        """A live upload of a picture: the one there is, or a new one made from `data` or the local file.

        Raises SourceNotFound when the local file is needed and is gone or changed.
        """
        async with self.turn(record.id):
            known = await asyncio.to_thread(self._library.newest_upload, record.id, self._backend)
            if known is not None and known.name in self._running:
                known = await self.wait(known)
            if known is not None and known.alive(now(), margin_s=MARGIN_S):
                return known
            name = known.display_name if known else None
            return await self.renew(record, display_name=name, data=data, mime_type=mime_type)

    async def put(
        self, record: ImageRecord, data: bytes | None, mime_type: str, display_name: str | None
    ) -> tuple[Upload, bool]:
        """A picture's upload that Gemini still has, or a new one; and whether it was already there. Raises
        SourceNotFound without `data` where it is not.
        """
        async with self.turn(record.id):
            known = await asyncio.to_thread(self._library.newest_upload, record.id, self._backend)
            if known is not None:
                known = await self.wait(known)
            if known is not None and known.alive(now()) and await self._model.look_up(known.name) is not None:
                return known, True
            if data is None:
                raise SourceNotFound("It is in the Files API already, under that name.")
            return await self.wait(await self.begin(record, data, mime_type, display_name)), False

    async def renew(
        self, record: ImageRecord, *, display_name: str | None = None, data: bytes | None = None, mime_type: str = ""
    ) -> Upload:
        """Upload a picture again, under a new name, and wait until it is there; `data` where it is at hand."""
        sent = (data, mime_type) if data is not None else await asyncio.to_thread(self._store.sendable, record)
        return await self.wait(await self.begin(record, *sent, display_name))

    async def drain(self, seconds: float) -> int:
        """Wait a while for the uploads under way; return how many are left, which are uploaded again when they are
        needed.
        """
        tasks = list(self._running.values())
        if not tasks:
            return 0
        _, left = await asyncio.wait(tasks, timeout=seconds)
        for task in left:
            task.cancel()
        return len(left)

    async def _carry_out(self, upload: Upload, data: bytes) -> Upload:
        try:
            async with self._gate:
                remote = await self._model.upload(upload.name, data, upload.mime_type, upload.display_name)
                for _ in range(10):
                    if remote.state != "processing":
                        break
                    await asyncio.sleep(1)
                    remote = await self._model.look_up(upload.name) or remote
            if remote.state != "active":
                raise ServiceError(f"The Files API did not take the picture (state {remote.state}).")
        except StudioError as error:
            await asyncio.to_thread(self._library.settle_upload, upload, state="failed", error=str(error))
            raise
        return await asyncio.to_thread(
            self._library.settle_upload,
            upload,
            state="active",
            uri=remote.uri,
            expires_at=remote.expires_at or upload.created_at + RETENTION,
        )

    def _finished(self, name: str, task: asyncio.Task[Upload]) -> None:
        self._running.pop(name, None)
        if not task.cancelled():
            task.exception()  # the row has it; a request that needs the file hears of it by wait() or makes a new one
