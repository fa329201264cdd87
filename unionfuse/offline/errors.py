"""What can go wrong with an upper that is worked on, in words for its user."""


class OfflineError(Exception):
    """It can not be done; the text says why, in one line."""
