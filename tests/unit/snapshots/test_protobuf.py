"""The encoding of messages, compared with that of Google's library."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from unionfuse.snapshots import messages, protobuf
from unionfuse.snapshots.messages import Info, InfoResponse, Mount, MountsResponse, Timestamp

_FIELD = descriptor_pb2.FieldDescriptorProto
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
int64s = st.integers(-(2**63), 2**63 - 1)


def message(name: str, *fields: tuple[int, str, Any], entry: str = "") -> Any:
    """Describe a message: fields are number, name, and a type or the name of one; [] repeats."""
    made = descriptor_pb2.DescriptorProto(name=name)
    for number, field, kind in fields:
        repeated = isinstance(kind, list)
        one = kind[0] if repeated else kind
        proto = made.field.add(
            number=number, name=field,
            label=_FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL,
        )  # fmt: skip
        if isinstance(one, str):
            proto.type, proto.type_name = _FIELD.TYPE_MESSAGE, f".t.{one}"
        else:
            proto.type = one
    if entry:
        nested = made.nested_type.add(name=entry)
        nested.CopyFrom(
            message(entry, (1, "key", _FIELD.TYPE_STRING), (2, "value", _FIELD.TYPE_STRING))
        )
        nested.options.map_entry = True
    return made


@pytest.fixture(scope="module")
def google() -> Any:
    """The messages Mount, MountsResponse, Info and InfoResponse of that library."""
    text, int64, int32, enum = (
        _FIELD.TYPE_STRING, _FIELD.TYPE_INT64, _FIELD.TYPE_INT32, _FIELD.TYPE_INT32,
    )  # fmt: skip
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    file.message_type.extend(
        [
            message(
                "Mount", (1, "type", text), (2, "source", text), (3, "target", text),
                (4, "options", [text]),
            ),
            message("MountsResponse", (1, "mounts", ["Mount"])),
            message("Timestamp", (1, "seconds", int64), (2, "nanos", int32)),
            message(
                "Info", (1, "name", text), (2, "parent", text), (3, "kind", enum),
                (4, "created_at", "Timestamp"), (5, "updated_at", "Timestamp"),
                (6, "labels", ["Info.LabelsEntry"]), entry="LabelsEntry",
            ),
            message("InfoResponse", (1, "info", "Info")),
            message("UsageResponse", (1, "size", int64), (2, "inodes", int64)),
        ]
    )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{name}"))


@given(mounts=st.lists(st.tuples(texts, texts, texts, st.lists(texts).map(tuple)), max_size=3))
def test_repeated_messages_and_strings_are_those_of_the_library(google, mounts):
    ours = MountsResponse(tuple(Mount(*mount) for mount in mounts))
    theirs = google("MountsResponse")()
    for kind, source, target, options in mounts:
        theirs.mounts.add(type=kind, source=source, target=target, options=options)
    assert protobuf.encode(ours) == theirs.SerializeToString()
    assert protobuf.decode(MountsResponse, theirs.SerializeToString()) == ours


@given(size=int64s, inodes=int64s)
def test_numbers_are_those_of_the_library(google, size, inodes):
    ours = messages.UsageResponse(size, inodes)
    theirs = google("UsageResponse")(size=size, inodes=inodes)
    assert protobuf.encode(ours) == theirs.SerializeToString()
    assert protobuf.decode(messages.UsageResponse, theirs.SerializeToString()) == ours


@given(name=texts, labels=st.dictionaries(texts, texts, max_size=5), seconds=int64s)
def test_maps_and_messages_in_messages_are_those_of_the_library(google, name, labels, seconds):
    ours = InfoResponse(Info(name=name, kind=3, created_at=Timestamp(seconds, 5), labels=labels))
    theirs = google("InfoResponse")()
    theirs.info.name, theirs.info.kind = name, 3
    theirs.info.created_at.seconds, theirs.info.created_at.nanos = seconds, 5
    theirs.info.labels.update(labels)
    theirs.info.updated_at.SetInParent()  # a message that is empty is sent, or not, as one likes
    assert google("InfoResponse").FromString(protobuf.encode(ours)) == theirs
    assert protobuf.decode(InfoResponse, theirs.SerializeToString()) == ours


def test_what_is_not_known_is_skipped():
    data = bytes([0x50, 1, 0x59]) + bytes(8) + bytes([0x65]) + bytes(4) + bytes([0x6A, 1, 65])
    assert protobuf.decode(Mount, data + b"\x0a\x01t") == Mount("t")


@pytest.mark.parametrize(
    "data", [b"\x0a", b"\x0a\x05ab", b"\x0b", b"\x08\x01", b"\xff" * 11, b"\x0a\x01\xff", b"\x0d"]
)
def test_bytes_that_are_no_message_are_refused(data):
    with pytest.raises(protobuf.MalformedError):
        protobuf.decode(Mount, data)
