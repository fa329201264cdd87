import hashlib
import json

import pytest

from unionfuse.image.config import chain_ids, edited, parse_config
from unionfuse.image.errors import Malformed

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def test_the_chain_id_of_one_layer_is_its_diff_id():
    assert chain_ids((A,)) == (A,)


def test_a_chain_id_names_the_stack_below_too():
    both = "sha256:" + hashlib.sha256(f"{A} {B}".encode()).hexdigest()
    assert chain_ids((A, B)) == (A, both)


def config(**changes):
    return json.dumps({"rootfs": {"type": "layers", "diff_ids": [A]}} | changes).encode()


def test_a_config_names_its_layers_and_how_it_is_run():
    read = parse_config(config(config={"Cmd": ["sh"], "Env": ["A=b"], "WorkingDir": "/w"}), "it")
    assert read.rootfs.diff_ids == (A,)
    assert read.config is not None
    assert (read.config.cmd, read.config.env, read.config.working_dir) == (("sh",), ("A=b",), "/w")


def test_null_where_docker_writes_it_is_nothing():
    read = parse_config(config(config={"Cmd": None, "Labels": None}, history=None), "it")
    assert read.config is not None
    assert read.config.cmd is None


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"[]",
        config(rootfs={"type": "tar", "diff_ids": []}),
        config(rootfs={"type": "layers", "diff_ids": ["nonsense"]}),
        config(history=[{"empty_layer": True}]),
    ],
)
def test_what_is_no_config_is_malformed(data):
    with pytest.raises(Malformed):
        parse_config(data, "it")


def test_what_is_edited_keeps_what_is_not_known_here():
    assert edited(config(OnlyDockerKnows=1), "it")["OnlyDockerKnows"] == 1
