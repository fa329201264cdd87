"""Which ids a user may have in a user namespace: subuid(5), subgid(5).

Root of the namespace is the user; the ids from 1 on are the subordinate ones, in the order in
which the files have them. Without them the namespace has no id but root's.
"""

from __future__ import annotations

from pathlib import Path

from unionfuse.record import record

SUBUID, SUBGID = Path("/etc/subuid"), Path("/etc/subgid")


@record
class IdRange:
    """Consecutive ids: `inside` is the first one in the namespace, `outside` the one it is."""

    inside: int
    outside: int
    count: int


def subordinate(text: str, user: str, uid: int) -> list[tuple[int, int]]:
    """Return the ranges (first, count) that a file of subordinate ids gives to a user.

    A line is `NAME:FIRST:COUNT` or `UID:FIRST:COUNT`; lines that make no sense count for nothing,
    as newuidmap(1) has it.
    """
    found = []
    for line in text.splitlines():
        owner, *numbers = line.strip().split(":")
        if owner not in (user, str(uid)) or len(numbers) != 2:
            continue
        if all(number.isdecimal() for number in numbers) and int(numbers[1]) > 0:
            found.append((int(numbers[0]), int(numbers[1])))
    return found


def mapping(own: int, ranges: list[tuple[int, int]]) -> list[IdRange]:
    """Return the map of a namespace in which `own` is root, and what follows is subordinate."""
    mapped = [IdRange(0, own, 1)]
    inside = 1
    for first, count in ranges:
        mapped.append(IdRange(inside, first, count))
        inside += count
    return mapped


def arguments(mapped: list[IdRange]) -> list[str]:
    """Return a map as newuidmap(1) takes it."""
    return [str(n) for part in mapped for n in (part.inside, part.outside, part.count)]


def highest(uid_map: str) -> int:
    """Return the highest id of a namespace, given what /proc/PID/uid_map says."""
    rows = [[int(field) for field in line.split()] for line in uid_map.splitlines()]
    return max((inside + count - 1 for inside, _, count in rows), default=-1)


def read(path: Path) -> str:
    """Return a file of subordinate ids; nothing if there is none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
