"""The store of images: names, blobs and unpacked layers, used by many commands at once."""

from __future__ import annotations

import contextlib
import re
import threading
from typing import TYPE_CHECKING, NamedTuple, Self

from unionfuse.image import platforms
from unionfuse.image.errors import BadReference, Corrupt, ImageError, NotFound
from unionfuse.image.layers.limits import Limits
from unionfuse.image.manifest import Platform
from unionfuse.image.reference import LOCALHOST, Reference
from unionfuse.image.store import lease, names
from unionfuse.image.store.blobs import Blobs
from unionfuse.image.store.database import Database
from unionfuse.image.store.image import manifests_below, read_image
from unionfuse.image.store.lease import Lease, Use
from unionfuse.image.store.places import Places, default_root
from unionfuse.image.watch import unwatched
from unionfuse.syscalls.privilege import is_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unionfuse.image.digest import Digest
    from unionfuse.image.manifest import Descriptor
    from unionfuse.image.store.database import Name
    from unionfuse.image.store.image import Image, Layer
    from unionfuse.image.store.unpacking import Unpacked
    from unionfuse.image.watch import Watch

_ID = re.compile(r"(?:sha256:)?[0-9a-f]{3,64}")
_UNKNOWN = "unknown"  # the platform of what an index has that is no image: attestations


class Listed(NamedTuple):
    """An image with its names; those that only name an index with it among them."""

    image: Image
    names: tuple[Name, ...]


