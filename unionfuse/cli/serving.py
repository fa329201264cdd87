"""The options of every command that mounts, and the making of the mount."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from unionfuse.fuse.options import DEFAULT_POLL_US, MountOptions, MountPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from unionfuse.fuse.overlay_words import LayerWords


class Serving(NamedTuple):
    """How a mount is to be served, as the command line has it; see `MountPlan`.

    Attributes:
        texts: the values of all `-o`.
    """

    texts: tuple[str, ...]
    session: str
    io: str
    poll_us: int
    foreground: bool
    debug: bool
    log: str | None

    def start(
        self,
        layers: LayerWords,
        mountpoint: str,
        options: MountOptions,
        kept_fds: tuple[int, ...] = (),
    ) -> None:
        """Mount, and return when the mount serves, or in the foreground when it has ended.

        Args:
            layers: what to unite.
            mountpoint: where.
            options: what the words of `texts` say.
            kept_fds: descriptors that stay open as long as the mount is served.
        """
        from unionfuse.fuse import daemon
        from unionfuse.fuse.plan import make_plan

        debug = self.debug or options.debug
        daemon.start(
            make_plan(
                MountPlan(
                    lowers=layers.lowers,
                    upper=layers.upper,
                    workdir=layers.workdir,
                    mountpoint=os.fsencode(mountpoint),
                    session=options.session or self.session,
                    io=options.io or self.io,
                    poll_us=self.poll_us,
                    options=options,
                    debug=debug,
                    foreground=self.foreground or (debug and self.log is None),
                    log=None if self.log is None else os.path.abspath(os.fsencode(self.log)),
                    kept_fds=kept_fds,
                )
            )
        )


_OPTIONS = (
    click.option(
        "-o", "options", multiple=True, metavar="OPT[,OPT...]", help="Mount options, see below."
    ),
    click.option(
        "--session",
        type=click.Choice(["auto", "pyfuse3", "kernel"]),
        default="auto",
        show_default=True,
        help="What speaks to the kernel.",
    ),
    click.option(
        "--io",
        type=click.Choice(["auto", "cached", "passthrough"]),
        default="auto",
        show_default=True,
        help="How file data goes: through the kernel's cache of this mount, or past this program.",
    ),
    click.option(
        "--poll-us",
        type=click.IntRange(0, 10_000),
        default=DEFAULT_POLL_US,
        show_default=True,
        help="Look for the next request so many microseconds before going to sleep; 0: never.",
    ),
    click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground, log to stderr."),
    click.option("-d", "--debug", is_flag=True, help="Log more; implies -f unless --log is given."),
    click.option("--log", metavar="FILE", help="Log to FILE.  [default: the system's log]"),
)


def serving_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a mount, as one argument `serving`."""

    @functools.wraps(command)
    def run(options: tuple[str, ...], **others: Any) -> None:  # noqa: ANN401 - of any command
        named = {name: others.pop(name) for name in Serving._fields if name in others}
        command(serving=Serving(texts=options, **named), **others)

    for option in reversed(_OPTIONS):
        run = option(run)
    return run
