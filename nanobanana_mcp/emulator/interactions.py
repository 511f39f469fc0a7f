"""Interactions: Google's other way to ask for a picture, told in steps, with conversations that Google remembers."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from nanobanana_mcp.emulator import rules, schema, signatures, wire
from nanobanana_mcp.emulator.control import Control
from nanobanana_mcp.emulator.desk import Desk
from nanobanana_mcp.emulator.files import timestamp
from nanobanana_mcp.emulator.keys import key_of
from nanobanana_mcp.emulator.models import Model
from nanobanana_mcp.emulator.schema import Message
from nanobanana_mcp.emulator.wire import GoogleError

_KEPT_NAMES = ("maxOutputTokens", "temperature", "topP", "seed", "stopSequences", "imageConfig")
_STATUS = {"STOP": "completed", "MAX_TOKENS": "incomplete"}


@dataclass(frozen=True, kw_only=True)
class Interaction:
    """One answered interaction; `contents` is the conversation up to and with its answer, as generateContent takes it."""

    key: str
    resource: dict[str, Any] = field(repr=False)
    contents: list[dict[str, Any]] = field(repr=False)


class Interactions:
    """Every stored interaction of every key, in memory."""

    def __init__(self, *, clock: Callable[[], float], control: Control, desk: Desk) -> None:
        self._clock = clock
        self._control = control
        self._desk = desk
        self._interactions: dict[str, Interaction] = {}

    def routes(self, version: str) -> list[Route]:
        """Everything about interactions."""
        path = f"/{version}/interactions"
        return [
            Route(path, _in_its_form(self._create), methods=["POST"]),
            Route(f"{path}/{{interaction}}", _in_its_form(self._one), methods=["GET", "DELETE"]),
            Route(f"{path}{{rest:path}}", _in_its_form(_not_implemented), methods=["GET", "POST", "DELETE"]),
        ]

    async def _create(self, request: Request) -> Response:
        key = self._key(request)
        asked = await asyncio.to_thread(wire.parse, await request.body(), schema.INTERACTION)
        if "model" not in asked:
            raise GoogleError(400, "* CreateInteractionRequest.model: required field is not set\n")
        model = rules.find_model(
            asked["model"].removeprefix("models/"),
            version=request.url.path.split("/")[1],
            method="createInteraction",
            revive=self._control.revive,
        )
        for name in ("stream", "background"):
            if asked.get(name):
                raise GoogleError(501, f"The emulator does not speak interactions with '{name}'.")
        before: list[dict[str, Any]] = []
        if "previousInteractionId" in asked:
            found = self._find(asked["previousInteractionId"], key)
            before = [self._signed(turn, model) for turn in found.contents]
        contents = before + await asyncio.to_thread(_contents, asked.get("input"))
        began = self._clock()

        def form(answer: dict[str, Any]) -> Response:
            interaction = self._told(asked, answer, began=began)
            if asked.get("store", True):
                turns = [
                    each["content"] for each in answer.get("candidates", []) if each.get("content", {}).get("parts")
                ]
                self._interactions[interaction["id"]] = Interaction(
                    key=key,
                    resource=interaction,
                    contents=contents + [wire.read(turn, schema.CONTENT) for turn in turns],
                )
            return JSONResponse(interaction)

        parsed = {"contents": contents} | _settings(asked)
        return await self._desk.respond(parsed, model=model, key=key, receive=request.receive, form=form)

    async def _one(self, request: Request) -> Response:
        key, name = self._key(request), request.path_params["interaction"]
        found = self._find(name, key)
        if request.method == "DELETE":
            del self._interactions[name]
            return JSONResponse({})
        return JSONResponse(found.resource)

    def _find(self, name: str, key: str) -> Interaction:
        found = self._interactions.get(name)
        if found is None or found.key != key:
            raise GoogleError(404, f"Interaction {name} was not found.")
        return found

    def _key(self, request: Request) -> str:
        return key_of(request, valid_keys=self._control.valid_keys)

    def _signed(self, turn: dict[str, Any], model: Model) -> dict[str, Any]:
        """A turn that Google kept itself: good for any model, and at any time."""
        if turn["role"] == "user":
            return turn
        secret, now = self._control.signature_secret, self._clock()
        parts = [
            part | {"thoughtSignature": signatures.sign(_payload(part), model=model.id, secret=secret, now=now)}
            for part in turn["parts"]
        ]
        return turn | {"parts": parts}

    def _told(self, asked: dict[str, Any], answer: dict[str, Any], *, began: float) -> dict[str, Any]:
        """A GenerateContentResponse as an interaction."""
        candidate = answer.get("candidates", [{}])[0]
        reason = candidate.get("finishReason") or answer["promptFeedback"]["blockReason"]
        status = _STATUS.get(reason, "failed")
        told = {
            "id": f"v1_{secrets.token_urlsafe(24)}",
            "object": "interaction",
            "model": answer["modelVersion"],
            "status": status,
            "created": f"{timestamp(began)[:19]}Z",
            "updated": f"{timestamp(self._clock())[:19]}Z",
            "steps": _steps(candidate),
            "usage": _usage(answer["usageMetadata"]),
        }
        if status == "failed":
            told["errors"] = [
                {"code": reason.lower(), "message": candidate.get("finishMessage", "No picture was made.")}
            ]
        if "previousInteractionId" in asked:
            told["previous_interaction_id"] = asked["previousInteractionId"]
        return told

    def clear(self) -> None:
        """Forget every interaction."""
        self._interactions.clear()


def _in_its_form(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """`endpoint` with refusals in the form of interactions, whose code is a word."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except GoogleError as refusal:
            error = {"code": refusal.status.lower(), "message": refusal.message}
            return JSONResponse({"error": error}, refusal.code)

    return answer


