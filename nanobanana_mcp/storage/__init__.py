"""The disk: which files may be read and written, and how, so that none is torn, overwritten or mistaken for another."""
