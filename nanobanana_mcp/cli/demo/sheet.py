"""Makes the demo's contact sheet of all its pictures, and the tree of what was made from what."""

from collections.abc import Sequence

from rich.text import Text
from rich.tree import Tree

from nanobanana_mcp.cli.demo.tour import Shown
from nanobanana_mcp.pixels.outputs.thumbnails import contact_sheet

CELL = 360
COLUMNS = 5
WORDS = 7


def draw_sheet(shown: Sequence[Shown], title: str) -> bytes:
    """A PNG with every picture, numbered from 1, and below each what was asked and how it was made."""
    pictures = [(each.thumbnail.read_bytes(), caption(each, shown)) for each in shown]
    sheet = contact_sheet(pictures, columns=COLUMNS, cell=CELL, title=title, format="png")
    return sheet.data


def caption(one: Shown, shown: Sequence[Shown]) -> str:
    """The lines below a picture: what was asked, its sources by their numbers on the sheet, tier and size in pixels."""
    drawn = f"{one.tier} {one.width}x{one.height}" if one.tier else f"{one.width}x{one.height}"
    return f"{one.prompt}: " + ", ".join(words for words in (_origin(one, shown), drawn) if words)


def _origin(one: Shown, shown: Sequence[Shown]) -> str:
    numbers = {each.id: number for number, each in enumerate(shown, 1)}
    parents = " and ".join(str(numbers[parent]) for parent in one.parents)
    return f"{one.how} {parents}".strip()


def draw_tree(shown: Sequence[Shown]) -> Tree:
    """Every picture below what it was made from; one with several parents stands below each, in full only once."""
    tree = Tree(Text("Lineage", style="bold"))
    told: set[str] = set()

    def hang(branch: Tree, number: int, one: Shown) -> None:
        label = Text.assemble((f"{number:>2}  ", "bold"), (one.id[-6:], "dim"), f"  {_few_words(one.prompt)}  ")
        if one.id in told:
            branch.add(label.append("(see above)", style="dim"))
            return
        told.add(one.id)
        below = branch.add(label.append(", ".join(filter(None, (_origin(one, shown), one.tier))), style="dim"))
        for child_number, child in enumerate(shown, 1):
            if one.id in child.parents:
                hang(below, child_number, child)

    for number, one in enumerate(shown, 1):
        if not one.parents:
            hang(tree, number, one)
    return tree


def _few_words(text: str) -> str:
    words = text.split()
    return " ".join(words[:WORDS]).rstrip(",:;") + ("..." if len(words) > WORDS else "")
