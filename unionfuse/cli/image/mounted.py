"""Mount the layers of an image; the store keeps them as long as the mount is served."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from unionfuse.cli.errors import Failure
from unionfuse.cli.image.common import opened
from unionfuse.cli.image.rootless import available
from unionfuse.fuse.overlay_words import LayerWords, take_layers
from unionfuse.fuse.words import parse_words
from unionfuse.layer.override import name_of
from unionfuse.record import replace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from unionfuse.cli.serving import Serving
    from unionfuse.fuse.options import MountOptions

_BY_ATTRIBUTE = 2  # xattr_permissions, see `union.override`


def mount_image(
    ref: str, mountpoint: str, upper: str | None, workdir: str | None, serving: Serving
) -> None:
    """Mount an image, under `upper` if there is one.

    Raises:
        ImageError: if there is no such image, or it is damaged.
        Failure: if the mount would not show the owners.
    """
    if available() is not None:
        raise Failure(
            "the layers have owners of a user namespace: mount in there, "
            "by `unionfuse image unshare`"
        )
    layers, words = take_layers(serving.texts)
    if layers is not None:
        raise Failure("the layers are those of the image: no lowerdir= in -o")
    options = parse_words(words)
    with opened() as store:
        image = store.resolve(ref)
        lowers = store.unpack(image)
        if not lowers:
            raise Failure(f"image {ref} has no layers")
        held = store.hold(image)
        if upper is not None and os.path.isdir(upper):
            path = os.path.realpath(upper)
            store.database.set_base(path, os.stat(path).st_ino, image.descriptor.digest)
    with held:  # the store is closed: a daemon has no use for its database
        serving.start(
            LayerWords(
                tuple(map(os.fsencode, lowers)),
                None if upper is None else os.fsencode(upper),
                None if workdir is None else os.fsencode(workdir),
            ),
            mountpoint,
            showing_owners(options, lowers),
            kept_fds=(held.fd,),
        )


def showing_owners(options: MountOptions, lowers: Sequence[Path]) -> MountOptions:
    """Let a mount show the owners that layers keep in an attribute, if they do."""
    if options.override or not any(name_of(os.fsencode(lower)) for lower in lowers):
        return options
    return replace(options, override=_BY_ATTRIBUTE, acl=False)
