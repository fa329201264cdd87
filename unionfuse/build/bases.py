"""The images that FROM and --from name: of the store, else of a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unionfuse.image.errors import NotFound
from unionfuse.image.reference import LOCALHOST, Reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from unionfuse.image.manifest import Platform
    from unionfuse.image.store.image import Image
    from unionfuse.image.store.store import Store


class Bases:
    """Finds images, each once."""

    def __init__(self, store: Store, say: Callable[[str], None], *, pulls: bool = False) -> None:
        """Look into a store.

        Args:
            store: where they are, or are brought.
            say: is told of a pull.
            pulls: whether a registry is asked even for what is there.
        """
        self._store = store
        self._say = say
        self._pulls = pulls
        self._pulled: set[tuple[str, Platform | None]] = set()

    def find(self, name: str, platform: Platform | None) -> Image:
        """Return an image.

        Raises:
            ImageError: if there is none, or it can not be had.
        """
        wants_pull = self._pulls and (name, platform) not in self._pulled
        if wants_pull and self._is_at_registry(name):
            return self._pull(name, platform)
        try:
            return self._store.resolve(name, platform)
        except NotFound:
            if not self._is_at_registry(name):
                raise
            return self._pull(name, platform)

    def _is_at_registry(self, name: str) -> bool:
        return Reference.parse(name).registry != LOCALHOST

    def _pull(self, name: str, platform: Platform | None) -> Image:
        from unionfuse.image.registry.connection import ConnectionOptions
        from unionfuse.image.registry.endpoint import Trust, default_directories
        from unionfuse.image.registry.pull import PullOptions, pull
        from unionfuse.image.registry.running import run

        reference = Reference.parse(name)
        self._say(f"pulling {reference}")
        trust = Trust(directories=default_directories())
        options = PullOptions(ConnectionOptions(trust), platform)
        pulled = run(lambda: pull(reference, self._store.blobs, options))
        self._pulled.add((name, platform))
        known = reference if reference.digest is None else reference.with_tag(None)
        return self._store.add(known, pulled.root, platform=platform)
