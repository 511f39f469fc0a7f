"""Thought signatures: proof that a part of a conversation came from this model, whole and not too long ago."""

import hashlib
import hmac
import struct


def sign(payload: bytes, *, model: str, secret: str, now: float) -> bytes:
    """A signature over a text or the bytes of a picture; it carries its own time of issue."""
    issued = struct.pack(">d", now)
    return issued + _mac(payload, model=model, secret=secret, issued=issued)


def is_valid(
    signature: bytes, payload: bytes, *, model: str, secret: str, now: float, ttl_s: float | None = None
) -> bool:
    """Tells whether `signature` was made for exactly this payload and model, at most `ttl_s` seconds before `now`."""
    issued = signature[:8]
    if not hmac.compare_digest(signature[8:], _mac(payload, model=model, secret=secret, issued=issued)):
        return False
    (time,) = struct.unpack(">d", issued)
    return ttl_s is None or now - time <= ttl_s


def _mac(payload: bytes, *, model: str, secret: str, issued: bytes) -> bytes:
    content = issued + model.encode() + b"\0" + hashlib.sha256(payload).digest()
    return hmac.digest(secret.encode(), content, "sha256")
