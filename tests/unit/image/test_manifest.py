import json

import pytest

from unionfuse.image import media_types
from unionfuse.image.errors import Malformed, Refused
from unionfuse.image.manifest import Index, Manifest, encode, parse_document

DIGEST = "sha256:" + "a" * 64
CONFIG = {"mediaType": media_types.OCI_CONFIG, "digest": DIGEST, "size": 2}
LAYER = {"mediaType": media_types.OCI_LAYER_GZIP, "digest": DIGEST, "size": 3}
MANIFEST = {"schemaVersion": 2, "config": CONFIG, "layers": [LAYER]}
INDEX = {"schemaVersion": 2, "manifests": [CONFIG | {"mediaType": media_types.OCI_MANIFEST}]}


def parse(document, media_type=None):
    return parse_document(json.dumps(document).encode(), media_type, "it")


def test_a_manifest_names_its_config_and_layers():
    manifest = parse(MANIFEST)
    assert isinstance(manifest, Manifest)
    assert (manifest.config.size, manifest.layers[0].digest) == (2, DIGEST)


def test_an_index_names_manifests():
    index = parse(INDEX, media_types.OCI_INDEX)
    assert isinstance(index, Index)


def test_a_manifest_is_written_with_its_version():
    assert json.loads(encode(parse(MANIFEST))) == MANIFEST


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        "text",
        MANIFEST | {"manifests": []},
        MANIFEST | {"config": CONFIG | {"digest": "sha256:../.."}},
        MANIFEST | {"config": CONFIG | {"size": -1}},
        MANIFEST | {"config": CONFIG | {"size": "2"}},
        MANIFEST | {"layers": None},
        MANIFEST | {"mediaType": media_types.OCI_INDEX},
        INDEX | {"mediaType": media_types.OCI_MANIFEST},
    ],
)
def test_what_is_neither_is_malformed(document):
    with pytest.raises(Malformed):
        parse(document)


def test_a_document_is_what_it_was_named_as():
    with pytest.raises(Malformed):
        parse(INDEX, media_types.OCI_MANIFEST)


def test_deep_nesting_is_one_error():
    with pytest.raises(Malformed):
        parse_document(b'{"layers":' + b"[" * 100_000, None, "it")


def test_bytes_that_are_no_text_are_one_error():
    with pytest.raises(Malformed):
        parse_document(b'{"schemaVersion": 2, "config": "\xff\xfe"}', None, "it")


def test_a_manifest_of_megabytes_is_refused():
    with pytest.raises(Refused, match="at most"):
        parse_document(b" " * (9 << 20), None, "it")


def test_more_layers_than_can_be_stacked_are_refused():
    with pytest.raises(Refused, match="501 layers"):
        parse(MANIFEST | {"layers": [LAYER] * 501})


def test_schema_1_is_refused_by_its_name():
    with pytest.raises(Refused, match="schema 1"):
        parse({"schemaVersion": 1, "fsLayers": []})
