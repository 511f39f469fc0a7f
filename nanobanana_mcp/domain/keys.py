"""Judges whether a text can be a Gemini key at all, without asking Gemini."""

import re

UNREPLACED = re.compile(r"\$\{.*\}|\$[A-Za-z_]\w*|%\w+%|\{\{.*\}\}")
"""A variable's name such as ${GEMINI_API_KEY}, which a client passed on without replacing it by its value."""

_PLACEHOLDER = re.compile(
    r"<.*>|\[.*\]|your.*key.*|(insert|enter|paste|put|replace)[-_ ].*key.*"
    r"|(my|the)?[-_ ]?(gemini|google)?[-_ ]?(api)?[-_ ]?key([-_ ]here)?"
    r"|change-?me|placeholder|x{3,}|\*{3,}|.*(\.\.\.|\*\*\*|\u2026).*",
    re.IGNORECASE,
)
"""Words that stand in instructions where a key belongs, and keys that were shortened to be shown."""


def problem_with(key: str, name: str) -> str | None:
    """Say what is wrong with a key that was read from the variable `name`, without repeating it.

    A header takes printable ASCII only; anything else would surface as a crash that quotes the key.
    """
    if UNREPLACED.fullmatch(key):
        return f"{name} is not a key but a variable's name, since the client passed it on without replacing it"
    if _PLACEHOLDER.fullmatch(key):
        return f"{name} is not a key: it still has the placeholder of some instructions, or a shortened key"
    if key[:1] in "'\"`" and key[:1]:
        return f"{name} is not a key: it has quotation marks around it"
    if key.lower().startswith(("bearer ", "gemini_api_key=", "google_api_key=")):
        return f"{name} is not a key: there are other words before it"
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        return f"{name} is not a key: it must be printable ASCII without spaces"
    return None
