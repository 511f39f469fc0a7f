"""Edits on pixels: regions, extensions, cutouts."""
