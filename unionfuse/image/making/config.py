"""What a new image says of itself: the config of its base, with what is changed (config.md)."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from unionfuse.image import platforms
from unionfuse.image.config import edited
from unionfuse.image.errors import Malformed

if TYPE_CHECKING:
    from unionfuse.image.digest import Digest
    from unionfuse.image.manifest import Platform
    from unionfuse.image.store.image import Image

EPOCH = "SOURCE_DATE_EPOCH"


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be another in the config of a new image; None for what stays.

    Attributes:
        env: takes the place of variables with the same names.
        cmd, entrypoint: a new entrypoint without a cmd takes that of the base away, which was
            meant for another, as docker has it.
        labels: take the place of those with the same keys.
        author, comment, created_by: of this step in the history.
    """

    env: dict[str, str] = field(default_factory=dict)
    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    workdir: str | None = None
    user: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    author: str | None = None
    comment: str | None = None
    created_by: str | None = None


def source_date_epoch() -> int | None:
    """Return $SOURCE_DATE_EPOCH, None where it is not set (reproducible-builds.org).

    Raises:
        Malformed: if it is no number.
    """
    text = os.environ.get(EPOCH)
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise Malformed(f"{EPOCH} is no number of seconds: {text!r}")
    return int(text)


def new_config(
    base: Image | None,
    diff_ids: list[Digest],
    changes: Changes,
    *,
    platform: Platform | None = None,
    keeps_history: bool = True,
) -> bytes:
    """Return the config of a new image.

    Args:
        base: whose config it goes out from; None for an image of its own.
        diff_ids: of all its layers, the bottom first. The last one is new if there are more than
            `base` has, or its history is not kept.
        changes: what is another.
        platform: of an image without a base; None for this machine's.
        keeps_history: whether the steps of the base stay.
    """
    if base is None:
        wanted = platform or platforms.native()
        document: dict[str, Any] = {"architecture": wanted.architecture, "os": wanted.os}
        if wanted.variant:
            document["variant"] = wanted.variant
    else:
        document = edited(base.config_data, f"config {base.id}")
    has_layer = not keeps_history or base is None or len(diff_ids) > len(base.stack)
    _change(document.setdefault("config", {}) or {}, document, changes)
    created = _now()
    document["created"] = created
    if changes.author:
        document["author"] = changes.author
    document["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
    step: dict[str, object] = {"created": created, "created_by": changes.created_by or ""}
    if changes.author:
        step["author"] = changes.author
    if changes.comment:
        step["comment"] = changes.comment
    if not has_layer:
        step["empty_layer"] = True
    document["history"] = [*(_history(base) if keeps_history else ()), step]
    return msgspec.json.encode(document)


def _history(base: Image | None) -> list[dict[str, Any]]:
    """Return the steps of the base; one that tells none has one for each layer."""
    if base is None:
        return []
    history: list[dict[str, Any]] | None = edited(base.config_data, "config").get("history")
    return history or [{"created_by": ""} for _ in base.stack]


def _change(config: dict[str, Any], document: dict[str, Any], changes: Changes) -> None:
    if changes.env:
        env = dict(entry.partition("=")[::2] for entry in config.get("Env") or ())
        config["Env"] = [f"{name}={value}" for name, value in {**env, **changes.env}.items()]
    if changes.entrypoint is not None:
        config["Entrypoint"] = list(changes.entrypoint)
        config.pop("Cmd", None)
    if changes.cmd is not None:
        config["Cmd"] = list(changes.cmd)
    if changes.workdir is not None:
        config["WorkingDir"] = changes.workdir
    if changes.user is not None:
        config["User"] = changes.user
    if changes.labels:
        config["Labels"] = {**(config.get("Labels") or {}), **changes.labels}
    document["config"] = config


def _now() -> str:
    epoch = source_date_epoch()
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
