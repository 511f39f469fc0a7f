"""The key in the studio's own settings file: set, changed and taken out, with every other line kept."""

import re

from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.settings import config_folder, env_file, variables_in
from nanobanana_mcp.storage.others import LeftAlone, change_other, read_other

KEYS = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
_LINE = re.compile(r"^[ \t]*(export[ \t]+)?(GEMINI_API_KEY|GOOGLE_API_KEY)[ \t]*=[^\r\n]*(\r?\n|$)", re.I | re.M)


def has_key() -> bool:
    """Tells whether the settings file has a key. Raises SetupError when it cannot be read."""
    return any(name in _variables() for name in KEYS)


def store_key(key: str | None) -> bool:
    """Puts a key into the settings file, in the place of any that is there, or takes it out (None), and returns whether
    the file changed.

    The file is for this user alone, and no copy of an old key is left. Raises SetupError, and then changes nothing.
    """
    path = env_file()
    changed = False

    def change(data: bytes) -> bytes:
        nonlocal changed
        there = variables_in(data, path)
        others = {name: value for name, value in there.items() if name not in KEYS}
        words = data.decode("utf-8-sig")
        text = _LINE.sub("", words)
        cut = variables_in("".join(one.group() for one in _LINE.finditer(words)).encode(), path)
        if cut != {name: value for name, value in there.items() if name in KEYS}:  # a value over several lines
            raise LeftAlone(f"{path} is written in a way that this program does not know; edit it by hand")
        if key is not None:
            gap = "" if not text or text.endswith("\n") else "\n"
            text += f"{gap}GEMINI_API_KEY={_quoted(key)}\n"
        wanted = others if key is None else others | {"GEMINI_API_KEY": key}
        if variables_in(text.encode(), path) != wanted:
            raise LeftAlone(f"{path} is written in a way that this program does not know; edit it by hand")
        changed = text.encode() != data
        return text.encode()

    try:
        change_other(path, change, lock=config_folder() / "install.lock", secret=True)
    except LeftAlone as reason:
        raise SetupError(f"{reason}. The key was not changed.") from None
    return changed


def _variables() -> dict[str, str]:
    path = env_file()
    try:
        return variables_in(read_other(path), path)
    except LeftAlone as reason:
        raise SetupError(f"{reason}.") from None


def _quoted(key: str) -> str:
    if re.fullmatch(r"[\w.-]+", key, re.ASCII):
        return key
    return "'" + key.replace("\\", "\\\\").replace("'", "\\'") + "'"