async def _not_implemented(request: Request) -> Response:
    raise GoogleError(501, f"The emulator does not speak {request.url.path}.")


def _contents(given: Any) -> list[dict[str, Any]]:
    """The input, in any of its shapes, as turns of the user."""
    if given is None:
        raise GoogleError(400, "* CreateInteractionRequest.input: required field is not set\n")
    if isinstance(given, str):
        given = {"type": "text", "text": given}
    items = given if isinstance(given, list) else [given]
    if any(isinstance(item, dict) and item.get("type") in ("model_output", "thought") for item in items):
        raise GoogleError(501, "The emulator takes a conversation by its previous_interaction_id only.")
    if any(isinstance(item, dict) and item.get("type") == "user_input" for item in items):
        steps = [_typed(item, schema.INTERACTION_STEPS, f"input[{index}]") for index, item in enumerate(items)]
        return [_turn(step.get("content", []), f"input[{index}].content") for index, step in enumerate(steps)]
    return [_turn(items, "input")]


def _turn(items: list[Any], path: str) -> dict[str, Any]:
    return {"role": "user", "parts": [_part(item, f"{path}[{index}]") for index, item in enumerate(items)]}


def _part(item: Any, path: str) -> dict[str, Any]:
    read = _typed(item, schema.INTERACTION_CONTENTS, path)
    if read["type"] == "text":
        return {"text": read.get("text", "")}
    if ("data" in read) == ("uri" in read):
        raise GoogleError(400, f"Invalid value at '{path}': an image has either data or uri.")
    declared = {"mimeType": read["mimeType"]} if "mimeType" in read else {}
    if "uri" in read:
        return {"fileData": declared | {"fileUri": read["uri"]}}
    return {"inlineData": declared | {"data": read["data"]}}


def _typed(value: Any, kinds: Mapping[str, Message], path: str) -> dict[str, Any]:
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise GoogleError(400, f"Invalid value at '{path}': its type is one of {', '.join(kinds)}.")
    return wire.read(value, {"type": "string"} | kinds[kind], path)


