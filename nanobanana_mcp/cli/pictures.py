"""The verbs that make pictures: generate, edit, region, extend, cutout, convert."""

from nanobanana_mcp.cli.verb import Verb, command
from nanobanana_mcp.server.tools import edit as tools
from nanobanana_mcp.server.tools.generate import generate_image

MADE = "file_paths"

generate = command(
    Verb(name="generate", tool=generate_image, first=("prompt",), words="prompt", data=MADE),
    """Make new pictures. Their paths go to stdout, words and the cost to stderr.

    Without PROMPT the words come from --file, from stdin, or from $EDITOR.
    More than four pictures are made only with --yes or when you agree.

    For example:
      nanobanana generate "a red fox in the snow"
      nanobanana generate "a paper boat" -n 2 -o boats/ --aspect-ratio 16:9
      nanobanana generate "a logo with a crane" --background transparent -o logo.png
      nanobanana generate --file prompt.txt --dry-run
      echo "a harbour at dusk" | nanobanana generate --max-cost 0.10 --json
      nanobanana generate "both in one picture" -i photo.jpg -i other.png --input-roles subject --input-roles style
    """,
)

edit = command(
    Verb(
        name="edit",
        tool=generate_image,
        first=("image", "prompt"),
        words="prompt",
        image_as="input_images",
        fixed={"mode": "edit"},
        data=MADE,
    ),
    """Edit a picture as a whole: say what changes and what must stay.

    For example:
      nanobanana edit photo.jpg "make it evening; everything else stays" -o evening.png
      nanobanana edit - "in watercolour" < photo.jpg
    """,
)

region = command(
    Verb(name="region", tool=tools.edit_region, first=("image", "instruction"), words="instruction", data=MADE),
    """Change one region of a picture; every pixel outside it stays as it is.

    For example:
      nanobanana region photo.jpg "a green apple" --box 10,10,120,120
      nanobanana region photo.jpg "a blue sky" --box 0,0,1,0.4 --dry-run
    """,
)

extend = command(
    Verb(name="extend", tool=tools.extend_image, first=("image", "instruction"), words="instruction", data=MADE),
    """Continue a picture beyond its edges; the picture itself stays as it is.

    For example:
      nanobanana extend photo.jpg --right 64
      nanobanana extend photo.jpg "more of the table" --aspect-ratio 16:9 --dry-run
    """,
)

cutout = command(
    Verb(name="cutout", tool=tools.remove_background, first=("image",), data=MADE),
    """Cut the subject of a picture out, with real transparency.

    For example:
      nanobanana cutout photo.jpg --dry-run
      nanobanana cutout photo.jpg --subject "the cup" -o cup.png --max-cost 0.50
    """,
)

convert = command(
    Verb(name="convert", tool=tools.convert_image, first=("image",), data=MADE),
    """Resize, crop, rotate or change the format of a picture; free and local.

    For example:
      nanobanana convert photo.jpg --width 320 --output-format webp
      nanobanana convert photo.jpg --crop 0.1,0.1,0.9,0.9 -o detail.png
      nanobanana convert photo.jpg --assets favicon -o icons/
      cat photo.jpg | nanobanana convert - --rotate -90
    """,
)