class Store:
    """One store, open. Use it in a `with`; any thread may use it.

    Attributes:
        places: the paths in it.
        blobs: its documents and compressed layers.
        database: its names, and facts about layers.
        limits: what a layer may be; may be set.
    """

    def __init__(self, places: Places, database: Database) -> None:
        """Use `open` instead."""
        self.places = places
        self.database = database
        self.blobs = Blobs(places.blobs, places.tmp, self._use_blob)
        self.limits = Limits()
        self._own: Lease | None = None
        self._mutex = threading.RLock()

    @classmethod
    def open(cls, root: Path | None = None, *, makes_room: bool = False) -> Store:
        """Open the store at `root`, or that of this user; make it if it is not there.

        Args:
            root: None for that of this user.
            makes_room: take what is put aside for when there is none.

        Raises:
            StoreError: if it can not be used; the text says why.
        """
        places = Places((root or default_root(is_root=is_root())).absolute())
        places.make()
        if makes_room:
            places.use_reserve()

        def fill(database: Database) -> None:
            from unionfuse.image.store import unpacking  # takes long to load

            names.restore(database, places.index)
            unpacking.find_facts(database, places.layers)

        return cls(places, Database(places.database, fill))

    @classmethod
    def mend(cls, root: Path | None = None) -> Store:
        """Open a store whose database is damaged: put that aside, and make a new one.

        Raises:
            StoreError: if the store can not be used, or the names are lost too.
        """
        places = Places((root or default_root(is_root=is_root())).absolute())
        for suffix in ("", "-wal", "-shm"):
            damaged = places.database.with_name(places.database.name + suffix)
            with contextlib.suppress(FileNotFoundError):
                damaged.rename(places.root / f"damaged-{damaged.name}")
        return cls.open(root)

    def close(self) -> None:
        """Let go of it, and of what it kept in use."""
        self.forget_uses()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what is in use ---

    def use(self, use: Use) -> None:
        """Keep something as long as this command runs; look only then whether it is there.

        Raises:
            StoreError: if there is no room.
        """
        with self._mutex:
            if self._own is None:
                lease.sweep(self.places.tmp)
                self._own = Lease(self.places.tmp, self.places.lock)
            self._own.touch(use)

    def forget_uses(self) -> None:
        """Let gc have what this command has used so far, and no name leads to."""
        with self._mutex:
            if self._own is not None:
                self._own.close()
                self._own = None

    def hold(self, image: Image) -> Lease:
        """Keep an image with its layers until the lease is closed in every process that has it.

        Raises:
            NotFound: if it has gone meanwhile.
        """
        held = Lease(self.places.tmp, self.places.lock)
        try:
            held.touch(Use(lease.IMAGE, _use_name(image.descriptor.digest)))
            self._check_there(image)
        except BaseException:
            held.close()
            raise
        return held

    def _keep(self, image: Image) -> Image:
        self.use(Use(lease.IMAGE, _use_name(image.descriptor.digest)))
        self._check_there(image)
        return image

    def _check_there(self, image: Image) -> None:
        for digest in (image.descriptor.digest, image.id):
            if not self.blobs.path(digest).exists():
                raise NotFound(f"image {image.id} was removed meanwhile")

    def _use_blob(self, digest: Digest) -> None:
        self.use(Use(lease.BLOB, _use_name(digest)))

    # --- names ---

    def complete(
        self, root: Descriptor, platform: Platform | None = None, watch: Watch = unwatched
    ) -> Image:
        """See that an image is whole: its blobs are here, its layers unpacked and so verified.

        Args:
            root: of a manifest, or of an index with it.
            platform: which image of an index; None for that of this machine, or any.
            watch: is told how unpacking goes.

        Raises:
            NotFound: if a blob is missing.
            Corrupt, Malformed, Refused: as what is there is.
            StoreError: if there is no room.
        """
        image = self._whole(root, platform)
        self.unpack(image, watch)
        return image

    def add(
        self,
        reference: Reference,
        descriptor: Descriptor,
        *,
        unpack: bool = True,
        platform: Platform | None = None,
        watch: Watch = unwatched,
    ) -> Image:
        """Name an image, or an index of images, whose blobs are here; see `complete`.

        With `unpack` turned off, its diff_ids are not verified before `unpack` is called.
        """
        image = self._whole(descriptor, platform)
        if unpack:
            self.unpack(image, watch)
        names.give(self.database, self.places.index, str(reference), descriptor)
        return image

    def _whole(self, root: Descriptor, platform: Platform | None) -> Image:
        self.use(Use(lease.IMAGE, _use_name(root.digest)))
        image = self._select(root, platform)
        for part in (image.manifest.config, *image.manifest.layers):
            size = self.blobs.size(part.digest)
            if size != part.size:
                raise Corrupt(f"blob {part.digest} has {size} bytes, not {part.size}")
        return image

    def tag(self, text: str, reference: Reference) -> Image:
        """Give one more name to what `text` names.

        Raises:
            NotFound: if there is no such image.
            BadReference: for a name with a digest, which no image can be given.
        """
        if reference.digest is not None or reference.tag is None:
            raise BadReference(f"{reference} names a digest: give NAME:TAG")
        image = self.resolve(text)
        names.give(self.database, self.places.index, str(reference), image.root)
        return image

    def remove(self, text: str) -> list[str]:
        """Take a name away, or every name of the image with this id; return them.

        What no name means any more stays until gc.

        Raises:
            NotFound: if there is no such image.
        """
        found = self._by_name(text)
        if found is not None:
            removed = [found.reference]
        else:
            image_id = self.resolve(text).id
            listed = [each for each in self.images() if each.image.id == image_id]
            removed = sorted({name.reference for each in listed for name in each.names})
        names.take(self.database, self.places.index, removed)
        return removed

    def resolve(self, text: str, platform: Platform | None = None) -> Image:
        """Return an image by its name, its id, or enough of that; it is kept in use.

        Args:
            text: a name; or an id or the digest of a manifest, at least three digits of it.
            platform: which image of an index; None for that of this machine, or the only one.

        Raises:
            NotFound: if there is none, or none for that platform.
            BadReference: if it could be several, or is no name at all.
        """
        name = self._by_name(text)
        if name is not None:
            return self._keep(self._select(name.descriptor, platform))
        if _ID.fullmatch(text):
            wanted = text.removeprefix("sha256:")
            found = {
                listed.image.descriptor.digest: listed.image
                for listed in self.images()
                if any(
                    digest.partition(":")[2].startswith(wanted)
                    for digest in (listed.image.id, listed.image.descriptor.digest)
                )
            }
            ids = sorted({image.id for image in found.values()})
            if len(ids) > 1:
                shown = ", ".join(each.partition(":")[2][:16] for each in ids)
                raise BadReference(f"{text!r} could be several images: {shown}")
            if found:
                return self._keep(next(iter(found.values())))
        raise NotFound(f"no image {text!r} in the store {self.places.root}")

    def name_of(self, text: str) -> str | None:
        """Return the whole of a name; None if it is an id."""
        found = self._by_name(text)
        return None if found is None else found.reference

    def _by_name(self, text: str) -> Name | None:
        try:
            reference = Reference.parse(text)
        except BadReference:
            if _ID.fullmatch(text):
                return None
            raise
        if reference.digest is not None and (found := self._by_digest(reference)):
            return found
        found = self.database.name(str(reference))
        if found is None and "/" not in text:
            # as podman finds what was made here
            local = Reference.parse(f"{LOCALHOST}/{text}")
            found = self.database.name(str(local))
        return found

    def _by_digest(self, reference: Reference) -> Name | None:
        for name in self.database.names():
            if name.descriptor.digest == reference.digest:
                known = Reference.parse(name.reference)
                if known.name == reference.name:
                    return name
        return None

    def images(self) -> list[Listed]:
        """Return every image that has a name, also below an index; what is damaged is left out."""
        found: dict[Digest, tuple[Image, list[Name]]] = {}
        for name in self.database.names():
            for image in self._images_of(name.descriptor):
                found.setdefault(image.descriptor.digest, (image, []))[1].append(name)
        return [Listed(image, tuple(named)) for image, named in found.values()]

    def _images_of(self, root: Descriptor) -> Iterator[Image]:
        with contextlib.suppress(ImageError):  # `verify` tells of it
            for entry in self._entries(root):
                with contextlib.suppress(ImageError):
                    yield read_image(self.blobs, self.places.layers, entry, root)

    def _entries(self, root: Descriptor) -> list[Descriptor]:
        """Return the manifests below a document that can be those of images."""
        return [
            entry
            for entry in manifests_below(self.blobs, root)
            if entry.platform is None or entry.platform.architecture != _UNKNOWN
        ]

    def _select(self, root: Descriptor, platform: Platform | None) -> Image:
        """Read the image of a document that is meant on a platform."""
        entries = self._entries(root)
        if not entries:
            raise NotFound(f"no image of the index {root.digest} is in the store")
        if entries != [root]:
            fitting = platforms.best(entries, platform or platforms.native())
            if platform is not None and not fitting:
                shown = platforms.shown(platform)
                raise NotFound(f"{root.digest} has no image for {shown} in the store")
            entries = fitting or entries
        image = read_image(self.blobs, self.places.layers, entries[0], root)
        if platform is not None and entries == [root]:
            config = image.config
            offered = Platform(config.architecture, config.os, config.variant)
            if platforms.rank(offered, platform) is None:
                raise NotFound(
                    f"{root.digest} is for {platforms.shown(offered)}, "
                    f"not for {platforms.shown(platform)}"
                )
        return image

    # --- layers ---

    def unpack(self, image: Image, watch: Watch = unwatched) -> tuple[Path, ...]:
        """Unpack the layers that are not yet; return their trees, the TOP first.

        Raises:
            Corrupt: if a layer is not what its digest or its diff_id says.
            Malformed, Refused: if it is no layer, or has what is not taken.
            StoreError: if there is no room.
        """
        below: list[Path] = []
        for layer in image.stack:
            unpacked = self.unpack_layer(layer, below, watch)
            assert unpacked is not None, "what is below is known"
            below.append(unpacked.directory)
        return image.layers

    def unpack_layer(
        self, layer: Layer, below: list[Path] | None, watch: Watch = unwatched
    ) -> Unpacked | None:
        """Unpack one layer, or find it unpacked; other processes may try the same.

        Args:
            below: the directories in layers/ of the layers below it, the bottom first; None if
                they are not there yet, as while a pull goes on.
            watch: is told how it goes.

        Returns:
            None if it can not be unpacked before those below it.

        Raises:
            Corrupt, Malformed, Refused, StoreError: as `unpack`.
        """
        from unionfuse.image.store import unpacking  # takes long to load

        return unpacking.unpack(self, layer, below, watch)


def unnamed_reference(image: Image) -> Reference:
    """Return the name of an image that came without one: made of its id."""
    return Reference(LOCALHOST, "unnamed", image.id.partition(":")[2][:12])


def _use_name(digest: Digest) -> str:
    return digest.replace(":", "-")
