"""The kernel session: speaks the FUSE wire format itself, so that it can ask for less of it."""
