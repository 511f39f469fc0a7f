"""All code that looks into a picture: the only room between the doors and the domain that imports Pillow and numpy."""
