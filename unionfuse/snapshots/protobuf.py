"""Messages of protobuf as dataclasses: their encoding, both ways.

A field is annotated with its number; its default is that of proto3 for its type:

    @dataclass(frozen=True, slots=True)
    class Mount:
        type: Annotated[str, 1] = ""
        options: Annotated[tuple[str, ...], 4] = ()

Types are int (int64 and enums), str, messages, tuples of str or of messages, and dict[str, str].
As protobuf.dev/programming-guides/encoding has it, a default is not sent, the last value of a
field wins, and fields that are not known are skipped. A dozen small messages do not pay for a
dependency whose generated code is bound to its major version.
"""

from __future__ import annotations

import functools
import typing
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_MOST_VARINT_BYTES = 10
_INT64, _SIGN = 1 << 64, 1 << 63

M = TypeVar("M")


class MalformedError(ValueError):
    """Bytes that are no message."""


class _Field(NamedTuple):
    name: str
    kind: Any  # int, str, a class of messages; or dict, of str to str
    repeated: bool


def encode(message: object) -> bytes:
    """Return the bytes of a message."""
    out = bytearray()
    cls: Any = type(message)
    for number, field in _fields(cls).items():
        value = getattr(message, field.name)
        if field.kind is dict:
            for pair in value.items():
                entry = b"".join(_encoded(at, text) for at, text in enumerate(pair, 1) if text)
                out += _tag(number, _BYTES) + _sized(entry)
        elif field.repeated:
            for one in value:
                out += _encoded(number, one)
        elif value not in (0, ""):
            out += _encoded(number, value)
    return bytes(out)


def decode(cls: Callable[..., M], data: bytes) -> M:
    """Return the message of `cls` that `data` is.

    Raises:
        MalformedError: if it is none.
    """
    fields = _fields(cls)
    name = getattr(cls, "__name__", "")
    values: dict[str, Any] = {}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire, value, at = _wire_value(data, at, key & 7)
        field = fields.get(key >> 3)
        if field is None:
            continue
        if wire != (_VARINT if field.kind is int else _BYTES):
            raise MalformedError(f"{name}.{field.name}: wire type {wire}")
        one = _decoded(field.kind, value)
        if field.kind is dict:
            values.setdefault(field.name, {}).update([one])
        elif field.repeated:
            values[field.name] = (*values.get(field.name, ()), one)
        else:
            values[field.name] = one
    return cls(**values)


@functools.cache
def _fields(cls: Callable[..., object]) -> dict[int, _Field]:
    found = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        assert typing.get_origin(hint) is Annotated, f"{cls}: {name} has no number"
        kind, number = typing.get_args(hint)
        origin = typing.get_origin(kind)
        if origin is tuple:
            kind = typing.get_args(kind)[0]
        found[number] = _Field(name, dict if origin is dict else kind, origin is tuple)
    return found


def _encoded(number: int, value: object) -> bytes:
    if isinstance(value, int):
        return _tag(number, _VARINT) + _of_varint(value % _INT64)
    data = value.encode() if isinstance(value, str) else encode(value)
    return _tag(number, _BYTES) + _sized(data)


def _tag(number: int, wire: int) -> bytes:
    return _of_varint(number << 3 | wire)


def _sized(data: bytes) -> bytes:
    return _of_varint(len(data)) + data


def _of_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for count, byte in enumerate(data[at : at + _MOST_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value % _INT64, at + count + 1
    raise MalformedError("a number that does not end")


def _wire_value(data: bytes, at: int, wire: int) -> tuple[int, Any, int]:
    if wire == _VARINT:
        return wire, *_varint(data, at)
    if wire == _BYTES:
        size, at = _varint(data, at)
    elif wire in _FIXED_BYTES:
        size = _FIXED_BYTES[wire]
    else:  # groups, which proto3 does not have
        raise MalformedError(f"wire type {wire}")
    if at + size > len(data):
        raise MalformedError("a field that ends after the message")
    return wire, data[at : at + size], at + size


def _decoded(kind: Any, value: Any) -> Any:  # noqa: ANN401 - what a field holds
    if kind is int:
        return value - _INT64 if value & _SIGN else value
    if kind is dict:
        entry = decode(_Entry, value)
        return entry.key, entry.value
    if kind is str:
        try:
            return value.decode()
        except UnicodeDecodeError as err:
            raise MalformedError(str(err)) from None
    return decode(kind, value)


class _Entry:
    """One entry of a map."""

    key: Annotated[str, 1]
    value: Annotated[str, 2]

    def __init__(self, key: str = "", value: str = "") -> None:
        self.key = key
        self.value = value
