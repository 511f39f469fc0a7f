"""Words what each input picture is for, as Google's guide advises: numbered, one role each."""

from nanobanana_mcp.domain.terms import InputRole

_WORDS: dict[InputRole, str] = {
    "subject": "shows the subject; keep it recognisably the same",
    "character": "shows a character; keep face, build, hair and clothes the same",
    "style": "gives only the style: palette, light, line and texture, none of what it shows",
    "layout": "gives only the layout: where things stand and how large they are, none of their looks",
    "product": "shows a product; keep its shape, proportions, colours and lettering exact",
    "other": "is there to be used as the prompt says",
}


def worded_roles(roles: tuple[InputRole, ...], *, first: int = 1) -> str | None:
    """One sentence an image, in the order they are sent, counted from `first`; None without roles."""
    if not roles:
        return None
    return " ".join(f"Image {number} {_WORDS[role]}." for number, role in enumerate(roles, first))
