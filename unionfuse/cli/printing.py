"""Text for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return `text` in one line that a terminal can show, whatever bytes a path has."""
    shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown
    )
