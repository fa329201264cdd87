"""`unionfuse image verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from unionfuse.cli.errors import Failure, reports_failures, say
from unionfuse.cli.image.common import (
    chosen,
    json_option,
    opened,
    print_json,
    progress,
    quiet_option,
)
from unionfuse.cli.image.transfers import connection_options, registry_options
from unionfuse.cli.printing import printable
from unionfuse.image.errors import ImageError

if TYPE_CHECKING:
    from unionfuse.image.registry.pull import PullOptions
    from unionfuse.image.store.store import Store
    from unionfuse.image.store.verify import Problem
    from unionfuse.image.watch import Watch

EPILOG = """\b
Everything is hashed anew: blobs against their digests, the files of layers against what was
noted when they were unpacked. The exit code is 1 if something is wrong, and was not mended.

\b
--repair mends so: a database that is damaged is made anew; a layer is unpacked again; a blob is
removed, and pulled again where an image that has it came from a registry, which is reached as by
`pull`.

\b
Examples:
  unionfuse image verify
  unionfuse image verify --repair
"""


@click.command("verify", epilog=EPILOG)
@click.option("--repair", is_flag=True, help="Mend what can be mended.")
@registry_options
@quiet_option
@json_option
@reports_failures
def command(
    repair: bool,
    jobs: int,
    quiet: bool,
    as_json: bool,
    **reach: Any,  # noqa: ANN401 - the options of `registry_options`, as it has them
) -> None:
    """Look whether anything in the store is damaged, and mend it."""
    from unionfuse.image.store.verify import Verification

    with _opened(repair=repair) as store, progress(quiet=quiet) as watch:
        looked = Verification(store, watch)
        problems = list(looked.problems())
        left = problems
        if repair and problems:
            from unionfuse.image.registry.pull import PullOptions  # takes long to load

            options = PullOptions(connection_options(**reach), at_once=jobs)
            left = _repair(store, problems, options, watch)
    if as_json:
        print_json(
            {
                "blobs": looked.blobs,
                "layers": looked.layers,
                "problems": [_as_object(problem) for problem in problems],
                "left": [_as_object(problem) for problem in left],
            }
        )
    else:
        for problem in problems:
            mended = "" if problem in left else "; mended"
            click.echo(
                f"{problem.kind} {printable(problem.what)}: {printable(problem.text)}{mended}"
            )
            for name in problem.names:
                click.echo(f"  in {printable(name)}")
            if problem in left:
                click.echo(f"  {problem.mend}")
        click.echo(f"{looked.blobs} blobs and {looked.layers} layers verified")
    if left:
        raise Failure(f"{len(left)} problem{'s' if len(left) > 1 else ''} in the store")


def _opened(*, repair: bool) -> Store:
    from unionfuse.image.store.database import DatabaseDamaged
    from unionfuse.image.store.store import Store

    try:
        store = opened()
        damage = store.database.problem() if repair else None
        if damage is None:
            return store
        store.close()
    except DatabaseDamaged as err:
        if not repair:
            raise
        damage = str(err)
    say(f"{damage}; made anew")
    return Store.mend(chosen().root)


def _repair(
    store: Store, problems: list[Problem], options: PullOptions, watch: Watch
) -> list[Problem]:
    """Mend what can be; return what is left."""
    from unionfuse.image.store.verify import Verification, take_out

    store.forget_uses()  # what is in use can not be taken out
    names: list[str] = []
    for problem in problems:
        try:
            take_out(store, problem)
        except ImageError as err:
            say(str(err))
        names += [name for name in problem.names if name not in names]
    for name in names:
        try:
            _fetch(store, name, options, watch)
        except ImageError as err:
            say(f"{name}: {err}")
    store.forget_uses()
    return list(Verification(store, watch).problems())


def _fetch(store: Store, name: str, options: PullOptions, watch: Watch) -> None:
    """Have an image whole again: out of its blobs, or of its registry."""
    found = store.database.name(name)
    if found is None:  # it was removed meanwhile
        return
    try:
        store.complete(found.descriptor, watch=watch)
    except ImageError:
        from unionfuse.cli.image.pull_cmd import pull_again

        pull_again(store, name, found.descriptor, options, watch)
        store.complete(found.descriptor, watch=watch)


def _as_object(problem: Problem) -> dict[str, object]:
    from dataclasses import asdict

    return asdict(problem)
