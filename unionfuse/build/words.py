r"""Words of a Dockerfile: quotes, escapes and variables (Dockerfile reference, "Environment
replacement").

    $NAME ${NAME}      its value, nothing if it has none
    ${NAME:-WORD}      WORD if it has none, or an empty one; with - alone: if it has none
    ${NAME:+WORD}      WORD if it has one that is not empty; with + alone: if it has one
    ${NAME:?WORD}      an error that says WORD if it has none, or an empty one; ? likewise

In "..." variables are replaced, in '...' they are not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from unionfuse.build.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]")
_SPECIAL = "@*#"


def expand(word: str, variables: Mapping[str, str], escape: str = "\\", line: int = 0) -> str:
    """Return a word with its variables replaced, without quotes and escapes.

    Raises:
        BuildError: for a quote or a brace without an end, or what is not supported in one.
    """
    return _Expander(word, variables, escape, line).word()


def expand_to_words(
    word: str, variables: Mapping[str, str], escape: str = "\\", line: int = 0
) -> list[str]:
    """Return the words that one is when its variables are replaced by several."""
    return expand(word, variables, escape, line).split()


def expand_text(text: str, variables: Mapping[str, str], escape: str = "\\", line: int = 0) -> str:
    """Return the content of a heredoc with its variables replaced; quotes are as they are."""
    return _Expander(text, variables, escape, line).text()


class _Expander:
    def __init__(self, word: str, variables: Mapping[str, str], escape: str, line: int) -> None:
        self._word = word
        self._at = 0
        self._variables = variables
        self._escape = escape
        self._line = line

    def _error(self, text: str) -> BuildError:
        return BuildError(f"{text} in {self._word!r}", self._line)

    def _peek(self) -> str:
        return self._word[self._at : self._at + 1]

    def _next(self) -> str:
        found = self._peek()
        self._at += 1
        return found

    def word(self, end: str = "") -> str:
        """Read until `end`, or to the end of all."""
        out = []
        while (char := self._next()) and char != end:
            if char == "'":
                out.append(self._single())
            elif char == '"':
                out.append(self._double())
            elif char == "$":
                out.append(self._dollar())
            elif char == self._escape:
                # at the end of a word it is nothing but itself
                out.append(self._next() or char)
            else:
                out.append(char)
        if end and not char:
            raise self._error(f"no {end}")
        return "".join(out)

    def text(self) -> str:
        out = []
        while char := self._next():
            if char == "$":
                out.append(self._dollar())
            elif char == self._escape and self._peek() in ("$", self._escape):
                out.append(self._next())
            else:
                out.append(char)
        return "".join(out)

    def _single(self) -> str:
        end = self._word.find("'", self._at)
        if end < 0:
            raise self._error("no end of the quote '")
        found = self._word[self._at : end]
        self._at = end + 1
        return found

    def _double(self) -> str:
        out = []
        while (char := self._next()) != '"':
            if not char:
                raise self._error('no end of the quote "')
            if char == "$":
                out.append(self._dollar())
            elif char == self._escape and self._peek() in ('"', "$", self._escape):
                out.append(self._next())
            else:
                out.append(char)
        return "".join(out)

    def _name(self) -> str:
        match = _NAME.match(self._word, self._at)
        if match is None:
            return self._next() if self._peek() and self._peek() in _SPECIAL else ""
        self._at = match.end()
        return match[0]

    def _dollar(self) -> str:
        if self._peek() != "{":
            name = self._name()
            return self._variables.get(name, "") if name else "$"
        self._at += 1
        name = self._name()
        if not name:
            raise self._error("no name of a variable after ${")
        value = self._variables.get(name)
        kind = self._next()
        if kind == "}":
            return value or ""
        counts_empty = kind == ":"
        if counts_empty:
            kind = self._next()
        if kind not in ("-", "+", "?") or not kind:
            raise self._error(f"${{{name}{':' if counts_empty else ''}{kind}...}} is not supported")
        other = self.word("}")
        is_there = value is not None and (value != "" or not counts_empty)
        if kind == "+":
            return other if is_there else ""
        if is_there:
            return value or ""
        if kind == "-":
            return other
        raise BuildError(f"{name}: {other or 'is not set'}", self._line)
