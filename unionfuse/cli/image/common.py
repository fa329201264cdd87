"""What the commands of `unionfuse image` share: the store, sizes, JSON, progress."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from unionfuse.cli.errors import Failure
from unionfuse.cli.image_cmd import Chosen
from unionfuse.cli.printing import printable
from unionfuse.image.errors import ImageError
from unionfuse.image.layers.limits import Limits
from unionfuse.image.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from unionfuse.image.manifest import Platform
    from unionfuse.image.watch import Watch

SHORT_ID = 12
_ANY = sys.maxsize
_UNLIMITED = Limits(entries=_ANY, duplicates=_ANY, total_bytes=_ANY, ratio=_ANY, names_bytes=_ANY)
_UNITS = ("B", "kB", "MB", "GB", "TB")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Show no progress.")


def chosen() -> Chosen:
    """Return what the command line says of the store."""
    return click.get_current_context().find_object(Chosen) or Chosen()


def opened(*, makes_room: bool = False) -> Store:
    """Open the store that the command line names; use it in a `with`."""
    store = Store.open(chosen().root, makes_room=makes_room)
    if chosen().unlimited:
        store.limits = _UNLIMITED
    return store


def existing(path: str) -> BinaryIO:
    """Open a file that the command line names.

    Raises:
        Failure: if it can not be read.
    """
    try:
        return open(path, "rb")
    except OSError as err:
        raise Failure(f"{path}: {err.strerror}") from None


def tidy(store: Store, *, partials: bool = False) -> None:
    """Remove what this command has brought into the store and no image has.

    It is not to stay, least of all where there was no room for all of it: with `partials` not
    even what a transfer could take up.
    """
    from unionfuse.image.store.collect import collect

    store.forget_uses()
    with contextlib.suppress(ImageError):  # something else is damaged: `verify` tells of it
        collect(store, partials=partials)


def platform_of(text: str | None) -> Platform | None:
    """Return the platform of a `--platform`."""
    from unionfuse.image.platforms import parse_platform

    return None if text is None else parse_platform(text)


def print_json(document: Any) -> None:  # noqa: ANN401 - whatever JSON has
    """Print a document."""
    click.echo(json.dumps(document, indent=2))


def short(digest: str) -> str:
    """Return an id as it is shown."""
    return digest.partition(":")[2][:SHORT_ID]


def sized(size: int) -> str:
    """Return a number of bytes as docker shows it."""
    amount = float(size)
    for unit in _UNITS:
        if amount < 1000 or unit == _UNITS[-1]:
            return f"{size} B" if unit == "B" else f"{amount:.3g} {unit}"
        amount /= 1000
    raise AssertionError("unreachable")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns, as wide as what is in them."""
    cells = [header, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


@contextlib.contextmanager
def progress(*, quiet: bool = False) -> Iterator[Watch]:
    """Show on stderr how long work goes, if that is a terminal."""
    if quiet or not sys.stderr.isatty():
        from unionfuse.image.watch import unwatched

        yield unwatched
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        tasks: dict[str, TaskID] = {}

        def watch(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(printable(what), total=total or None)
            shown.update(tasks[what], completed=done, total=total or None)

        yield watch
