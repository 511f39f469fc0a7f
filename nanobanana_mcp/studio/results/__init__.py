"""What every answer says, as text and as structure."""
