r"""The filters of containerd's List: which snapshots are meant.

The grammar is that of containerd's pkg/filters:

    selectors := selector ("," selector)*          all of them have to hold
    selector  := fieldpath (operator value)?       without an operator: the field is there
    fieldpath := field ("." field)*
    field     := quoted | [A-Za-z] [A-Za-z0-9_]+
    operator  := "==" | "!=" | "~="                ~= searches a regular expression
    value     := quoted | [^\s,]+

`quoted` is a string in double quotes; the value of ~= may be between / / or | | as well. Regular
expressions are Python's here, and Go's there: what both know is the same but for rare corners.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from unionfuse.snapshots.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from unionfuse.snapshots.record import Record

    Predicate = Callable[[Record], bool]

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_FIELD = re.compile(rf"{_QUOTED}|[A-Za-z0-9_]+")
_OPERATOR = re.compile(r"==|!=|~=")
_VALUE = re.compile(rf"{_QUOTED}|[^\s,]+")
_PATTERN = re.compile(rf"{_QUOTED}|/(?:[^/\\]|\\.)*/|\|(?:[^|\\]|\\.)*\||[^\s,]+")


def parse(filters: Iterable[str]) -> Predicate:
    """Return what tells whether a snapshot is meant: any of the filters holds, or there is none.

    Raises:
        InvalidArgument: for a filter that makes no sense.
    """
    parsed = [_Parser(text).selectors() for text in filters]
    if not parsed:
        return lambda record: True
    return lambda record: any(all(one(record) for one in selectors) for selectors in parsed)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def selectors(self) -> list[Predicate]:
        found: list[Predicate] = []
        while self._text:  # an empty filter is true of everything
            found.append(self._selector())
            if self._at == len(self._text):
                break
            self._expect(",")
        return found

    def _selector(self) -> Predicate:
        path = [self._field()]
        while self._text[self._at : self._at + 1] == ".":
            self._at += 1
            path.append(self._field())
        if self._text[self._at : self._at + 1] in ("", ","):
            return lambda record: _value_of(record, path) is not None
        operator = self._take(_OPERATOR, "an operator (==, !=, ~=)")
        if operator == "~=":
            search = self._pattern().search
            return lambda record: search(_value_of(record, path) or "") is not None
        value = self._unquoted(self._take(_VALUE, "a value"))
        if operator == "==":
            return lambda record: _value_of(record, path) == value
        return lambda record: (_value_of(record, path) or "") != value

    def _field(self) -> str:
        return self._unquoted(self._take(_FIELD, "a field"))

    def _pattern(self) -> re.Pattern[str]:
        text = self._take(_PATTERN, "a regular expression")
        if len(text) > 1 and text[0] == text[-1] and text[0] in "/|":
            text = text[1:-1].replace(f"\\{text[0]}", text[0])
        else:
            text = self._unquoted(text)
        try:
            return re.compile(text)
        except re.error as err:
            raise InvalidArgument(f"filter {self._text!r}: {text!r}: {err}") from None

    def _unquoted(self, text: str) -> str:
        if not text.startswith('"'):
            return text
        try:
            value = ast.literal_eval(text)  # what escapes Go's strings have, Python's have too
        except (SyntaxError, ValueError) as err:
            raise InvalidArgument(f"filter {self._text!r}: {text}: {err}") from None
        assert isinstance(value, str), "it is between quotes"
        return value

    def _expect(self, char: str) -> None:
        if self._text[self._at] != char:
            raise self._problem(repr(char))
        self._at += 1

    def _take(self, pattern: re.Pattern[str], what: str) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise self._problem(what)
        self._at = found.end()
        return found[0]

    def _problem(self, expected: str) -> InvalidArgument:
        return InvalidArgument(f"filter {self._text!r}: expected {expected} at {self._at}")


def _value_of(record: Record, path: list[str]) -> str | None:
    """Return what a snapshot has at `path`; None: nothing."""
    first, *rest = path
    if first == "kind":
        return record.kind.name.lower()
    if first == "name":
        return record.name
    if first == "parent":
        return record.parent
    if first == "labels":
        return record.labels.get(".".join(rest))
    return None
