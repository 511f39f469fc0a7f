"""Reading picture files: what they are, what they hold, and their pixels."""
