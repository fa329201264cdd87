"""Which paths of a context .dockerignore leaves out, by docker's rules (moby/patternmatcher).

A pattern is about a path or any directory above it; `**` is any number of directories, `*` and `?`
do not go over a slash; the last line that fits decides; `!` takes paths in again.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from unionfuse.build.errors import BuildError


@dataclass(frozen=True, slots=True)
class _Pattern:
    expression: re.Pattern[str]
    takes_in: bool


class Ignore:
    """The rules of one .dockerignore."""

    def __init__(self, text: str = "", name: str = ".dockerignore") -> None:
        """Read the rules.

        Raises:
            BuildError: for a pattern that is none.
        """
        self._patterns: list[_Pattern] = []
        for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
            if line.startswith("#") or not line.strip():
                continue
            pattern = line.strip()
            takes_in = pattern.startswith("!")
            if takes_in:
                pattern = pattern[1:].strip()
            pattern = posixpath.normpath(pattern).lstrip("/") if pattern else ""
            if not pattern or pattern == ".":
                if takes_in:
                    raise BuildError(f"{name}:{number}: nothing stands after the '!'")
                continue
            try:
                expression = re.compile(translate(pattern, over_slashes=True), re.DOTALL)
            except (re.error, ValueError) as err:
                raise BuildError(f"{name}:{number}: {pattern!r} is no pattern: {err}") from None
            self._patterns.append(_Pattern(expression, takes_in))
        self.has_exceptions = any(pattern.takes_in for pattern in self._patterns)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def ignores(self, path: str) -> bool:
        """Tell whether a path, from the context on, is left out."""
        ignored = False
        above = [path]
        while "/" in above[-1]:
            above.append(above[-1].rpartition("/")[0])
        for pattern in self._patterns:
            if pattern.takes_in == ignored and any(map(pattern.expression.fullmatch, above)):
                ignored = not pattern.takes_in
        return ignored


def translate(pattern: str, *, over_slashes: bool = False) -> str:
    """Return a regular expression for a pattern as Go's filepath.Match has it.

    Args:
        pattern: with `*`, `?`, `[a-z]`, `[^a-z]` and `\\`.
        over_slashes: whether `**` is any number of directories.

    Raises:
        ValueError: if a bracket has no end, or nothing is after the last backslash.
    """
    out = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*" and over_slashes and pattern.startswith("*", at):
            at += 1
            if pattern.startswith("/", at):
                at += 1
                out.append("(?:.*/)?")
            else:
                out.append(".*")
        elif char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            bracket, at = _bracket(pattern, at)
            out.append(bracket)
        elif char == "\\":
            if at == len(pattern):
                raise ValueError("nothing is after the last backslash")
            out.append(re.escape(pattern[at]))
            at += 1
        else:
            out.append(re.escape(char))
    return "".join(out)


def _bracket(pattern: str, at: int) -> tuple[str, int]:
    """Return the expression of a class whose `[` was read, and where it ends."""
    negated = pattern.startswith("^", at)
    at += negated
    inside: list[str] = []
    while at < len(pattern) and (pattern[at] != "]" or not inside):
        char = pattern[at]
        if char == "\\" and at + 1 < len(pattern):
            at += 1
            inside.append(re.escape(pattern[at]))
        else:
            inside.append("-" if char == "-" else re.escape(char))
        at += 1
    if at >= len(pattern):
        raise ValueError("a bracket has no end")
    return f"(?!/)[{'^' if negated else ''}{''.join(inside)}]", at + 1
