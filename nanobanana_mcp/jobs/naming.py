"""Names the files of pictures, chooses their format and writes their labels."""

import json
from dataclasses import asdict
from pathlib import Path

from nanobanana_mcp.domain.errors import NotAnImage
from nanobanana_mcp.domain.plan import Plan, Target
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.domain.terms import OutputFormat
from nanobanana_mcp.pixels.files.formats import FORMATS, format_of
from nanobanana_mcp.pixels.files.labels import Label, SourceType

ICON = "image/vnd.microsoft.icon"


def made_label(part: ImageRecord, plan: Plan) -> Label:
    """The label of a picture that was put together."""
    recipe = {"from": [parent.image_id for parent in part.parents], "part": part.id, "prompt": plan.request.prompt}
    recipe |= asdict(plan.recipe) if plan.recipe is not None else {}
    return Label(source_type="compositeWithTrainedAlgorithmicMedia", recipe=json.dumps(recipe, ensure_ascii=False))


def source_type(record: ImageRecord) -> SourceType:
    """The IPTC digital source type: made by a model, or composed of a model's answer and something else."""
    made_whole = record.origin in ("generated", "part", "derived") and record.mode == "generate"
    return "trainedAlgorithmicMedia" if made_whole else "compositeWithTrainedAlgorithmicMedia"


def kept_format(mime_type: str) -> OutputFormat:
    """The format of a file made of a picture when none is asked for: the picture's own where it can be written."""
    formats: dict[str, OutputFormat] = {"image/jpeg": "jpeg", "image/webp": "webp", "image/avif": "avif"}
    return "jpeg" if mime_type == "image/heic" else formats.get(mime_type, "png")


def not_written(target: Target, path: Path) -> str:
    """The note on a file whose name asked for a format that is only read here."""
    kind = path.suffix.lstrip(".").upper()
    return (
        f"{target.suffix} files cannot be written (png, jpg, webp and avif can), so the file is {path.name}, in {kind}."
    )


def naming_notes(target: Target, stem: str, extension: str, path: Path) -> list[str]:
    """Says why a file has another name, or another format, than the caller gave."""
    notes = []
    if target.stem is not None and path.stem != stem:
        notes.append(f"{stem}{extension} already existed and was not touched; the new picture is {path.name}.")
    if target.suffix and target.output_format is None:
        notes.append(not_written(target, path))
    return notes


def named_by_magic(data: bytes) -> tuple[str, str]:
    """Mime type and extension by the first bytes alone, for a picture that is damaged further on."""
    try:
        names = FORMATS[format_of(data)]
    except NotAnImage:
        return "application/octet-stream", ".bin"
    return names.mime_type, names.extension
