"""Continues a conversation with a model: sends its earlier turns again, with the signatures that Gemini demands."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nanobanana_mcp.domain.errors import StudioError
from nanobanana_mcp.domain.ids import child_id
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.domain.roles import worded_roles
from nanobanana_mcp.domain.terms import MAX_INPUTS, REQUEST_BYTES
from nanobanana_mcp.domain.wire import InputPart, ModelReply, Turn, TurnPart
from nanobanana_mcp.jobs.files import sendable
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.storage.disk import Disk

HISTORY_BYTES = 8 * 1024 * 1024
"""Pictures of earlier turns that a request carries: they are sent, and paid for as inputs, every time."""


@dataclass(frozen=True, kw_only=True)
class _Exchange:
    """A picture's own turn: what the user said and showed, and what the model answered."""

    user: Turn
    model: Turn
    previous: str | None

    @property
    def bytes(self) -> int:
        return sum(len(part.data or b"") for turn in (self.user, self.model) for part in turn.parts)

    @property
    def inputs(self) -> int:
        return sum(part.data is not None for part in self.user.parts)


def continued_picture(image_id: str, library: Library) -> str:
    """The picture whose conversation goes on. For an exact file this is the picture that Gemini delivered; any other file made
    from it, such as a crop, stands for itself.
    """
    record = library.get(image_id)
    if record is not None and record.origin == "derived" and record.parents:
        master = record.parents[0].image_id
        if image_id == child_id(master, "exact"):
            return master
    return image_id


def remember(record: ImageRecord, reply: ModelReply, request: ImageRequest, continues: str | None, disk: Disk) -> None:
    """Keep a picture's turn beside its record, with a mark in place of the picture's bytes. `continues` is the picture
    whose conversation went on; None when this turn began one.
    """
    model = []
    for part in reply.turn:
        entry: dict[str, Any] = {"text": part.text, "mime_type": part.mime_type}
        if part.data is not None:
            entry["data"] = "master" if part.data == reply.image else base64.b64encode(part.data).decode()
        if part.signature is not None:
            entry["signature"] = base64.b64encode(part.signature).decode()
        model.append(entry)
    shown = [parent.image_id for parent in record.parents]
    body = {
        "previous": continues,
        "text": request.prompt,
        "roles": worded_roles(request.input_roles, first=2 if continues is None and request.continue_from else 1),
        "inputs": shown if continues is None else shown[1:],
        "negative": request.negative_prompt,
        "model": model,
    }
    disk.sidecars.write_turn(record.id, json.dumps(body, ensure_ascii=False).encode())


def history_of(
    image_id: str, library: Library, disk: Disk, *, beside: Sequence[InputPart] = (), model_id: str | None = None
) -> tuple[tuple[Turn, ...], list[str]]:
    """The turns up to a picture, oldest first, and notes for the caller; no turns where they cannot be had.

    The oldest turns are left out when they would not fit into a request together with the new inputs `beside` them.
    `model_id` is the model that is to go on: it accepts no other model's signatures.
    """
    drawn = library.get(image_id)
    if model_id is not None and drawn is not None and drawn.model_id not in (None, model_id):
        return (), [
            f"{image_id} was drawn by {drawn.model_id}, and {model_id} cannot continue its conversation, so the "
            "edit started from the picture alone."
        ]
    room = REQUEST_BYTES - sum(len(part.data or b"") for part in beside)
    exchanges: list[_Exchange] = []
    total, inputs = 0, len(beside)
    following: str | None = image_id
    while following is not None:
        found = _exchange(following, library, disk)
        if found is None:
            break
        total, inputs = total + found.bytes, inputs + found.inputs
        if total > room or inputs > MAX_INPUTS or (exchanges and total > HISTORY_BYTES):
            if exchanges:
                words = f"The conversation is long: its first turns, up to {following}, were left out."
                return _turns(exchanges), [words]
            return (), [
                f"The conversation of {image_id} does not fit into a request, so the edit started from the picture "
                "alone."
            ]
        exchanges.insert(0, found)
        following = found.previous
    if not exchanges:
        return (), [f"{image_id} has no conversation with the model, so the edit started from the picture alone."]
    left_out = [f"The turns up to {following} are no longer there and were left out."] if following is not None else []
    return _turns(exchanges), left_out


def _turns(exchanges: list[_Exchange]) -> tuple[Turn, ...]:
    return tuple(turn for exchange in exchanges for turn in (exchange.user, exchange.model))


def _exchange(image_id: str, library: Library, disk: Disk) -> _Exchange | None:
    """One picture's turn; None when a part of it is gone, because Gemini rejects a turn that is incomplete."""
    raw, record = disk.sidecars.read_turn(image_id), library.get(image_id)
    if raw is None or record is None:
        return None
    try:
        body = json.loads(raw)
        master, mime_type = sendable(record, disk)
        shown = [_shown(parent, library, disk) for parent in body["inputs"]]
        said = [TurnPart(text=body["text"]), *([TurnPart(text=body["roles"])] if body["roles"] else []), *shown]
        if body.get("negative"):
            said.append(TurnPart(text=f"Keep these out of the picture: {body['negative']}"))
        answered = [_answered(entry, master, mime_type) for entry in body["model"]]
    except (StudioError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return _Exchange(
        user=Turn(role="user", parts=tuple(said)),
        model=Turn(role="model", parts=tuple(answered)),
        previous=body["previous"],
    )


def _shown(image_id: str, library: Library, disk: Disk) -> TurnPart:
    record = library.get(image_id)
    if record is None:
        raise KeyError(image_id)
    data, mime_type = sendable(record, disk)
    return TurnPart(data=data, mime_type=mime_type)


def _answered(entry: dict[str, Any], master: bytes, mime_type: str) -> TurnPart:
    stored, signature = entry.get("data"), entry.get("signature")
    data = master if stored == "master" else base64.b64decode(stored) if stored else None
    return TurnPart(
        text=entry.get("text"),
        data=data,
        mime_type=entry.get("mime_type") or (mime_type if data is not None else None),
        signature=base64.b64decode(signature) if signature else None,
    )
