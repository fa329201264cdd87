"""Names of images, in the database and in ROOT/index.json.

The index has what an image layout has (image-layout.md), with the whole name in
`org.opencontainers.image.ref.name`: other programs can read the store as one, and the database
can be made anew from it. It is written first, within the transaction: no two processes write it
at once, and a name that a user was told of is in both.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from unionfuse.image import media_types
from unionfuse.image.errors import ImageError, Malformed, StoreError
from unionfuse.image.manifest import Descriptor, Index, encode, parse_document
from unionfuse.image.store.blobs import as_store_error, sync_directory

if TYPE_CHECKING:
    from pathlib import Path

    from unionfuse.image.store.database import Database, Name

REF_NAME = "org.opencontainers.image.ref.name"


def give(database: Database, index: Path, reference: str, descriptor: Descriptor) -> None:
    """Give a name to a document."""
    plain = Descriptor(descriptor.media_type, descriptor.digest, descriptor.size)
    with database.transaction():
        database.set_name(reference, plain)
        _write(index, database.names())


def take(database: Database, index: Path, references: list[str]) -> None:
    """Take names away."""
    with database.transaction():
        for reference in references:
            database.remove_name(reference)
        _write(index, database.names())


def restore(database: Database, index: Path) -> None:
    """Give a new database the names that the index has, in the transaction that makes it.

    Raises:
        StoreError: if the index is damaged.
    """
    try:
        found = _read(index)
    except ImageError as err:
        raise StoreError(
            f"the names of images are lost: {err}; remove that file to go on without them"
        ) from None
    for name, descriptor in found.items():
        database.set_name(name, descriptor)


def problem(database: Database, index: Path) -> str | None:
    """Say what is wrong with the index, None if names can be restored from it.

    They need not be those of the database: a command that was killed has changed one of the two,
    and the next one writes the index anew.
    """
    with database.transaction():  # nobody replaces it meanwhile
        try:
            _read(index)
        except ImageError as err:
            return str(err)
        return f"{index} is missing" if database.names() and not index.exists() else None


def rewrite(database: Database, index: Path) -> None:
    """Write the index anew."""
    with database.transaction():
        _write(index, database.names())


def _read(index: Path) -> dict[str, Descriptor]:
    """Return the names in the index; none if it is not there."""
    try:
        data = index.read_bytes()
    except FileNotFoundError:
        return {}
    document = parse_document(data, media_types.OCI_INDEX, str(index))
    if not isinstance(document, Index):
        raise Malformed(f"{index} is no index")
    named = (((entry.annotations or {}).get(REF_NAME), entry) for entry in document.manifests)
    return {name: entry for name, entry in named if name}


def _write(index: Path, names: list[Name]) -> None:
    entries = tuple(
        msgspec.structs.replace(name.descriptor, annotations={REF_NAME: name.reference})
        for name in names
    )
    data = encode(Index(entries, media_type=media_types.OCI_INDEX))
    temporary = index.with_suffix(".new")  # one writer at a time: the transaction sees to it
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(index)
        sync_directory(index.parent)
    except OSError as err:
        raise as_store_error(err) from None
