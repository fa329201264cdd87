"""What the commands about containers share: where they are, and how failures are told."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from unionfuse.cli.errors import Failure, reports_failures
from unionfuse.container.errors import ContainerError
from unionfuse.syscalls.privilege import is_root

if TYPE_CHECKING:
    from collections.abc import Callable

    from unionfuse.container.state import Containers

_ENVIRONMENT = "UNIONFUSE_ROOT"  # of image.store.places, which takes long to load

P = ParamSpec("P")
T = TypeVar("T")

root_option = click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    envvar=_ENVIRONMENT,
    metavar="DIR",
    help="The store.  [default: /var/lib/unionfuse, or that of the user]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def reports(command: Callable[P, T]) -> Callable[P, T]:
    """Make a command print what it could not do as one line, exit code 1."""

    @reports_failures
    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except ContainerError as err:
            raise Failure(str(err)) from None

    return run


def reports_as_docker(command: Callable[P, T]) -> Callable[P, T]:
    """Make a command print what it could not do as one line; exit codes 125, 126 and 127."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return reports_failures(command)(*args, **kwargs)
        except ContainerError as err:
            Failure(str(err)).show()
            raise click.exceptions.Exit(err.exit_code) from None
        except Failure as err:
            err.show()
            raise click.exceptions.Exit(ContainerError.exit_code) from None

    return run


def place(root: Path | None, outside: bool) -> Path:
    """Return where the store is.

    What is run later, by us or by conmon, finds it in the environment too.

    Args:
        root: as the command line has it.
        outside: whether we were root before `namespaces.enter`.
    """
    from unionfuse.image.store.places import default_root

    found = (root or default_root(is_root=outside)).absolute()
    os.environ[_ENVIRONMENT] = str(found)
    return found


def containers_at(root: Path | None) -> Containers:
    """Return the containers of the store."""
    from unionfuse.container.state import Containers

    return Containers(place(root, is_root()))


def print_json(document: Any) -> None:  # noqa: ANN401 - whatever JSON has
    """Print a document."""
    import json  # in this function alone: few commands print it

    click.echo(json.dumps(document, indent=2))
