"""Words and rules: pure, importing nothing from the floors above."""
