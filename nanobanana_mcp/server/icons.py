"""Icons of the server and its tools: one shape each, in a yellow that shows on light and on dark."""

from mcp.types import Icon

SHAPES = {
    "server": "M2,1q0,8,4,11t9,1q-2,3-6,3Q1,14,1,5q0-3,1-4",
    "generate_image": "M8,0q0,8,8,8-8,0-8,8,0-8-8-8,8,0,8-8",
    "edit_region": "M1,1h14v14H1zM3,3v10h10V3zM5,5h4v4H5z",
    "extend_image": "M5,5h6v6H5zM8,0l3,3H5zM8,16l3-3H5zM0,8l3-3v6zM16,8l-3-3v6z",
    "remove_background": "M8,0q4,0,4,4T8,8,4,4,8,0M1,15q0-6,7-6t7,6z",
    "convert_image": "M5,1L1,4.5,5,8V6h10V3H5zM11,8l4,3.5-4,3.5v-2H1v-3h10z",
    "find_images": "M1,1h10v8l5,5-2,2-5-5H1zM3,3v6h6V3z",
    "view_image": "M0,8q8-12,16,0-8,12-16,0M6,6v4h4V6z",
    "upload_file": "M8,1l5,6h-3v4H6V7H3zM1,12h2v2h10v-2h2v4H1z",
    "output_stats": "M1,9h3v6H1zM6,5h3v10H6zM11,1h3v14h-3z",
    "maintenance": "M6,1h4v1h5v2H1V2h5zM2,5h12l-1,10H3z",
}
"""A banana, a spark, a frame within a frame, arrows outwards, a person, two arrows, a magnifier, an eye, a tray, bars and a bin: SVG paths in a
square of 16, spelt without blanks, as each of them takes three characters in an address.
"""

_ADDRESS = (
    "data:image/svg+xml,%3Csvg%20xmlns='http://www.w3.org/2000/svg'%20viewBox='0,0,16,16'%3E"
    "%3Cpath%20fill='%23da0'%20d='{shape}'/%3E%3C/svg%3E"
)


def icon(name: str) -> Icon:
    """The icon of a tool, or of the `server`, as an address that holds the picture itself."""
    return Icon(src=_ADDRESS.format(shape=SHAPES[name]))
