"""Everything the program can do, once, for every door."""
