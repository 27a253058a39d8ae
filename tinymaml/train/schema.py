"""Holds what was read from JSON to the types that the code says it has."""

from __future__ import annotations

import math
import re
import types
import typing
from typing import Annotated, Any

MOST = 1 << 64  # above all counts and seeds


def check(value: Any, hint: Any, where: str) -> None:
    """Raises ValueError, which names the place, if a value read from JSON is not of a type.

    Args:
        hint: a TypedDict, of which some keys may be optional (total=False), list[...], dict[str, ...], a union with
            None, str, bool, int (0 <= value < 2**64), float (finite), Any; Annotated[str, PATTERN] is text of that
            pattern; the lists of a TypedDict that are Annotated[list[...], NAME] with one name, or the values of a dict
            with it, are of one length, and not empty. Keys of which a TypedDict says nothing are passed over.
        where: the value's name, for messages.
    """
    if hint is Any:
        return
    if typing.is_typeddict(hint):
        _check_typed_dict(value, hint, where)
        return
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        _check_union(value, arguments, where)
    elif origin is list:
        _check_kind(value, list, where)
        for i, item in enumerate(value):
            check(item, arguments[0], f"{where}[{i}]")
    elif origin is dict:
        _check_kind(value, dict, where)
        for key, item in value.items():
            check(key, arguments[0], f"a key of {where}")
            check(item, arguments[1], f"{where}[{key!r}]")
    elif origin is Annotated:
        check(value, arguments[0], where)
        if arguments[0] is str and re.fullmatch(arguments[1], value) is None:
            raise ValueError(f"{where} is {value!r}")
    elif hint is int:
        _check_kind(value, int, where)
        if not 0 <= value < MOST:
            raise ValueError(f"{where} is {value}")
    elif hint is float:
        if not is_number(value):
            raise ValueError(f"{where} is {_described(value)}, not a number")
    elif hint is str:
        _check_kind(value, str, where)
        if not value.isprintable():
            raise ValueError(f"{where} is {value!r}")
    elif hint is bool:
        _check_kind(value, bool, where)
    else:
        raise TypeError(f"{where}: {hint} is no type of JSON's")


def is_number(value: Any) -> bool:
    """Whether it is an integer or a float, finite as a float, and no boolean."""
    if type(value) is int:
        return abs(value) < 1 << 1023
    return type(value) is float and math.isfinite(value)


def _check_typed_dict(value: Any, hint: Any, where: str) -> None:
    missing = hint.__required_keys__ - set(value if isinstance(value, dict) else ())
    if missing:
        raise ValueError(f"{where} has no {', '.join(sorted(missing))}")
    _check_kind(value, dict, where)
    hints = typing.get_type_hints(hint, include_extras=True)
    present = {name: hints[name] for name in hints if name in value}
    for name, hint_of_item in present.items():
        check(value[name], hint_of_item, f"{where}'s {name}")
    lengths: dict[str, set[int]] = {}
    for name, hint_of_item in present.items():
        if typing.get_origin(hint_of_item) is Annotated and typing.get_args(hint_of_item)[0] is not str:
            lists = value[name].values() if isinstance(value[name], dict) else [value[name]]
            lengths.setdefault(typing.get_args(hint_of_item)[1], set()).update(map(len, lists))
    for axis, several in lengths.items():
        if len(several) > 1 or 0 in several:
            raise ValueError(f"{where} has lists over {axis} of {' and '.join(map(str, sorted(several)))} values")


def _check_union(value: Any, arguments: tuple[Any, ...], where: str) -> None:
    if value is None and types.NoneType in arguments:
        return
    *others, last = [hint for hint in arguments if hint is not types.NoneType]
    for hint in others:
        try:
            check(value, hint, where)
        except ValueError:
            continue
        return
    check(value, last, where)


def _check_kind(value: Any, kind: type, where: str) -> None:
    if type(value) is not kind:
        raise ValueError(f"{where} is {_described(value)}, not {_NAMES[kind]}")


def _described(value: Any) -> str:
    return _NAMES[type(value)] if isinstance(value, list | dict) else repr(value)


_NAMES = {list: "a list", dict: "an object", int: "an integer", bool: "true or false", str: "text"}
