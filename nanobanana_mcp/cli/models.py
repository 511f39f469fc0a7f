"""The verb models: the tiers, their sizes and prices, and how long each model lives; opens no library."""

from nanobanana_mcp.cli.output import write_json, write_lines
from nanobanana_mcp.cli.verb import JSON, answered
from nanobanana_mcp.settings import load_settings
from nanobanana_mcp.studio.open import models as chosen
from nanobanana_mcp.studio.results.models import models_structure, models_text


def models(*, json: JSON = False) -> int:
    """Say which models there are: tiers, sizes, prices and when Google ends them.

    For example:
      nanobanana models
      nanobanana models --json
    """

    def work() -> None:
        found = chosen(load_settings())
        if json:
            write_json(models_structure(found))
        else:
            write_lines(models_text(found).rstrip().split("\n"))

    return answered("models", work)
