"""Turn what went wrong into one line on stderr and an exit code."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from unionfuse.cli import interrupts
from unionfuse.cli.printing import printable
from unionfuse.fuse.errors import MountError
from unionfuse.image.errors import ImageError, reason
from unionfuse.offline.errors import OfflineError

if TYPE_CHECKING:
    from collections.abc import Callable

INTERRUPTED = 130

P = ParamSpec("P")
T = TypeVar("T")


class Failure(click.ClickException):
    """A failure that its user can understand; exit code 1."""

    exit_code = 1

    def show(self, file: object = None) -> None:
        """Print the one line, if anybody can read it."""
        with contextlib.suppress(OSError):
            say(self.format_message())


def say(text: str) -> None:
    """Tell the user, in one line on stderr, what is no failure."""
    click.echo(f"unionfuse: {printable(text)}", err=True)


def reports_failures(command: Callable[P, T]) -> Callable[P, T]:
    """Make a command print what it could not do as one line; an interrupt is code 130."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            with interrupts.raised():
                return command(*args, **kwargs)
        except (ImageError, MountError, OfflineError) as err:
            raise Failure(str(err)) from None
        except BrokenPipeError:  # who reads has enough
            raise click.exceptions.Exit(1) from None
        except OSError as err:
            raise Failure(reason(err)) from None
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None

    return run
