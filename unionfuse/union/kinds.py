"""Choose the kind of union that its options ask for, once, so that no request has to ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unionfuse.layer.override import name_of
from unionfuse.syscalls.fdpath import fd_path
from unionfuse.union.fs import UnionFs

if TYPE_CHECKING:
    from unionfuse.layer.stack import LayerStack
    from unionfuse.layer.workdir import Workdir
    from unionfuse.union.state import Options


def unite(stack: LayerStack, workdir: Workdir | None, options: Options) -> UnionFs:
    """Unite the layers of `stack`; see `UnionFs`.

    Raises:
        OSError: if a layer can not be read.
    """
    is_shown_otherwise = (
        options.uids is not None or options.gids is not None or options.static_nlink
    )
    kind: type[UnionFs] = UnionFs
    if options.override or _has_overrides(stack):
        from unionfuse.union.override import OverriddenFs
        from unionfuse.union.shown import ShownFs

        class Both(ShownFs, OverriddenFs):
            """Owners as the attributes have them, and of these what is shown."""

        kind = Both if is_shown_otherwise else OverriddenFs
    elif is_shown_otherwise:
        from unionfuse.union.shown import ShownFs

        kind = ShownFs
    return kind(stack, workdir, options)


def _has_overrides(stack: LayerStack) -> bool:
    roots = stack.lowers if stack.upper is None else (stack.upper, *stack.lowers)
    return any(name_of(fd_path(root.fd())) is not None for root in roots)
