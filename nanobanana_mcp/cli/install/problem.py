"""The one reason for which a client's file is left as it is."""


class NotEditable(Exception):
    """A text that cannot be changed without losing some of it; its words say why, as the end of a sentence."""
