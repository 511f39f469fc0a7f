"""Words and rules. Imports nothing from the floors above; only policy/rules.py reads a file, the policy's own."""
