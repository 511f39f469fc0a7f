"""The text and the structure of every answer, for every door."""
