"""Manifests, indexes and descriptors (image-spec manifest.md, image-index.md, descriptor.md).

The bytes of a document are what its digest names: they are kept as they came, and never made
again from what was read out of them.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from unionfuse.image import media_types
from unionfuse.image.digest import Digest, parse_digest
from unionfuse.image.errors import Malformed, Refused

MAX_DOCUMENT = 8 << 20
"""Bytes of a manifest, an index or a config; registries take 4 MiB (distribution-spec)."""
MAX_LAYERS = 500  # as many as overlayfs can stack


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an image runs on."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: tuple[str, ...] = msgspec.field(default=(), name="os.features")


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A blob by its type, digest and size (bytes)."""

    media_type: str
    digest: Digest
    size: int
    annotations: dict[str, str] | None = None
    platform: Platform | None = None
    urls: tuple[str, ...] | None = None
    artifact_type: str | None = None
    data: str | None = None


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One image: its config and its layers, the bottom first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    schema_version: int = msgspec.field(default_factory=lambda: 2)  # shown even so
    media_type: str | None = None
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class Index(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Several manifests under one name, by platform."""

    manifests: tuple[Descriptor, ...]
    schema_version: int = msgspec.field(default_factory=lambda: 2)
    media_type: str | None = None
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class _Kind(msgspec.Struct, rename="camel"):
    """What tells one document from another."""

    schema_version: int = 0
    media_type: str | None = None
    manifests: msgspec.Raw = msgspec.Raw()
    layers: msgspec.Raw = msgspec.Raw()


_T = TypeVar("_T")


def decode(data: bytes, kind: type[_T], what: str) -> _T:
    """Read a JSON document.

    Raises:
        Malformed: if it is no JSON or does not have the fields of `kind`.
        Refused: if it is larger than MAX_DOCUMENT.
    """
    if len(data) > MAX_DOCUMENT:
        raise Refused(f"{what} has {len(data)} bytes; at most {MAX_DOCUMENT} are read")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as err:
        raise Malformed(f"{what}: {err}") from None


def encode(document: msgspec.Struct | dict[str, object]) -> bytes:
    """Write a JSON document, the same bytes for the same content."""
    return msgspec.json.encode(document)


def parse_document(data: bytes, media_type: str | None, what: str) -> Manifest | Index:
    """Read a manifest or an index, of OCI or of docker.

    Args:
        media_type: of the descriptor or the answer that it came with; None if unknown.

    Raises:
        Malformed: if it is neither, or not what `media_type` says.
        Refused: for docker's schema 1, and over MAX_DOCUMENT or MAX_LAYERS.
    """
    kind = decode(data, _Kind, what)
    has_manifests, has_layers = (
        bytes(part) not in (b"", b"null") for part in (kind.manifests, kind.layers)
    )
    if kind.schema_version == 1:
        raise Refused(f"{what} is of docker's schema 1, which names no image; push it anew")
    own = kind.media_type
    # Both at once would let one digest mean two things (image-spec manifest.md, mediaType).
    if has_manifests and has_layers:
        raise Malformed(f"{what} is both a manifest and an index")
    if own and media_type and own != media_type and is_known(own) and is_known(media_type):
        raise Malformed(f"{what} is {own}, not the {media_type} that it was named with")
    stated = own or media_type
    if has_manifests and stated not in media_types.MANIFESTS:
        index = decode(data, Index, what)
        for entry in index.manifests:
            check_descriptor(entry, what)
        return index
    if has_manifests or stated in media_types.INDEXES:
        raise Malformed(f"{what} does not have what {stated} has")
    manifest = decode(data, Manifest, what)
    if len(manifest.layers) > MAX_LAYERS:
        raise Refused(f"{what} has {len(manifest.layers)} layers; at most {MAX_LAYERS} are stacked")
    for entry in (manifest.config, *manifest.layers):
        check_descriptor(entry, what)
    return manifest


def is_known(media_type: str) -> bool:
    """Tell whether it is the type of a manifest or an index."""
    return media_type in media_types.MANIFESTS or media_type in media_types.INDEXES


def check_descriptor(descriptor: Descriptor, what: str) -> None:
    """Look at what the JSON alone does not hold.

    Raises:
        Malformed: for a digest that is none, or a negative size.
    """
    parse_digest(descriptor.digest)
    if descriptor.size < 0:
        raise Malformed(f"{what}: a descriptor has {descriptor.size} bytes")
