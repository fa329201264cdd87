"""`unionfuse build`."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import click

from unionfuse.cli.container.common import place, reports, root_option
from unionfuse.cli.errors import Failure, say
from unionfuse.cli.printing import printable
from unionfuse.syscalls.privilege import is_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unionfuse.build.ignore import Ignore
    from unionfuse.build.sources import Tree
    from unionfuse.image.layers.compression import Compression

EPILOG = """\b
CONTEXT is the directory that COPY and ADD take files from. A file .dockerignore in it, or one
beside the Dockerfile as FILE.dockerignore, says what they leave out.

\b
Steps whose files and values are as before come from the cache; `unionfuse image gc --build-cache`
empties it. With SOURCE_DATE_EPOCH, in the environment or by --build-arg, no time in the image is
later, and the same files give the same image.

\b
Examples:
  unionfuse build -t mine:1 .
  unionfuse build -f docker/Dockerfile --target test --build-arg VERSION=2 .
  SOURCE_DATE_EPOCH=0 unionfuse build --no-cache -t mine:1 .
"""
_NAMES = ("Dockerfile", "Containerfile")
_EPOCH = "SOURCE_DATE_EPOCH"


@click.command("build", epilog=EPILOG)
@click.argument("context", metavar="CONTEXT")
@click.option(
    "-f",
    "--file",
    "file",
    metavar="FILE",
    help="The Dockerfile, - for stdin.  [default: CONTEXT/Dockerfile]",
)
@click.option("-t", "--tag", "tags", multiple=True, metavar="REF", help="Name of the image.")
@click.option(
    "--build-arg", "build_args", multiple=True, metavar="NAME[=VALUE]", help="Value of an ARG."
)
@click.option("--target", metavar="STAGE", help="Build this stage.  [default: the last]")
@click.option("--no-cache", is_flag=True, help="Do every step anew.")
@click.option("--pull", "pulls", is_flag=True, help="Ask registries for newer base images.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Which image of an index.")
@click.option(
    "--network",
    type=click.Choice(["none", "host"]),
    default="host",
    show_default=True,
    help="What RUN has: loopback alone, or the host's own.",
)
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Set a label.")
@click.option(
    "--compression",
    type=click.Choice(["gzip", "zstd", "none"]),
    default="gzip",
    show_default=True,
    help="Of the new layers' blobs.",
)
@click.option(
    "--iidfile", type=click.Path(dir_okay=False, path_type=Path), help="Write the image's id there."
)
@click.option(
    "--progress",
    type=click.Choice(["auto", "plain"]),
    default="auto",
    help="How steps are shown; both are plain text.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but the image's id.")
@root_option
@reports
def build(  # noqa: PLR0913 - one parameter an option
    context: str,
    file: str | None,
    tags: tuple[str, ...],
    build_args: tuple[str, ...],
    target: str | None,
    no_cache: bool,
    pulls: bool,
    platform: str | None,
    network: str,
    labels: tuple[str, ...],
    compression: Compression,
    iidfile: Path | None,
    progress: str,
    quiet: bool,
    root: Path | None,
) -> None:
    """Make an image as a Dockerfile says."""
    from unionfuse.build import stages
    from unionfuse.build.bases import Bases
    from unionfuse.build.builder import Builder, publish
    from unionfuse.build.dockerfile import parse
    from unionfuse.build.errors import BuildError
    from unionfuse.build.ignore import Ignore
    from unionfuse.build.options import Options, platform_args, unused_args
    from unionfuse.container import namespaces
    from unionfuse.image.platforms import parse_platform
    from unionfuse.image.reference import Reference
    from unionfuse.image.store.store import Store

    args = _pairs(build_args, "--build-arg")
    if _EPOCH in args:
        os.environ[_EPOCH] = args[_EPOCH]
    references = [Reference.parse(tag) for tag in tags]
    wanted = None if platform is None else parse_platform(platform)
    if not os.path.isdir(context):
        raise Failure(f"context {context}: no such directory")
    dockerfile = _dockerfile(context, file)
    shown = "Dockerfile" if file == "-" else os.fspath(dockerfile.path)
    try:
        plan = stages.plan(parse(dockerfile.data), args, platform_args(wanted))
        stage = plan.target(target)
        ignore = Ignore(dockerfile.ignore, dockerfile.ignore_name)
        for unused in unused_args(plan, args):
            say(f"--build-arg {unused}: no ARG takes it")
        where = place(root, is_root())
        namespaces.enter()
        with Store.open(where) as store, _report(quiet=quiet) as report:
            options = Options(
                find_image=Bases(store, report.say, pulls=pulls).find,
                build_args=args,
                platform=wanted,
                network=network,
                use_cache=not no_cache,
                compression=compression,
                labels=_pairs(labels, "--label"),
            )
            with _opened(context, ignore) as tree:
                with Builder(store, tree, plan, options, report) as builder:
                    draft = builder.build(stage)
                image = publish(store, draft, references)
    except BuildError as err:
        raise Failure(f"{shown}:{err.line}: {err}" if err.line else f"{shown}: {err}") from None
    if iidfile is not None:
        iidfile.write_text(image.id)
    click.echo(image.id)


class _Texts(NamedTuple):
    """What is read before the build: a Dockerfile and the rules of its context."""

    path: Path
    data: bytes
    ignore: str
    ignore_name: str


def _dockerfile(context: str, file: str | None) -> _Texts:
    if file == "-":
        path, data = Path("-"), sys.stdin.buffer.read()
        beside = None
    else:
        path = Path(file) if file is not None else _default_file(context)
        try:
            data = path.read_bytes()
        except OSError as err:
            raise Failure(f"Dockerfile {path}: {err.strerror}") from None
        beside = path.with_name(f"{path.name}.dockerignore")
    for known in (beside, Path(context, ".dockerignore")):
        if known is not None and known.is_file():
            return _Texts(path, data, known.read_text(errors="surrogateescape"), str(known))
    return _Texts(path, data, "", "")


def _default_file(context: str) -> Path:
    found = [Path(context, name) for name in _NAMES]
    return next((path for path in found if path.exists()), found[0])


@contextlib.contextmanager
def _opened(context: str, ignore: Ignore) -> Iterator[Tree]:
    from unionfuse.build.sources import Tree

    fd = os.open(context, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Tree(fd, ignore)
    finally:
        os.close(fd)


def _pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    """Read NAME=VALUE; the value of a NAME alone is that of the environment."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise click.UsageError(f"{option} is NAME=VALUE: {text}")
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found


class _Shown:
    """Prints how the build goes to stderr, and what RUN says."""

    def __init__(self, output: BinaryIO | int) -> None:
        self.output = output

    def step(self, where: str, text: str) -> None:
        click.echo(printable(f"[{where}] {text}"), err=True)

    def cached(self) -> None:
        click.echo("  cached", err=True)

    def say(self, text: str) -> None:
        say(text)


class _Silent(_Shown):
    """Prints nothing unless the build fails: then what the last step has said."""

    def step(self, where: str, text: str) -> None:
        assert not isinstance(self.output, int), "it is a file"
        self.output.seek(0)
        self.output.truncate()

    def cached(self) -> None:
        pass

    def say(self, text: str) -> None:
        pass


@contextlib.contextmanager
def _report(*, quiet: bool) -> Iterator[_Shown]:
    if not quiet:
        yield _Shown(2)
        return
    with tempfile.TemporaryFile() as output:
        try:
            yield _Silent(output)
        except Exception:
            output.seek(0)
            sys.stderr.buffer.write(output.read())
            sys.stderr.flush()
            raise
