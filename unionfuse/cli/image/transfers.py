"""What `pull` and `push` share: how to reach a registry, and how transfers are shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unionfuse.cli.image.common import short
from unionfuse.image.registry.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from unionfuse.image.digest import Digest
    from unionfuse.image.manifest import Descriptor
    from unionfuse.image.reference import Reference
    from unionfuse.image.registry.connection import ConnectionOptions
    from unionfuse.image.watch import Watch

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OPTIONS = (
    click.option("--plain-http", is_flag=True, help="Speak without TLS: anybody can listen."),
    click.option("--tls-ca", metavar="FILE", type=_FILE, help="Trust these authorities too (PEM)."),
    click.option("--authfile", metavar="FILE", type=_FILE, help="Look for credentials here alone."),
    click.option(
        "--jobs",
        metavar="N",
        type=click.IntRange(1, 64),
        default=4,
        show_default=True,
        help="Blobs that are transferred at once.",
    ),
)


def registry_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options by which a registry is reached."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def connection_options(
    *, plain_http: bool, tls_ca: Path | None, authfile: Path | None
) -> ConnectionOptions:
    """Return what those options mean."""
    from unionfuse.image.registry.connection import ConnectionOptions
    from unionfuse.image.registry.endpoint import Trust, default_directories

    trust = Trust(plain_http, tls_ca, default_directories())
    return ConnectionOptions(trust, None if authfile is None else (authfile,))


def at_registry(text: str) -> Reference:
    """Return the name of an image at a registry.

    Raises:
        BadReference: if it is no name, or one of what was made here.
    """
    from unionfuse.image.errors import BadReference
    from unionfuse.image.reference import LOCALHOST, Reference

    reference = Reference.parse(text)
    if reference.registry == LOCALHOST:
        raise BadReference(
            f"{reference} names no registry: {LOCALHOST}/ is what was made here, "
            f"and a registry on this machine has its port, as in {LOCALHOST}:5000/"
        )
    return reference


class Shown(Progress):
    """Shows each blob as one row, and counts what came of them.

    Attributes:
        outcomes: by digest, a word of `progress`.
    """

    def __init__(self, verb: str, watch: Watch) -> None:
        self._verb = verb
        self._watch = watch
        self._sizes: dict[Digest, int] = {}
        self.outcomes: dict[Digest, str] = {}

    def begin(self, descriptor: Descriptor) -> None:
        """Add a row."""
        self._sizes[descriptor.digest] = descriptor.size
        self.at(descriptor.digest, 0)

    def at(self, digest: Digest, offset: int) -> None:
        """Move a bar."""
        self._watch(f"{self._verb} {short(digest)}", offset, self._sizes[digest])

    def end(self, digest: Digest, outcome: str) -> None:
        """Fill a bar."""
        self.outcomes[digest] = outcome
        self.at(digest, self._sizes[digest])
