"""The verbs of the program, written once for every door."""
