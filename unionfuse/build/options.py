"""What a build is told, and to whom it tells how it goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Protocol

from unionfuse.image.platforms import native

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from unionfuse.build.stages import Plan
    from unionfuse.image.layers.compression import Compression
    from unionfuse.image.manifest import Platform
    from unionfuse.image.store.image import Image

PREDEFINED = frozenset(
    name
    for each in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    for name in (each, each.upper())
)
"""ARGs that RUN sees without an ARG, and that no key and no history has."""


class Report(Protocol):
    """Is told how the build goes.

    Attributes:
        output: where what RUN says goes.
    """

    output: BinaryIO | int

    def step(self, where: str, text: str) -> None:
        """A step begins."""

    def cached(self) -> None:
        """It is in the cache."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says.

    Attributes:
        find_image: returns an image by its name, from the store or a registry.
        network: none or host, where RUN does not say.
        labels: for the image.
    """

    find_image: Callable[[str, Platform | None], Image]
    build_args: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    network: str = "host"
    use_cache: bool = True
    compression: Compression = "gzip"
    labels: Mapping[str, str] = field(default_factory=dict)


def platform_args(platform: Platform | None) -> dict[str, str]:
    """Return the ARGs about platforms, which an ARG without a value makes known."""
    found = {}
    for kind, value in (("BUILD", native()), ("TARGET", platform or native())):
        text = "/".join(filter(None, (value.os, value.architecture, value.variant)))
        found[f"{kind}PLATFORM"] = text
        found[f"{kind}OS"] = value.os
        found[f"{kind}ARCH"] = value.architecture
        found[f"{kind}VARIANT"] = value.variant
    return found


def unused_args(plan: Plan, build_args: Mapping[str, str]) -> list[str]:
    """Return the --build-args that no ARG takes."""
    known = {*plan.global_args, *PREDEFINED, "SOURCE_DATE_EPOCH", *platform_args(None)}
    for stage in plan.stages:
        for step in stage.steps:
            if step.keyword == "ARG":
                known.update(word.partition("=")[0] for word in step.words)
    return sorted(set(build_args) - known)
