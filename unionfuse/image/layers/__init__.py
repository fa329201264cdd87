"""The tars that layers travel in: read, applied to a directory, made from an upper."""
