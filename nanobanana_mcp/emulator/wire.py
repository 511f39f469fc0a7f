"""The JSON of Gemini's requests, as strict as Google reads it, and errors in Google's form.

Protobuf's JSON rules hold: every name in camelCase or snake_case, bytes in the standard or the URL-safe base64
alphabet, null the same as absent, an integer also as a string, names of enums in any case.
"""

import base64
import binascii
import hashlib
import json
import re
from typing import Any

from nanobanana_mcp.emulator.schema import Message

MAX_BODY_BYTES = 20 * 1024 * 1024

_STATUS = {
    400: "INVALID_ARGUMENT",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    501: "UNIMPLEMENTED",
}


class GoogleError(Exception):
    """A refusal in Google's form; `details` are its google.rpc messages."""

    def __init__(
        self, code: int, message: str, *, status: str | None = None, details: list[dict[str, Any]] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status or _STATUS[code]
        self.message = message
        self.details = details

    def body(self) -> dict[str, Any]:
        """The JSON body of the answer."""
        error: dict[str, Any] = {"code": self.code, "message": self.message, "status": self.status}
        if self.details is not None:
            error["details"] = self.details
        return {"error": error}


def parse(body: bytes, message: Message) -> dict[str, Any]:
    """The JSON as `message` describes it: names in camelCase, bytes decoded, nulls gone. Raises GoogleError 400."""
    if len(body) > MAX_BODY_BYTES:
        raise GoogleError(400, f"Request payload size exceeds the limit: {MAX_BODY_BYTES} bytes.")
    try:
        value = json.loads(body or b"{}")
    except ValueError as broken:
        raise GoogleError(400, f"Invalid JSON payload received. {broken}") from broken
    return read(value, message)


def read(value: Any, message: Message, path: str = "") -> dict[str, Any]:
    """Read as `parse` does, of JSON that is already loaded and stands at `path` of its request. Raises GoogleError 400."""
    faults: list[tuple[str, str]] = []
    parsed = _read(value, message, path, faults)
    if faults:
        violations = [{"field": path, "description": text} if path else {"description": text} for path, text in faults]
        raise GoogleError(
            400,
            "\n".join(text for _, text in faults),
            details=[{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations}],
        )
    assert isinstance(parsed, dict)
    return parsed


def decode_base64(text: str) -> bytes:
    """Bytes from either alphabet, with or without padding. Raises ValueError."""
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)


def redacted(value: Any) -> Any:
    """The same JSON with the base64 of every inline picture replaced by {"sha256": ..., "bytes": ...}."""
    if isinstance(value, list):
        return [redacted(each) for each in value]
    if not isinstance(value, dict):
        return value
    clean = {name: redacted(content) for name, content in value.items()}
    for name in ("inlineData", "inline_data"):
        blob = clean.get(name)
        if isinstance(blob, dict) and isinstance(blob.get("data"), str):
            clean[name] = blob | {"data": _summary(blob["data"])}
    if clean.get("type") == "image" and isinstance(clean.get("data"), str):
        clean["data"] = _summary(clean["data"])
    return clean


def _summary(text: str) -> dict[str, Any]:
    try:
        data = decode_base64(text)
    except binascii.Error:
        data = text.encode()
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _read(value: Any, kind: Any, path: str, faults: list[tuple[str, str]]) -> Any:
    """`value` as `kind`; what is wrong is appended to `faults` as (path of the message, Google's sentence)."""
    if kind is Ellipsis:
        return value
    if isinstance(kind, list):
        # A single object where a list is expected is taken as a list of one, as Google's parser does.
        items = value if isinstance(value, list) else [value]
        return [_read(item, kind[0], f"{path}[{index}]", faults) for index, item in enumerate(items)]
    if isinstance(kind, dict):
        return _read_message(value, kind, path, faults)
    if isinstance(kind, tuple):
        named = {name.lower(): name for name in kind}
        if isinstance(value, str) and value.lower() in named:
            return named[value.lower()]
        return _wrong(value, "TYPE_ENUM", path, faults)
    return _read_scalar(value, kind, path, faults)


def _read_message(value: Any, kind: Message, path: str, faults: list[tuple[str, str]]) -> dict[str, Any]:
    read: dict[str, Any] = {}
    if not isinstance(value, dict):
        where = f" at '{path}'" if path else ""
        faults.append((path, f"Invalid JSON payload received. Expected an object{where}."))
        return read
    for name, content in value.items():
        field = _camel(name)
        inner = f"{path}.{_snake(name)}" if path else _snake(name)
        if field not in kind:
            where = f" at '{path}'" if path else ""
            faults.append((path, f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.'))
        elif field in read:
            faults.append((path, f"Invalid value at '{inner}': the field is given twice."))
        elif content is not None:
            read[field] = _read(content, kind[field], inner, faults)
    return read


def _read_scalar(value: Any, kind: str, path: str, faults: list[tuple[str, str]]) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "bytes" and isinstance(value, str):
        try:
            return decode_base64(value)
        except ValueError:
            faults.append(
                (path, f"Invalid value at '{path}' (TYPE_BYTES), Base64 decoding failed for \"{value[:40]}\"")
            )
            return b""
    if kind == "int":
        if number and value == int(value):
            return int(value)
        if isinstance(value, str) and re.fullmatch(r"-?\d+", value):
            return int(value)
    if (kind == "number" and number) or (kind == "bool" and isinstance(value, bool)):
        return value
    if kind == "string" and isinstance(value, str):
        return value
    return _wrong(value, f"TYPE_{kind.upper()}", path, faults)


def _wrong(value: Any, kind: str, path: str, faults: list[tuple[str, str]]) -> None:
    faults.append((path, f"Invalid value at '{path}' ({kind}), {json.dumps(value)[:80]}"))


def _camel(name: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name)


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda found: "_" + found[0].lower(), name)
