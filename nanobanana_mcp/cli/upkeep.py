"""The verbs that make no picture: upload, stats, maintain."""

from nanobanana_mcp.cli.verb import Verb, command
from nanobanana_mcp.server.tools import library

upload = command(
    Verb(name="upload", tool=library.upload_file, first=("path",), data="name"),
    """Put a picture into Gemini's Files API, free, for 48 hours.

    Its files/... id goes to stdout; every verb takes it as an input.

    For example:
      nanobanana upload photo.jpg --display-name breakfast
    """,
)

stats = command(
    Verb(name="stats", tool=library.output_stats, first=()),
    """Say what was made and spent, and which pictures are the newest.

    For example:
      nanobanana stats
      nanobanana stats --recent 3 --json
    """,
)

maintain = command(
    Verb(name="maintain", tool=library.maintenance, first=("operation",)),
    """Tidy up. Only says what it would do, unless you say --no-dry-run.

    For example:
      nanobanana maintain cleanup_local --max-age-hours 720
      nanobanana maintain recover --no-dry-run
    """,
)
