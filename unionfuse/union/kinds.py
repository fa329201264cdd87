"""Choose the kind of union that its options ask for, once, so that no request has to ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    if options.uids is None and options.gids is None and not options.static_nlink:
        return UnionFs(stack, workdir, options)
    from unionfuse.union.shown import ShownFs

    return ShownFs(stack, workdir, options)