def _settings(asked: dict[str, Any]) -> dict[str, Any]:
    """Everything but the contents, as a request of generateContent."""
    given = asked.get("generationConfig", {})
    config = {name: given[name] for name in _KEPT_NAMES if name in given}
    thinking: dict[str, Any] = {"thinkingLevel": given["thinkingLevel"]} if "thinkingLevel" in given else {}
    if "thinkingSummaries" in given:
        thinking["includeThoughts"] = given["thinkingSummaries"] == "auto"
    if thinking:
        config["thinkingConfig"] = thinking
    formats = [
        _typed(each, schema.INTERACTION_FORMATS, f"response_format[{index}]")
        for index, each in enumerate(asked.get("responseFormat", []))
    ]
    modalities = asked.get("responseModalities") or [each["type"].upper() for each in formats]
    if modalities:
        config["responseModalities"] = modalities
    for each in formats:
        if each.get("delivery") == "uri":
            raise GoogleError(501, "The emulator delivers the pictures of interactions inline only.")
        if each["type"] == "image":
            shape = {name: each[name] for name in ("aspectRatio", "imageSize") if name in each}
            config["imageConfig"] = config.get("imageConfig", {}) | shape
        else:
            config |= {"responseMimeType": each.get("mimeType", "text/plain")}
            config |= {"responseSchema": each["schema"]} if "schema" in each else {}
    settings: dict[str, Any] = {"generationConfig": config, "tools": [_tool(each) for each in asked.get("tools", [])]}
    if "systemInstruction" in asked:
        settings["systemInstruction"] = {"parts": [{"text": asked["systemInstruction"]}]}
    return settings


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "google_search":
        return {}
    types = tool.get("searchTypes", [])
    if "enterprise_web_search" in types:
        raise GoogleError(400, "Enterprise web search is not supported by the Gemini API.")
    named = {"web_search": "webSearch", "image_search": "imageSearch"}
    return {"googleSearch": {"searchTypes": {named[each]: {} for each in types}}}


def _steps(candidate: dict[str, Any]) -> list[dict[str, Any]]:
    """A candidate as steps: what was thought, what was searched, what is said and shown."""
    parts = candidate.get("content", {}).get("parts") or []
    spoken = [part for part in parts if not part.get("thought")]
    summary = [_content(part) for part in parts if part.get("thought")]
    signature = next((part["thoughtSignature"] for part in spoken if "thoughtSignature" in part), None)
    steps: list[dict[str, Any]] = []
    if summary or signature:
        signed = {"signature": signature} if signature else {}
        steps.append({"type": "thought"} | signed | ({"summary": summary} if summary else {}))
    found = candidate.get("groundingMetadata", {})
    for search, queries in (("web_search", "webSearchQueries"), ("image_search", "imageSearchQueries")):
        if queries in found:
            suggestions = {"search_suggestions": found["searchEntryPoint"]["renderedContent"]}
            call = {"id": search, "search_type": search, "arguments": {"queries": found[queries]}}
            steps.append({"type": "google_search_call"} | call)
            steps.append({"type": "google_search_result", "call_id": search, "result": [suggestions]})
    if spoken:
        steps.append({"type": "model_output", "content": [_content(part) for part in spoken]})
    return steps


def _payload(part: dict[str, Any]) -> bytes:
    return bytes(part["inlineData"]["data"]) if "inlineData" in part else str(part["text"]).encode()


def _content(part: dict[str, Any]) -> dict[str, Any]:
    if "text" in part:
        return {"type": "text", "text": part["text"]}
    return {"type": "image", "mime_type": part["inlineData"]["mimeType"], "data": part["inlineData"]["data"]}


def _usage(counted: dict[str, Any]) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "total_input_tokens": counted["promptTokenCount"],
        "total_output_tokens": counted.get("candidatesTokenCount", 0),
        "total_thought_tokens": counted.get("thoughtsTokenCount", 0),
        "total_tokens": counted["totalTokenCount"],
    }
    for name, details in (("input", "promptTokensDetails"), ("output", "candidatesTokensDetails")):
        usage[f"{name}_tokens_by_modality"] = [
            {"modality": each["modality"].lower(), "tokens": each["tokenCount"]} for each in counted.get(details, [])
        ]
    return usage
