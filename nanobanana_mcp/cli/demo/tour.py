"""The steps of the demo: what a client asks of a running server, and what has to come back."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fastmcp import Client
from fastmcp.client.transports import StdioTransport
from mcp import MCPError
from mcp.types import TextContent

from nanobanana_mcp.domain.errors import ServiceError

FOX = "A red fox reads the morning paper in a cafe"
TRAIN = "Travel poster for the night train NORTHBOUND"
STAMPS = "A postage stamp with a hot-air balloon"
COAT = "Give the fox a yellow raincoat"
ASTRONAUT = "Put the banana into a tiny space suit"
DAWN = "Turn the night into a pink dawn"
BENCH = "The fox and the banana wait for the train"
APPLE = "A green apple beside the banana"
MORE = "More of the breakfast table"
ALONE = "The banana alone"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A picture of the demo: what the server's answer says of it, and in words how it came about."""

    id: str
    path: Path
    thumbnail: Path
    """A small version to put on the sheet; the picture itself where there is none."""
    prompt: str
    how: str
    tier: str | None
    """None for the user's own photo, which no model drew."""
    width: int
    height: int
    parents: tuple[str, ...] = ()


class Audience(Protocol):
    """Shows the steps of the tour to somebody, such as on a terminal."""

    def begins(self, step: str) -> None: ...

    async def progress(self, progress: float, total: float | None, message: str | None) -> None: ...

    def ends(self, outcome: str) -> None: ...


