"""The image so far, while it is built: layers, config, history."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from unionfuse.image import media_types, platforms
from unionfuse.image.config import RunConfig, chain_ids, edited
from unionfuse.image.errors import Refused
from unionfuse.image.manifest import Descriptor, Manifest, encode
from unionfuse.image.store.image import Layer

if TYPE_CHECKING:
    from unionfuse.image.digest import Digest
    from unionfuse.image.manifest import Platform
    from unionfuse.image.store.image import Image

DEFAULT_SHELL = ("/bin/sh", "-c")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_COMMENT = "unionfuse build"
_OCI_TYPES = {
    "none": media_types.OCI_LAYER,
    "gzip": media_types.OCI_LAYER_GZIP,
    "zstd": media_types.OCI_LAYER_ZSTD,
}


@dataclass(slots=True)
class Draft:
    """An image that is being made.

    Attributes:
        document: the config (image-spec config.md) but for rootfs, history and created.
        stack: its layers, the bottom first.
        history: its steps.
        created: when the last step was made.
        args: what ARG has given so far in this stage.
        cmd_is_own: whether this stage has a CMD, which its ENTRYPOINT leaves alone.
    """

    document: dict[str, Any]
    stack: list[Layer] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    created: str = ""
    args: dict[str, str] = field(default_factory=dict)
    cmd_is_own: bool = False

    @classmethod
    def scratch(cls, platform: Platform | None) -> Draft:
        """Begin with nothing."""
        wanted = platform or platforms.native()
        document: dict[str, Any] = {"architecture": wanted.architecture, "os": wanted.os}
        if wanted.variant:
            document["variant"] = wanted.variant
        document["config"] = {"Env": [f"PATH={DEFAULT_PATH}"]}
        return cls(document)

    @classmethod
    def of_image(cls, image: Image) -> Draft:
        """Begin with an image."""
        document = edited(image.config_data, f"config {image.id}")
        for key in ("rootfs", "container", "container_config", "docker_version", "id", "parent"):
            document.pop(key, None)  # of the image itself, or of how docker once made it
        history = document.pop("history", None) or [{"created_by": ""} for _ in image.stack]
        created = document.pop("created", None) or ""
        config = document["config"] = document.get("config") or {}
        env = config.get("Env") or []
        if not any(entry.startswith("PATH=") for entry in env):  # as BuildKit and podman do
            config["Env"] = [f"PATH={DEFAULT_PATH}", *env]
        return cls(document, list(image.stack), history, created)

    def branch(self) -> Draft:
        """Return a copy for another stage, where the ARGs of this one mean nothing."""
        return Draft(
            copy.deepcopy(self.document),
            list(self.stack),
            copy.deepcopy(self.history),
            self.created,
        )

    @property
    def config(self) -> dict[str, Any]:
        """How a container is started, as the document has it."""
        found: dict[str, Any] = self.document["config"]
        return found

    @property
    def run_config(self) -> RunConfig:
        """The same, to be read."""
        return msgspec.convert(self.config, RunConfig)

    @property
    def env(self) -> dict[str, str]:
        """The variables that ENV and the base have set."""
        return dict(entry.partition("=")[::2] for entry in self.config.get("Env") or ())

    @property
    def shell(self) -> tuple[str, ...]:
        """What the shell form is given to."""
        return tuple(self.config.get("Shell") or DEFAULT_SHELL)

    @property
    def workdir(self) -> str:
        """Where RUN begins, and what relative paths are relative to."""
        return self.config.get("WorkingDir") or "/"

    @property
    def chain_id(self) -> str:
        """The name of the stack so far; empty for nothing."""
        return self.stack[-1].chain_id if self.stack else ""

    def variables(self) -> dict[str, str]:
        """Return what `$NAME` means: an ENV goes before an ARG."""
        return {**self.args, **self.env}

    def set_env(self, name: str, value: str) -> None:
        """Set a variable, in place of one of its name."""
        env = {**self.env, name: value}
        self.config["Env"] = [f"{known}={given}" for known, given in env.items()]

    def note(self, created_by: str, created: str, layer: Layer | None) -> None:
        """Add a step to the history, and its layer if it has one."""
        step: dict[str, Any] = {
            "created": created,
            "created_by": created_by,
            "comment": _COMMENT,
        }
        if layer is None:
            step["empty_layer"] = True
        else:
            self.stack.append(layer)
        self.history.append(step)
        self.created = created

    def next_layer(self, descriptor: Descriptor, diff_id: Digest) -> Layer:
        """Return a layer as it is on those that there are."""
        ids = (*(layer.diff_id for layer in self.stack), diff_id)
        return Layer(descriptor, diff_id, chain_ids(ids)[-1])

    def encoded_config(self, fallback_created: str) -> bytes:
        """Return the config of the image."""
        return msgspec.json.encode(
            {
                **self.document,
                "created": self.created or fallback_created,
                "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in self.stack]},
                "history": self.history,
            }
        )

    def encoded_manifest(self, config_digest: Digest, config_size: int) -> bytes:
        """Return the manifest of the image."""
        return encode(
            Manifest(
                Descriptor(media_types.OCI_CONFIG, config_digest, config_size),
                tuple(_as_oci(layer.descriptor) for layer in self.stack),
                media_type=media_types.OCI_MANIFEST,
            )
        )


def now(epoch: int | None) -> str:
    """Return the time as configs have it: $SOURCE_DATE_EPOCH if that is set."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))


def _as_oci(descriptor: Descriptor) -> Descriptor:
    """Return a layer as an OCI manifest has it: the bytes are the same."""
    compression = media_types.LAYER_COMPRESSION.get(descriptor.media_type)
    if compression is None:
        raise Refused(f"layer {descriptor.digest} is of an unknown type: {descriptor.media_type}")
    return Descriptor(_OCI_TYPES[compression], descriptor.digest, descriptor.size)
