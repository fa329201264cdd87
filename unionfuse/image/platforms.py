"""Which image of an index is meant: that of a platform, by Go's names of it (image-index.md).

Of arm the later variants run what is built for the earlier ones; arm64 has v8 where it says none,
and amd64 v1.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from unionfuse.image.errors import BadReference
from unionfuse.image.manifest import Platform

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unionfuse.image.manifest import Descriptor

_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "i386": ("386", ""),
}
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm"}
_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7", "amd64": "v1"}
_ORDERED_VARIANTS = {"arm": ("v8", "v7", "v6", "v5"), "amd64": ("v4", "v3", "v2", "v1")}


def native() -> Platform:
    """Return the platform of this machine."""
    machine = os.uname().machine
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform(architecture, "linux", variant)


def parse_platform(text: str) -> Platform:
    """Read `OS/ARCH[/VARIANT]` or `ARCH`.

    Raises:
        BadReference: if it is neither.
    """
    parts = text.lower().split("/")
    if not all(parts) or len(parts) > 3:
        raise BadReference(f"{text!r} is no platform: OS/ARCH[/VARIANT], as in linux/arm64")
    if len(parts) == 1:
        parts = ["linux", *parts]
    architecture = _ALIASES.get(parts[1], parts[1])
    return Platform(architecture, parts[0], parts[2] if len(parts) > 2 else "")


def shown(platform: Platform) -> str:
    """Return it as `parse_platform` reads it."""
    return "/".join(part for part in (platform.os, platform.architecture, platform.variant) if part)


def rank(offered: Platform | None, wanted: Platform) -> int | None:
    """Return how well what is offered fits, 0 best; None if it does not run there."""
    if offered is None or (offered.os, offered.architecture) != (wanted.os, wanted.architecture):
        return None
    default = _DEFAULT_VARIANTS.get(wanted.architecture, "")
    have, want = offered.variant or default, wanted.variant or default
    if have == want:
        return 0
    order = _ORDERED_VARIANTS.get(wanted.architecture, ())
    if have not in order or want not in order:
        return None
    distance = order.index(have) - order.index(want)
    return distance if distance > 0 else None


def best(entries: Iterable[Descriptor], wanted: Platform) -> list[Descriptor]:
    """Return the entries of an index that run on `wanted`, the best first."""
    ranked = [(rank(entry.platform, wanted), entry) for entry in entries]
    fitting = [(fit, entry) for fit, entry in ranked if fit is not None]
    return [entry for _, entry in sorted(fitting, key=lambda pair: pair[0])]
