"""Asks the person before a call that is expensive or moves pictures away, by the rules of the client's protocol version.

Up to 2025-11-25 a server asks in the middle of a call. From 2026-07-28 on it ends the call with its question, and the
client makes the call again with the answer, so nothing may be done before the answer is there.
"""

import asyncio
import time
from typing import TYPE_CHECKING

from fastmcp import Context
from mcp.shared.exceptions import MCPError
from mcp.types import (
    ElicitationCapability,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitRequestURLParams,
    ElicitResult,
    InputRequiredResult,
)
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from nanobanana_mcp.domain.errors import NotAgreed, RequestError, SourceNotFound
from nanobanana_mcp.domain.ids import is_image_id
from nanobanana_mcp.server.session import progress_to, shared
from nanobanana_mcp.studio.admission import call_off

if TYPE_CHECKING:
    from nanobanana_mcp.gallery.paintings import Painting
    from nanobanana_mcp.gallery.serve import Gallery

_NAME = "agreed"
_PAINTED = "painted_"
"""The beginning of the key of what a person painted; its ticket follows."""

PAINTING_S = 900.0
"""Seconds that a person may take to paint."""

STILL_S = 5.0
"""Seconds between two reports to the client that the person still paints."""


def can_ask(caller: Context) -> bool:
    """Tells whether the client says that it can ask a person."""
    asked = _elicitation(caller)
    return asked is not None and (asked.form is not None or asked.url is None)  # forms alone had no name at first


def can_send(caller: Context) -> bool:
    """Tells whether the client says that it can send a person to a page."""
    asked = _elicitation(caller)
    return asked is not None and asked.url is not None


def _elicitation(caller: Context) -> ElicitationCapability | None:
    params = caller.session.client_params if caller.request_context is not None else None
    return params.capabilities.elicitation if params is not None else None


async def agreed(caller: Context, question: str, *, yes: str, way_out: str) -> InputRequiredResult | None:
    """Ask for a yes. Returns None once it was given; else the result that the call must end with, so that the client
    asks and calls again.

    `yes` is the line that the person ticks, `way_out` what to do when nobody is there. Raises NotAgreed.
    """
    schema = {
        "type": "object",
        "properties": {_NAME: {"type": "boolean", "title": yes}},
        "required": [_NAME],
    }
    context = caller.request_context
    assert context is not None
    if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
        if caller.input_responses is None or _NAME not in caller.input_responses:
            form = ElicitRequestFormParams(message=question, requested_schema=schema)
            ask = ElicitRequest(method="elicitation/create", params=form)
            return InputRequiredResult(result_type="input_required", input_requests={_NAME: ask})
        answer = caller.input_responses[_NAME]
    else:
        try:
            answer = await caller.session.elicit_form(question, schema, related_request_id=context.request_id)
        except MCPError as error:
            raise NotAgreed(
                f"The client could not ask whether to go on ({error}), so nothing was done. {way_out}"
            ) from error
    if not isinstance(answer, ElicitResult) or answer.action == "cancel":
        raise NotAgreed(f"Nobody answered the question whether to go on, so nothing was done. {way_out}")
    if answer.action != "accept" or (answer.content or {}).get(_NAME) is not True:
        raise NotAgreed(
            "The person was asked and said no; nothing was done. Do not try another way; ask what they want."
        )
    return None


async def painted(caller: Context, image: str, instruction: str) -> "Painting | InputRequiredResult":
    """Has the person paint where a picture should change. Returns the painting, or the result that the call has to end
    with, so that the client sends them to the page and calls again. A later question of the same call has to end with
    `carried`.

    Raises NotAgreed, with the address of the page, where a client cannot send anybody there or nobody paints, and
    RequestError where there is no person: a call of our own.
    """
    lazy, context = shared(caller).gallery, caller.request_context
    if context is None or lazy is None:
        raise RequestError(
            "Give box or mask, and not both, to say which region to edit; 'nanobanana paint IMAGE' opens a page "
            "to paint a mask on."
        )
    gallery = await lazy.gallery()
    modern = context.protocol_version in MODERN_PROTOCOL_VERSIONS
    if modern and caller.request_state:  # painted in an earlier round, of which the client repeats the last answer only
        painting = gallery.paintings.get(caller.request_state)
        if painting is not None and painting.done.is_set():
            await _check_picture(caller, painting, image)
            return painting
    if modern and caller.input_responses:
        for name, answer in caller.input_responses.items():
            painting = gallery.paintings.get(name.removeprefix(_PAINTED))
            if name.startswith(_PAINTED) and painting is not None:
                await _check_picture(caller, painting, image)
                return await _finished(caller, gallery, painting, answer)
    record = await (await shared(caller).studio()).record_of(image)
    painting = gallery.paintings.ask(record.id, instruction)
    if painting.done.is_set():  # by a person whose client did not wait for it
        return painting
    address = gallery.address(painting.page)
    if not can_send(caller):
        raise NotAgreed(
            f"Nobody has said where the picture shall change; nothing was sent. {_by_hand(address, painting)} Or give a box."
        )
    question = f"Paint where the picture shall change: {instruction}"
    if modern:
        ask = ElicitRequest(method="elicitation/create", params=ElicitRequestURLParams(message=question, url=address))
        return InputRequiredResult(result_type="input_required", input_requests={f"{_PAINTED}{painting.ticket}": ask})
    related = context.request_id
    try:
        answer = await caller.session.elicit_url(question, address, painting.ticket, related_request_id=related)
    except MCPError as error:
        raise NotAgreed(
            f"The client could not send anybody to the page to paint on ({error}), so nothing was done. "
            f"{_by_hand(address, painting)} Or give a box."
        ) from error
    except asyncio.CancelledError:
        call_off()
        raise
    await _finished(caller, gallery, painting, answer)
    await caller.session.send_elicit_complete(painting.ticket, related_request_id=related)
    return painting


