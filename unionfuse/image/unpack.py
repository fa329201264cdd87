"""Unpack an image out of the store: one directory a layer, or one root filesystem."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from unionfuse.image.errors import Refused
from unionfuse.image.layers.apply import LayerBlob, apply_layer
from unionfuse.image.layers.form import LayerForm
from unionfuse.image.layers.implied import complete_implied
from unionfuse.image.layers.pack import PackOptions, pack_merged
from unionfuse.image.making.image import opened_stack

if TYPE_CHECKING:
    from pathlib import Path

    from unionfuse.image.layers.apply import Applied
    from unionfuse.image.store.image import Image, Layer
    from unionfuse.image.store.store import Store
    from unionfuse.image.watch import Watch

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def unpack_layers(store: Store, image: Image, target: Path, watch: Watch) -> list[Path]:
    """Apply each layer to a directory of its own below `target`; return them, the TOP first.

    They are `1` for the topmost and so on, as overlayfs numbers its lowers, and owe nothing to
    the store.

    Raises:
        Corrupt, Malformed, Refused: as the layers are.
    """
    lower_fds: list[int] = []
    directories: list[Path] = []
    try:
        for number, layer in enumerate(image.stack):
            directory = target / str(len(image.stack) - number)
            directory.mkdir(mode=0o755)
            fd = os.open(directory, _DIRECTORY)
            lower_fds.insert(0, fd)
            directories.insert(0, directory)
            applied = _apply(store, layer, fd, watch)
            complete_implied(fd, applied.implied, lower_fds[1:])
    finally:
        for fd in lower_fds:
            os.close(fd)
    return directories


def _apply(store: Store, layer: Layer, fd: int, watch: Watch) -> Applied:
    descriptor = layer.descriptor
    what = f"unpacking {descriptor.digest[:19]}"
    with store.blobs.open(descriptor.digest) as file:
        return apply_layer(
            LayerBlob(file, digest=descriptor.digest, size=descriptor.size, diff_id=layer.diff_id),
            fd,
            LayerForm.probe(fd),
            store.limits,
            progress=lambda done: watch(what, done, descriptor.size),
        )


def unpack_rootfs(store: Store, image: Image, rootfs: Path, watch: Watch) -> None:
    """Make the directory `rootfs`, which is empty, what the image shows.

    Raises:
        Refused: if the image has no layers, or a limit is met.
        OSError: of reading or writing.
    """
    lowers = store.unpack(image, watch)
    if not lowers:
        raise Refused("the image has no layers")
    reader, writer = os.pipe()
    problems: list[BaseException] = []

    def pack() -> None:
        try:
            with open(writer, "wb") as out, opened_stack(None, lowers) as stack:
                pack_merged(stack, out.write, PackOptions(with_root=True))
        except BaseException as err:  # is raised where it is waited for
            problems.append(err)

    thread = threading.Thread(target=pack, name="pack", daemon=True)
    thread.start()
    fd = os.open(rootfs, _DIRECTORY)
    try:
        with open(reader, "rb", buffering=0) as source:
            apply_layer(
                LayerBlob(source, "none"),
                fd,
                replace(LayerForm.probe(fd), is_layer=False),
                store.limits,
                progress=lambda done: watch("unpacking", done, 0),
            )
    except BaseException as err:
        thread.join()
        own = [problem for problem in problems if not isinstance(problem, BrokenPipeError)]
        raise (own[0] if own else err) from None
    finally:
        os.close(fd)
    thread.join()
    if problems:
        raise problems[0]
