"""What a registry wants to be shown: the challenges of `WWW-Authenticate` (RFC 9110, 11.6.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9._~-]*)(?=[\s,]|$)")
# Realms are URLs: those that are not quoted, as they have to be, are read all the same.
_PARAMETER = re.compile(r'([A-Za-z][A-Za-z0-9._-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')
_BETWEEN = re.compile(r"[\s,]*")
_REST = re.compile(r"[^,]*")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to be let in.

    Attributes:
        scheme: in lower case, e.g. `bearer`.
        parameters: by their names in lower case.
    """

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Read all challenges of an answer; what can not be read is passed over."""
    challenges: list[Challenge] = []
    for header in headers:
        current: Challenge | None = None
        at = _end(_BETWEEN, header, 0)
        while at < len(header):
            if (parameter := _PARAMETER.match(header, at)) is not None:
                if current is not None:
                    quoted, plain = parameter[2], parameter[3]
                    value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                    current.parameters.setdefault(parameter[1].lower(), value)
                at = parameter.end()
            elif (scheme := _SCHEME.match(header, at)) is not None:
                current = Challenge(scheme[1].lower())
                challenges.append(current)
                at = scheme.end()
            else:
                at = _end(_REST, header, at)
            at = _end(_BETWEEN, header, at)
    return challenges


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()
