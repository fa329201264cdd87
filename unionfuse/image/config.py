"""The config of an image, whose digest is the image's id (image-spec config.md)."""

from __future__ import annotations

from typing import Any

import msgspec

from unionfuse.image.digest import Digest, digest_of, parse_digest
from unionfuse.image.errors import Malformed
from unionfuse.image.manifest import decode


class RunConfig(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """How a container of the image is started, as far as is read here."""

    user: str = ""
    env: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    volumes: dict[str, Any] | None = None
    exposed_ports: dict[str, Any] | None = None
    stop_signal: str = ""
    shell: tuple[str, ...] | None = None
    on_build: tuple[str, ...] | None = None
    healthcheck: dict[str, Any] | None = None


class RootFs(msgspec.Struct, frozen=True):
    """The layers by the digests of their uncompressed tars, the bottom first."""

    type: str
    diff_ids: tuple[Digest, ...]


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step in which the image was made; those with a layer are not `empty_layer`."""

    created: str | None = None
    author: str | None = None
    created_by: str | None = None
    comment: str | None = None
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is read of a config. To change one, change the document (`edited`): it has more."""

    rootfs: RootFs
    architecture: str = ""
    os: str = ""
    variant: str = ""
    created: str | None = None
    author: str | None = None
    config: RunConfig | None = None
    history: tuple[History, ...] | None = None


def parse_config(data: bytes, what: str) -> ImageConfig:
    """Read a config.

    Raises:
        Malformed: if it is none, names layers by what is no digest, or its history speaks of
            another number of layers.
    """
    config = decode(data, ImageConfig, what)
    if config.rootfs.type != "layers":
        raise Malformed(f"{what} has a rootfs of type {config.rootfs.type!r}, not layers")
    for diff_id in config.rootfs.diff_ids:
        parse_digest(diff_id)
    if config.history:
        with_layer = sum(not step.empty_layer for step in config.history)
        if with_layer != len(config.rootfs.diff_ids):
            raise Malformed(
                f"{what} has {len(config.rootfs.diff_ids)} layers, and {with_layer} in its history"
            )
    return config


def edited(data: bytes, what: str) -> dict[str, Any]:
    """Return the document of a config, to be changed and encoded again with all that it has."""
    document: dict[str, Any] = decode(data, dict, what)
    return document


def chain_ids(diff_ids: tuple[Digest, ...]) -> tuple[Digest, ...]:
    """Return the name of the stack up to each layer (image-spec config.md, "Layer ChainID")."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        if chain:
            text = f"{chain[-1]} {diff_id}".encode()
            chain.append(digest_of(text))
        else:
            chain.append(diff_id)
    return tuple(chain)
