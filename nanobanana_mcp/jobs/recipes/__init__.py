"""Pictures that are put together from several answers."""
