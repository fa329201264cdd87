"""`unionfuse-overlay`: the command line of fuse-overlayfs, for podman, buildah and containerd.

A container engine waits for it at every start of a container, so it is parsed here, without click,
and it returns as soon as the mount is made; the daemon goes on to get ready behind it. The grammar
is that of libfuse's programs; words of `-o` that are not known are told and skipped, as by them.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from unionfuse.cli.printing import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unionfuse.fuse.options import MountPlan

# How long an upper may still be in use: engines unmount, do not wait for the daemon to have written
# everything, and mount the same upper again.
_LOCK_SECONDS = 30.0
_HELP = """\
usage: unionfuse-overlay [-f] [-d] [-o OPT[,OPT...]]... [SOURCE] TARGET

Mount a union of directories on TARGET: takes the place of fuse-overlayfs.

  -o lowerdir=DIR[:DIR...]     the layers, the leftmost on top
  -o upperdir=DIR,workdir=DIR  what is changed goes to upperdir; without it, nothing can be
  -o OPT[,OPT...]              more: uidmapping=, gidmapping=, squash_to_root, xattr_permissions=,
                               volatile, ..., as fuse-overlayfs has them
  -f, --foreground             stay in the foreground and log to stderr
  -d, --debug                  log more; implies -f
  -h, --help
  -V, --version

For podman and buildah, in storage.conf:
  [storage.options.overlay]
  mount_program = "/path/of/unionfuse-overlay"
"""
_FLAGS = {
    "-f": "foreground",
    "--foreground": "foreground",
    "-d": "debug",
    "--debug": "debug",
    "-h": "help",
    "--help": "help",
    "-V": "version",
    "--version": "version",
    "-s": "",  # libfuse: one thread
}


class UsageError(Exception):
    """A command line without sense."""


class Arguments:
    """What a command line says.

    Attributes:
        flags: names of the flags that are given.
        options: values of all `-o`.
        operands: what is neither.
        unknown: flags that are not known, which libfuse's programs skip, too.
        by_engine: whether a container engine waits.
    """

    by_engine = False

    def __init__(self, argv: list[str]) -> None:
        self.flags: set[str] = set()
        self.options: list[str] = []
        self.operands: list[str] = []
        self.unknown: list[str] = []
        rest = iter(argv)
        for argument in rest:
            if argument == "--":
                self.operands.extend(rest)
            elif argument in _FLAGS:
                self.flags.add(_FLAGS[argument])
            elif argument.startswith("-o"):
                self.options.append(argument[2:] or _value(rest))
            elif argument.startswith("-") and argument != "-":
                self.unknown.append(argument)
            else:
                self.operands.append(argument)


def _value(rest: Iterator[str]) -> str:
    for value in rest:
        return value
    raise UsageError("-o needs a value")


def make_plan(arguments: Arguments) -> tuple[MountPlan, list[str]]:
    """Return what to mount, checked, and the flags and words of `-o` that are not known.

    Raises:
        UsageError: where nothing says what to mount, or where.
        MountError: if it can not be mounted.
    """
    from unionfuse.fuse import plan
    from unionfuse.fuse.options import MountPlan
    from unionfuse.fuse.overlay_words import take_layers
    from unionfuse.fuse.words import parse_words
    from unionfuse.record import replace

    if not 1 <= len(arguments.operands) <= 2:
        raise UsageError("expected [SOURCE] TARGET")
    layers, words = take_layers(tuple(arguments.options))
    if layers is None:
        raise UsageError("expected -o lowerdir=DIR[:DIR...]")
    plan.refuse_plugins(layers.lowers)
    unknown = list(arguments.unknown)
    if "metacopy=on" in words and "redirect_dir=on" not in words:  # meant for the kernel's
        unknown.append("metacopy=on")
        words = tuple(word for word in words if word != "metacopy=on")
    # The first words are what fuse-overlayfs mounts with. The next two let it read what we write.
    defaults = ["nodev", "noatime", "redirect_dir=off"]
    defaults += [f"fsname={source}" for source in arguments.operands[:-1] if source]
    # fuse-overlayfs leaves no mark of `volatile`, nor does anybody look for one behind it
    words = tuple("fsync=0" if word == "volatile" else word for word in words)
    options = parse_words((*defaults, *words), unknown)
    debug = options.debug or "debug" in arguments.flags
    made = plan.make_plan(
        MountPlan(
            lowers=tuple(filter(None, layers.lowers)),
            upper=layers.upper,
            workdir=layers.workdir,
            mountpoint=os.fsencode(arguments.operands[-1]),
            session=options.session or "auto",
            io=options.io or "auto",
            options=options,
            debug=debug,
            foreground=debug or "foreground" in arguments.flags,
            returns="mounted" if arguments.by_engine else "settled",
            lock_seconds=_LOCK_SECONDS,
        ),
        nested=True,
    )
    if options.uids or options.gids:
        from unionfuse.fuse import idmapped

        made = replace(made, lowers=tuple(map(idmapped.original, made.lowers)))
    return made, unknown


def run(argv: list[str], *, by_engine: bool = False) -> int:
    """Do what the command line says; return the exit code.

    Args:
        argv: without the name of the program.
        by_engine: whether a container engine waits, which goes on to make a mount namespace.
            Anybody else could make the union its own root at once (pivot_root), that of the daemon
            with it, which must have read its own files by then.
    """
    try:
        arguments = Arguments(argv)
        arguments.by_engine = by_engine
        if "help" in arguments.flags:
            sys.stdout.write(_HELP)
            return 0
        if "version" in arguments.flags:
            return _print_version()
        return _mount(arguments)
    except UsageError as err:
        _complain(f"{err}; unionfuse-overlay --help tells more")
        return 2
    except KeyboardInterrupt:
        return 130


def _print_version() -> int:
    from unionfuse import __version__

    sys.stdout.write(f"unionfuse-overlay: version {__version__}\n")
    sys.stdout.write("has the options of fuse-overlayfs: version 1.16\n")
    return 0


def _mount(arguments: Arguments) -> int:
    from unionfuse.fuse import daemon
    from unionfuse.fuse.errors import MountError

    try:
        plan, unknown = make_plan(arguments)
        for word in unknown:
            _complain(f"unknown option ignored: {word}")
        _warn_of_nesting(plan)
        daemon.start(plan)
    except (MountError, OSError) as err:
        _complain(str(err))
        return 1
    return 0


def _warn_of_nesting(made: MountPlan) -> None:
    from unionfuse.fuse.plan import nested_in

    nested = nested_in(made)
    if nested is not None:
        path, lower = map(os.fsdecode, nested)
        _complain(f"{path} is inside the lower layer {lower}: what it shows of itself is not sure")


def _complain(text: str) -> None:
    sys.stderr.write(f"unionfuse: {printable(text)}\n")
