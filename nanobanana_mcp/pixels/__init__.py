"""All code that looks into a picture: the only place that knows Pillow and numpy."""
