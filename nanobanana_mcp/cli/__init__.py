"""The command line, a door for people."""
