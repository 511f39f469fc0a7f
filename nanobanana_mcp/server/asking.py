"""Asks the person before a call that is dear or clears something away, as the client's protocol version does it.

Up to 2025-11-25 a server asks in the middle of a call. From 2026-07-28 on it ends the call with its question, and the
client makes the call again with the answer, so nothing may be done before the answer is there.
"""

from fastmcp import Context
from mcp.types import (
    ClientCapabilities,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
)
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from nanobanana_mcp.domain.errors import NotAgreed

_NAME = "agreed"


def can_ask(caller: Context) -> bool:
    """Whether the client says that it can ask a person."""
    params = caller.session.client_params if caller.request_context is not None else None
    capabilities: ClientCapabilities | None = params.capabilities if params is not None else None
    asked = capabilities.elicitation if capabilities is not None else None
    return asked is not None and (asked.form is not None or asked.url is None)  # forms alone had no name at first


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
        answer = await caller.session.elicit_form(question, schema, related_request_id=context.request_id)
    if not isinstance(answer, ElicitResult) or answer.action == "cancel":
        raise NotAgreed(f"Nobody answered the question whether to go on, so nothing was done. {way_out}")
    if answer.action != "accept" or (answer.content or {}).get(_NAME) is not True:
        raise NotAgreed(
            "The person was asked and said no; nothing was done. Do not try another way; ask what they want."
        )
    return None
