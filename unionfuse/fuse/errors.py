"""What can go wrong before a mount serves, in words for its user."""


class MountError(Exception):
    """A mount or unmount that can not be done; the text says why and what would help."""