def carried(question: InputRequiredResult, painting: "Painting") -> InputRequiredResult:
    """A question after which the call still knows what was painted."""
    return question.model_copy(update={"request_state": painting.ticket})


async def handed_over(caller: Context, image: str, mask: str) -> "Painting | None":
    """Returns the painting that a person finished, where `mask` is the id that it was promised as; None when nobody in
    this process promised it.

    Raises NotAgreed when it is not painted yet, RequestError when it was painted on another picture, and SourceNotFound
    when a server that has ended promised it and nobody painted.
    """
    lazy = shared(caller).gallery
    gallery = lazy.opened if lazy is not None else None
    painting = gallery.paintings.get(mask) if gallery is not None else None
    if gallery is None or painting is None:
        await _check_kept(caller, mask)
        return None
    await _check_picture(caller, painting, image)
    if not painting.done.is_set():
        raise NotAgreed(
            f"Nothing is painted yet, and nothing was sent. {_by_hand(gallery.address(painting.page), painting)}"
        )
    return painting


async def _check_kept(caller: Context, mask: str) -> None:
    """Raises SourceNotFound for an id under which no mask was kept."""
    if not is_image_id(mask):
        return
    try:
        await (await shared(caller).studio()).found(mask)
    except SourceNotFound as error:
        raise SourceNotFound(
            f"{error} If a person was asked to paint this mask, they have not handed it over, and nothing was sent: leave "
            "mask out to have them asked again."
        ) from error


async def _check_picture(caller: Context, painting: "Painting", image: str) -> None:
    """Raises RequestError unless a place was to be painted on this picture."""
    record = await (await shared(caller).studio()).record_of(image)
    if record.id != painting.image_id:
        raise RequestError(
            f"The place to be edited was painted on {painting.image_id}, and image is {record.id}; nothing was sent. "
            "Leave mask out to have it painted on this one, or give a box."
        )


async def _finished(caller: Context, gallery: "Gallery", painting: "Painting", answer: object) -> "Painting":
    """The painting, once it is painted. Raises NotAgreed when it is not."""
    if not isinstance(answer, ElicitResult) or answer.action == "cancel":
        raise NotAgreed(
            "Nobody opened the page to paint on, so nothing was done. "
            f"{_by_hand(gallery.address(painting.page), painting)} Or give a box."
        )
    if answer.action != "accept":
        raise NotAgreed("The person was asked to paint the place and said no; nothing was done. Ask what they want.")
    painting.waiting = this = object()
    try:
        await _wait(caller, gallery, painting)
    except asyncio.CancelledError:
        call_off()
        raise
    finally:
        latest = painting.waiting is this
        if latest:
            painting.waiting = None
    if not latest:
        raise NotAgreed("A later call for the same edit goes on with what was painted; this one sent nothing.")
    return painting


async def _wait(caller: Context, gallery: "Gallery", painting: "Painting") -> None:
    """Waits until it is painted. Raises NotAgreed after PAINTING_S."""
    tell, begun = progress_to(caller), time.monotonic()
    while not painting.done.is_set():
        waited = time.monotonic() - begun
        if waited > PAINTING_S:
            raise NotAgreed(
                f"Nothing was painted within {PAINTING_S / 60:.0f} minutes, and nothing was sent. "
                f"{_by_hand(gallery.address(painting.page), painting)}"
            )
        await tell(waited, PAINTING_S, "Waiting for the place to be painted")
        try:
            await asyncio.wait_for(painting.done.wait(), STILL_S)
        except TimeoutError:
            continue


def _by_hand(address: str, painting: "Painting") -> str:
    return (
        f"Ask the person to open {address} in a browser on this machine and to paint the place; when they say that it is "
        f"done, call edit_region again with mask {painting.ticket}."
    )
