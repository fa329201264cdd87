"""What can be wrong with a build, in words for its user."""

from __future__ import annotations


class BuildError(Exception):
    """The build can not go on; the text is one line.

    Attributes:
        line: of the Dockerfile, from 1 on; 0 if it is none of them.
    """

    def __init__(self, text: str, line: int = 0) -> None:
        super().__init__(text)
        self.line = line
