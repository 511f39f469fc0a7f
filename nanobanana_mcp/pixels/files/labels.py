"""Says inside a file that its picture was made by a model, and how: an XMP packet, written and read."""

import json
import re
from dataclasses import dataclass
from io import BytesIO
from typing import Literal
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from PIL import Image

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.pixels.files.header import PILLOW_ERRORS

SourceType = Literal["trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"]

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_OURS = "https://nanobanana-mcp/ns/1.0/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_LONGEST = 65_502  # bytes: what a JPEG segment holds beside its length and the XMP signature (XMP part 3, 1.1.3)
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, kw_only=True)
class Label:
    """The label in a file that says where it comes from. `source_type` is the last part of an IPTC digital source type; `recipe` is JSON."""

    source_type: str
    recipe: str | None = None


def packet(label: Label) -> bytes:
    """The label as XMP. Raises RequestError for a recipe that is no JSON or too long for a JPEG segment (about 64 kB)."""
    described = ""
    if label.recipe is not None:
        try:
            json.loads(label.recipe)
        except ValueError as error:
            raise RequestError(f"The recipe is not JSON ({error}); pass the text that json.dumps gives.") from error
        # XML has no way to write these; inside JSON they can only stand in strings, where an escape means the same.
        plain = _NOT_XML.sub(lambda found: f"\\u{ord(found.group()):04x}", label.recipe)
        described = f"<nanobanana:recipe>{escape(plain, {chr(13): '&#13;'})}</nanobanana:recipe>"
    text = (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}"><rdf:Description rdf:about="" '
        f'xmlns:Iptc4xmpExt="{_IPTC}" xmlns:nanobanana="{_OURS}">'
        f"<Iptc4xmpExt:DigitalSourceType>{SOURCE_TYPES}{escape(label.source_type)}</Iptc4xmpExt:DigitalSourceType>"
        f'{described}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()
    if len(text) > _LONGEST:
        raise RequestError(
            f"The recipe is too long to be kept in a file ({len(text)} bytes of {_LONGEST}); shorten it."
        )
    return text


def read_label(data: bytes) -> Label | None:
    """The label of a PNG, JPEG, WebP or AVIF file, ours or another program's; None without one, and for anything unreadable."""
    try:
        with Image.open(BytesIO(data), formats=["PNG", "JPEG", "WEBP", "AVIF"]) as image:
            found = image.info.get("xmp")
    except (*PILLOW_ERRORS, MemoryError):
        return None
    text = found.encode() if isinstance(found, str) else found
    if not isinstance(text, bytes) or b"<!" in text:  # a document type could make it expand without end
        return None
    try:
        tree = ElementTree.fromstring(text.strip(b"\x00 \r\n\t"))  # noqa: S314 - no document type, see above
    except ElementTree.ParseError:
        return None
    source_type = recipe = None
    for described in tree.iter(f"{{{_RDF}}}Description"):
        source_type = source_type or _property(described, f"{{{_IPTC}}}DigitalSourceType")
        recipe = recipe or _property(described, f"{{{_OURS}}}recipe")
    if source_type is None or not source_type.startswith(SOURCE_TYPES):
        return None
    return Label(source_type=source_type.removeprefix(SOURCE_TYPES), recipe=recipe)


def _property(described: ElementTree.Element, name: str) -> str | None:
    """A simple property, which XMP may write as an element or as an attribute."""
    return described.get(name) or described.findtext(name)
