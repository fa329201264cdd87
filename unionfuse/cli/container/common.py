"""What the commands about containers share: where they are, and how failures are told."""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from unionfuse.cli.errors import Failure, reports_failures
from unionfuse.container.errors import ContainerError
from unionfuse.syscalls.privilege import is_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


class Failures:
    """What could not be done with some of several containers, which keeps none of the others."""

    def __init__(self) -> None:
        self._exit_code = 0

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Tell of a failure in a `with` block, and go on."""
        try:
            yield
        except ContainerError as err:
            Failure(str(err)).show()
            self._exit_code = err.exit_code

    def end(self, exit_code: int | None = None) -> None:
        """End with an exit code, that of the last failure by default, if there was one."""
        if self._exit_code:
            raise click.exceptions.Exit(self._exit_code if exit_code is None else exit_code)


class ProgramCommand(click.Command):
    """A command whose exit code is that of a program, and 125 where its own arguments are wrong."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:  # noqa: ANN401 - click's
        """See click."""
        with _usage_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's
        """See click."""
        with _usage_errors():
            return super().invoke(ctx)


@contextlib.contextmanager
def _usage_errors() -> Iterator[None]:
    try:
        yield
    except click.UsageError as err:
        raise _ProgramUsageError(err.format_message(), err.ctx) from None


class _ProgramUsageError(click.UsageError):
    exit_code = ContainerError.exit_code


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