@dataclass(kw_only=True)
class Tour:
    """Leads one client through the tools. A step that does not come out right raises ServiceError with its name."""

    client: Client[StdioTransport]
    audience: Audience
    shown: list[Shown] = field(default_factory=list)
    emulated: bool = False
    cost_usd: float | None = 0.0
    """None once a picture's price was not known."""
    _step: str = ""

    async def make(
        self,
        step: str,
        *parents: str,
        tool: str = "generate_image",
        caption: str = "",
        size: tuple[int, int] | None = None,
        **arguments: Any,
    ) -> list[Shown]:
        """Pictures by a tool that draws, which must be as many as asked for, `size` (width, height) where given, and remember
        the ids of their `parents`. The `caption` stands for the prompt where the tool takes none.
        """
        answer = await self._call(step, tool, arguments)
        known = {one.id for one in self.shown}
        found = [
            Shown(
                id=image["id"],
                path=Path(image["path"]),
                thumbnail=Path(image["thumbnail_path"] or image["path"]),
                prompt=caption or arguments["prompt"],
                how=("", "edit of", "from")[min(len(parents), 2)],
                tier=answer["model_tier"],
                width=image["width"],
                height=image["height"],
                parents=tuple(one for one in image["parents"] if one in known),
            )
            for image in answer["images"]
        ]
        asked = arguments.get("n", 1)
        if len(found) != asked:
            reasons = "; ".join(failure["message"] for failure in answer["failures"])
            raise self._wrong(f"{len(found)} of {asked} pictures came. {reasons}")
        for each in found:
            if size is not None and (each.width, each.height) != size:
                raise self._wrong(f"{each.path} has {each.width}x{each.height} pixels, not {size[0]}x{size[1]}.")
            if not each.path.is_file():
                raise self._wrong(f"{each.path} is not there.")
            if each.parents != parents:
                raise self._wrong(f"{each.id} should come from {', '.join(parents)}, not {', '.join(each.parents)}.")
        self.shown += found
        self.emulated = answer["backend"] == "emulator"
        cost = answer["cost_usd"]
        self.cost_usd = None if cost is None or self.cost_usd is None else self.cost_usd + cost
        first = found[0]
        count = f"{len(found)} x " if len(found) > 1 else ""
        self.audience.ends(f"{count}{first.width}x{first.height}, {answer['model_name']}")
        return found

    async def upload(self, step: str, photo: Path, size: tuple[int, int]) -> str:
        """The Files API id of a photo of the user's own."""
        answer = await self._call(step, "upload_file", {"path": str(photo), "display_name": "Breakfast"})
        self.shown.append(
            Shown(
                id=answer["image_id"],
                path=photo,
                thumbnail=photo,
                prompt="Your own photo",
                how="left as it is",
                tier=None,
                width=size[0],
                height=size[1],
            )
        )
        self.audience.ends(f"{answer['name']}, without the camera's notes and the place")
        return str(answer["name"])

    async def ask(self, step: str, tool: str, outcome: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that makes no picture; `outcome` is filled in from its answer."""
        answer = await self._call(step, tool, arguments)
        self.audience.ends(outcome.format_map(answer))
        return answer

    async def _call(self, step: str, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self._step = step
        self.audience.begins(step)
        try:
            result = await self.client.call_tool(
                tool, arguments, progress_handler=self.audience.progress, raise_on_error=False
            )
        except MCPError as error:
            raise self._wrong(f"The server did not answer ({error}).") from error
        if result.is_error:
            words = [block.text for block in result.content if isinstance(block, TextContent)]
            raise self._wrong(" ".join(words) or "The server gave no reason.")
        if not isinstance(result.structured_content, dict):
            raise self._wrong("The answer has no structured content.")
        return result.structured_content

    def _wrong(self, why: str) -> ServiceError:
        return ServiceError(f"The step '{self._step}' failed: {why}")


Script = Callable[[Tour, Path], Awaitable[None]]
FULL_STEPS, SHORT_STEPS = 17, 3


async def full_tour(tour: Tour, photo: Path) -> None:
    """Every tool of the server, against the emulator."""
    (fox,) = await tour.make("A flash picture", prompt=FOX)
    poster: dict[str, Any] = {"model_tier": "pro", "resolution": "4k", "aspect_ratio": "16:9"}
    (train,) = await tour.make("A pro picture, 4K, 16:9", size=(5504, 3072), prompt=TRAIN, **poster)
    await tour.make("Three at once", prompt=STAMPS, n=3, aspect_ratio="4:5")
    name = await tour.upload("Upload a photo of yours", photo, (1280, 960))
    breakfast = tour.shown[-1].id
    (coat,) = await tour.make("Edit, by path", fox.id, prompt=COAT, input_image_path_1=str(fox.path))
    (astronaut,) = await tour.make("Edit, by Files API id", breakfast, prompt=ASTRONAUT, file_id=name)
    await tour.make("Edit, by picture id", train.id, prompt=DAWN, input_images=[train.id], model_tier="pro")
    both = [coat.id, str(astronaut.path)]
    await tour.make(
        "Two reference pictures", coat.id, astronaut.id, prompt=BENCH, input_images=both, aspect_ratio="3:2"
    )

    async def on_the_photo(
        step: str, tool: str, caption: str, width: int = 1280, height: int = 960, **arguments: Any
    ) -> str:
        (made,) = await tour.make(
            step, breakfast, tool=tool, caption=caption, size=(width, height), image=str(photo), **arguments
        )
        return made.id

    place = [560, 560, 900, 820]
    apple = await on_the_photo("Change one region only", "edit_region", APPLE, instruction=APPLE, box=place)
    await tour.ask(
        "A close look at the edit",
        "view_image",
        "{difference[changed_share_outside_box]:.0%} of the pixels outside the region changed",
        image=apple,
        compare_with=str(photo),
        box=place,
    )
    await on_the_photo("Extend beyond the edges", "extend_image", MORE, 1600, instruction=MORE, left=160, right=160)
    alone = await on_the_photo("Take the background away", "remove_background", ALONE, subject="the banana")
    await tour.ask(
        "Convert, for nothing",
        "convert_image",
        "{images[0][width]}x{images[0][height]}, {images[0][mime_type]}",
        image=alone,
        width=400,
        output_format="webp",
    )
    await tour.ask("Find by words", "find_images", "{total} pictures with a banana in their prompts", query="banana")
    await tour.ask("Statistics", "output_stats", "{pictures} pictures, {live_uploads[count]} live uploads")
    await tour.ask(
        "Maintenance, as a dry run",
        "maintenance",
        "{count} pictures could go to the trash; nothing was changed",
        operation="full_cleanup",
        max_age_hours=0,
        keep_count=5,
    )


async def short_tour(tour: Tour, _photo: Path) -> None:
    """One picture and one edit of it: enough to see that the key and the models work."""
    (fox,) = await tour.make("A flash picture", prompt=FOX, model_tier="flash")
    await tour.make("Edit, by picture id", fox.id, prompt=COAT, input_images=[fox.id], model_tier="flash")
