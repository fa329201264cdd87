"""The options of every command that makes an image."""

from __future__ import annotations

import functools
import json
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from unionfuse.cli.image.common import print_json
from unionfuse.image.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from unionfuse.image.layers.compression import Compression
    from unionfuse.image.making.config import Changes
    from unionfuse.image.making.image import Recipe
    from unionfuse.image.manifest import Platform
    from unionfuse.image.store.image import Image
    from unionfuse.image.watch import Watch

_OPTIONS = (
    click.option("--env", "-e", multiple=True, metavar="NAME=VALUE", help="Set a variable."),
    click.option("--cmd", metavar="WORDS", help='What runs: words, or JSON as in ["sh", "-c"].'),
    click.option("--entrypoint", metavar="WORDS", help="What CMD is given to, in the same way."),
    click.option("--workdir", metavar="DIR", help="Where it runs."),
    click.option("--user", metavar="USER[:GROUP]", help="As whom it runs."),
    click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Set a label."),
    click.option("--author", metavar="TEXT", help="Who made it."),
    click.option("--message", "-m", metavar="TEXT", help="A comment in the history."),
    click.option("--created-by", metavar="TEXT", help="The command in the history."),
    click.option(
        "--compression",
        type=click.Choice(["gzip", "zstd", "none"]),
        default="gzip",
        show_default=True,
        help="Of the new layer's blob.",
    ),
)


class Making(NamedTuple):
    """What these options say."""

    changes: Changes
    compression: Compression

    def recipe(self, ref: str, watch: Watch, platform: Platform | None = None) -> Recipe:
        """Return what an image that is named `ref` is to be."""
        from unionfuse.image.making.image import Recipe  # takes long to load

        return Recipe(Reference.parse(ref), self.changes, self.compression, platform, watch)


def print_made(ref: str, image: Image, *, as_json: bool, **more: object) -> None:
    """Tell of the image that was made: its id, or all."""
    if as_json:
        named = str(Reference.parse(ref))
        print_json({"ref": named, "id": image.id, "digest": image.descriptor.digest, **more})
    else:
        click.echo(image.id)


def making_options(default_created_by: str) -> Callable[..., Any]:
    """Give a command these options, as one argument `making`."""

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:  # noqa: ANN401 - of any command
            from unionfuse.image.making.config import Changes

            changes = Changes(
                env=_pairs(given.pop("env"), "--env"),
                cmd=_words(given.pop("cmd"), "--cmd"),
                entrypoint=_words(given.pop("entrypoint"), "--entrypoint"),
                workdir=given.pop("workdir"),
                user=given.pop("user"),
                labels=_pairs(given.pop("labels"), "--label"),
                author=given.pop("author"),
                comment=given.pop("message"),
                created_by=given.pop("created_by") or default_created_by,
            )
            command(making=Making(changes, given.pop("compression")), **given)

        for option in reversed(_OPTIONS):
            run = option(run)
        return run

    return decorated


def _pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise click.UsageError(f"{option} is NAME=VALUE: {text}")
        found[name] = value
    return found


def _words(text: str | None, option: str) -> tuple[str, ...] | None:
    if text is None:
        return None
    if text.lstrip().startswith("["):
        try:
            words = json.loads(text)
        except ValueError:
            words = None
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise click.UsageError(f"{option} is no JSON list of strings: {text}")
        return tuple(words)
    try:
        return tuple(shlex.split(text))
    except ValueError as err:
        raise click.UsageError(f"{option}: {err}: {text}") from None
