"""Words every answer, as text and as structure, for every door."""
