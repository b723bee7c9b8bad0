"""Values read from JSON are of the types that their dataclasses declare: a stranger's document may say otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
Check = Callable[[Any], bool]


def typed(value: T) -> T:
    """Give ``value``, a dataclass, back.

    Raises:
        ValueError: a field of it, or of what it holds, has another type than is declared, half a surrogate or no
            finite number; the message names the field.
    """
    kind: Any = type(value)
    for name, fits in _fields(kind):
        if not fits(getattr(value, name)):
            raise ValueError(f"{name} is not what it must be")
    return value


@cache
def _fields(kind: Any) -> tuple[tuple[str, Check], ...]:
    hints = get_type_hints(kind)
    return tuple((field.name, _check(hints[field.name])) for field in fields(kind))


@cache
def _check(hint: Any) -> Check:
    """Give what says whether a value fits a type hint, of those that documents use."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        checks = tuple(_check(argument) for argument in arguments)
        return lambda value: any(check(value) for check in checks)
    if origin is tuple:
        inner = _check(arguments[0])
        return lambda value: isinstance(value, tuple) and all(map(inner, value))
    if origin is Mapping:
        key, item = map(_check, arguments)
        return lambda value: isinstance(value, dict) and all(map(key, value)) and all(map(item, value.values()))
    if is_dataclass(hint):
        members = _fields(cast(Any, hint))
        return lambda value: type(value) is hint and all(fits(getattr(value, name)) for name, fits in members)
    return _CHECKS.get(hint, lambda value: isinstance(value, hint) and _is_text(value))


def _is_text(value: Any) -> bool:
    """Whether a text can be written as UTF-8: JSON can spell half a surrogate."""
    try:
        return isinstance(value, str) and (value.isascii() or bool(value.encode()))
    except UnicodeEncodeError:
        return False


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 1 << 1000  # longer ones are no doubles
    return type(value) is float and math.isfinite(value)


_CHECKS: dict[Any, Check] = {
    str: _is_text,
    bool: lambda value: isinstance(value, bool),
    int: lambda value: type(value) is int and abs(value) < 1 << 63,
    float: _is_number,
    NoneType: lambda value: value is None,
}
