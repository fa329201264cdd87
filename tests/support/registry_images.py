"""Images of a few bytes, for a registry in this process: their layers need not be tars."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.support.registry import digest
from unionfuse.image import media_types as types

if TYPE_CHECKING:
    from tests.support.registry import FakeRegistry

_FORMS = {
    "oci": (types.OCI_MANIFEST, types.OCI_CONFIG, types.OCI_LAYER),
    "docker": (types.DOCKER_MANIFEST, types.DOCKER_CONFIG, types.DOCKER_LAYER),
}


def image_documents(
    layers: list[bytes], form: str = "oci", **kinds: str
) -> tuple[dict[str, Any], list[bytes]]:
    """Return the manifest of an image with these layers, and all its blobs."""
    manifest_type, config_type, layer_type = _FORMS[form]
    config = json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": _descriptor(config, kinds.get("config_type", config_type)),
        "layers": [_descriptor(layer, kinds.get("layer_type", layer_type)) for layer in layers],
    }
    return manifest, [config, *layers]


def add_image(
    registry: FakeRegistry,
    layers: list[bytes],
    *,
    tag: str | None = "latest",
    form: str = "oci",
    **kinds: str,
) -> dict[str, Any]:
    """Have an image in the repository `box`; return the descriptor of its manifest."""
    manifest, blobs = image_documents(layers, form, **kinds)
    for blob in blobs:
        registry.add_blob(blob)
    return registry.add_manifest(manifest, tag)


def _descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data)}
