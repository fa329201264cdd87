"""Records: classes of named fields, as `dataclasses` makes them, for what a mount waits for.

To import `dataclasses` (it needs `inspect`, `ast`, `dis`, `tokenize`) and to let it make twenty
classes takes a quarter of the time from the start of a daemon to its first answer. `record` makes
the same classes, with slots, of one small function each. Where no mount waits, `dataclasses` is
the better choice.

Fields are annotations, with defaults as they are there; fields have to be of the class itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class _Made:
    """Stands for a default that is made for each record."""

    def __init__(self, factory: Callable[[], object]) -> None:
        self.factory = factory


def field(*, default_factory: Callable[[], T]) -> T:
    """Say how the default of a field is made."""
    return _Made(default_factory)  # type: ignore[return-value]  # `record` takes it away again


@dataclass_transform(field_specifiers=(field,))
def mutable_record(cls: type[T]) -> type[T]:
    """Make a class a record whose fields may be set; a decorator."""
    return _made(cls, frozen=False)


@dataclass_transform(field_specifiers=(field,), frozen_default=True)
def record(cls: type[T]) -> type[T]:
    """Make a class a record that does not change, and can be hashed; a decorator."""
    return _made(cls, frozen=True)


def replace(old: T, **changes: Any) -> T:  # noqa: ANN401 - of the types of the fields
    """Return a copy of a record with other values of some fields."""
    values = {name: getattr(old, name) for name in fields_of(old)}
    return type(old)(**{**values, **changes})


def fields_of(one: object) -> tuple[str, ...]:
    """Return the names of the fields of a record."""
    names: tuple[str, ...] = type(one).__slots__  # type: ignore[attr-defined]  # a record has them
    return names


def _made(cls: type[T], *, frozen: bool) -> type[T]:
    members = dict(cls.__dict__)
    names = tuple(members.get("__annotations__", ()))
    for name in ("__dict__", "__weakref__"):
        members.pop(name, None)
    members["__slots__"] = names
    members["__match_args__"] = names
    members["__init__"] = _init(names, members, frozen=frozen)
    members.setdefault("__eq__", _eq)
    members.setdefault("__repr__", _repr)
    if frozen:
        members.setdefault("__hash__", _hash)
        members["__setattr__"] = members["__delattr__"] = _refuse
    else:
        members.setdefault("__hash__", None)
    members["__qualname__"] = cls.__qualname__
    # Slots need a class of their own, as with dataclasses: methods can not say `super()`.
    metaclass: Any = type(cls)
    made: type[T] = metaclass(cls.__name__, cls.__bases__, members)
    return made


def _init(names: tuple[str, ...], members: dict[str, Any], *, frozen: bool) -> Callable[..., None]:
    """Return a function that sets the fields, and take their defaults out of the class."""
    known: dict[str, Any] = {"_set": object.__setattr__}
    parameters, lines = [], []
    for name in names:
        parameter, value = name, name
        if name in members:
            default = members.pop(name)
            parameter = f"{name}=_default_{name}"
            known[f"_default_{name}"] = default
            if isinstance(default, _Made):
                known[f"_make_{name}"] = default.factory
                value = f"_make_{name}() if {name} is _default_{name} else {name}"
        parameters.append(parameter)
        lines.append(f"_set(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
    body = "\n    ".join(lines or ["pass"])
    exec(f"def __init__(self, {', '.join(parameters)}):\n    {body}\n", known)
    made: Callable[..., None] = known["__init__"]
    return made


def _values(self: object) -> tuple[object, ...]:
    return tuple(getattr(self, name) for name in fields_of(self))


def _eq(self: object, other: object) -> bool:
    if type(other) is not type(self):
        return NotImplemented  # type: ignore[no-any-return]  # as object.__eq__ does
    return _values(self) == _values(other)


def _hash(self: object) -> int:
    return hash(_values(self))


def _repr(self: object) -> str:
    pairs = zip(fields_of(self), _values(self), strict=True)
    return f"{type(self).__qualname__}({', '.join(f'{name}={value!r}' for name, value in pairs)})"


def _refuse(self: object, name: str, *value: object) -> None:
    raise AttributeError(f"{type(self).__qualname__}.{name} can not be set")
