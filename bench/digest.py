"""Tell whether two trees are the same, by one short string."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every path below `root`, relative, with its attributes, in an order that is its own."""
    pending = [""]
    while pending:
        directory = pending.pop()
        with os.scandir(root / directory) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            path = os.path.join(directory, name)
            status = os.lstat(root / path)
            yield path, status
            if stat.S_ISDIR(status.st_mode):
                pending.append(path)


def tree_digest(root: Path, ignore: str | None = None) -> str:
    """Hash names, types, modes, sizes, link targets and contents of all below `root`.

    Names that begin with `ignore` are left out.
    """
    digest = xxhash.xxh3_128()
    for path, status in walk(root):
        if ignore and os.path.basename(path).startswith(ignore):
            continue
        digest.update(f"{path}\0{status.st_mode:o}\0".encode(errors="surrogateescape"))
        if stat.S_ISREG(status.st_mode):
            digest.update(f"{status.st_size}\0".encode())
            digest.update(file_digest(root / path))
        elif stat.S_ISLNK(status.st_mode):
            digest.update(os.fsencode(os.readlink(root / path)))
    return digest.hexdigest()


def file_digest(path: Path) -> bytes:
    """Hash the content of one file."""
    digest = xxhash.xxh3_128()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()
