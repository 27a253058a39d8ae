"""Settings: frozen dataclasses whose fields are documented, checked, saved with a run, and options of the command line.

Methods, domains and the training loop each have a class of them; a run's settings are all three together.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Self

LARGEST_SEED = 2**64 - 1
LARGEST = 1 << 64  # above all counts and seeds in JSON


def setting(
    default: Any,
    text: str,
    choices: tuple[Any, ...] | None = None,
    *,
    least: float | None = None,
    most: float | None = None,
    positive: bool = False,
    free: bool = False,
    evaluation: bool = False,
) -> Any:
    """A field with its help text, and the range of its numbers, or of each of them.

    Integers are counts, from 1, where nothing else is said. Floating-point numbers are finite; `positive` ones above 0.

    Args:
        free: whether it may differ between a checkpoint and the run that goes on from it.
        evaluation: whether an evaluation reads it, so that it may be given anew to evaluate again.
    """
    return field(
        default=default,
        metadata={
            "help": text, "choices": choices, "least": least, "most": most, "positive": positive, "free": free,
            "evaluation": evaluation,
        },
    )  # fmt: skip


def kind_of(hint: Any) -> type:
    """Of a setting's values, or of each where there are several: int, float, bool or str."""
    kinds = [kind for kind in typing.get_args(hint) if kind not in (types.NoneType, Ellipsis)]
    kind: type = kinds[0] if kinds else hint
    return kind


def is_number(value: Any) -> bool:
    """Whether it is an integer or a float, finite as a float, and no boolean."""
    if type(value) is int:
        return abs(value) < 1 << 1023
    return type(value) is float and math.isfinite(value)


@dataclass(frozen=True)
class Settings:
    """What all settings have: they are checked when they are made, and go to JSON and back.

    A field of a subclass is an integer, a float, a boolean, text, a tuple of one of these, or one of these or None.
    It may be made by `setting`; of a plain dataclass field the type alone is checked. A list is taken for a tuple.

    Raises:
        ValueError: a setting of another type, or out of its range.
        TypeError: a setting that there is not; a subclass with fields that is no frozen dataclass.
    """

    def __new__(cls, *arguments: Any, **settings: Any) -> Self:
        if "__dataclass_fields__" not in vars(cls):
            hints, annotated = cls.hints(), inspect.get_annotations(cls)
            plain = [name for name in annotated if typing.get_origin(hints[name]) is not typing.ClassVar]
            if plain:
                raise TypeError(
                    f"{cls.__name__} has the settings {', '.join(plain)}: write @dataclass(frozen=True) above its class"
                )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        hints = self.hints()
        for field_ in dataclasses.fields(self):
            name, value, choices = field_.name, getattr(self, field_.name), field_.metadata.get("choices")
            if isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, name, value)
            if not _has_type(value, hints[name]):
                raise ValueError(f"{name} must be {_in_words(hints[name])}, got {value!r}")
            if not field_.metadata:
                continue
            if choices and value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}")
            kind = kind_of(hints[name])
            if kind in (int, float) and value is not None:
                _check_range(field_, kind, value)

    @classmethod
    def hints(cls) -> dict[str, Any]:
        """The types of the settings, by name."""
        return typing.get_type_hints(cls)

    @classmethod
    def names(cls, flag: str | None = None) -> frozenset[str]:
        """Of the settings, or of those that are "free", or of the "evaluation"."""
        return frozenset(
            field_.name for field_ in dataclasses.fields(cls) if flag is None or field_.metadata.get(flag, False)
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any], **others: Any) -> Self:
        """From what `as_dict` gave, read back from JSON; entries of other names are passed over.

        Args:
            others: settings that take the place of those in `values`.

        Raises:
            ValueError: one is of a wrong type, or out of bounds.
        """
        hints = cls.hints()
        given: dict[str, Any] = {}
        for name in cls.names() & values.keys():
            given[name] = tuple(values[name]) if isinstance(values[name], list) else values[name]
            if not _is_of(given[name], hints[name]):
                raise ValueError(f"{name} cannot be {values[name]!r}")
        return cls(**{**given, **others})

    def as_dict(self) -> dict[str, Any]:
        """For JSON: tuples become lists. Raises TypeError for what JSON cannot hold."""
        values = {name: getattr(self, name) for name in (field_.name for field_ in dataclasses.fields(self))}
        for name, value in values.items():
            try:
                json.dumps(value)
            except TypeError as error:
                raise TypeError(
                    f"{type(self).__name__}.{name} is {value!r}, which no checkpoint holds: {error}"
                ) from None
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _check_range(field_: dataclasses.Field[Any], kind: type, value: Any) -> None:
    """Raises ValueError, which says what is right, if a number is none that the setting can have."""
    least, most, positive = (field_.metadata[name] for name in ("least", "most", "positive"))
    if kind is int:
        least, most = 1 if least is None else least, 2**63 - 1 if most is None else most
    several = isinstance(value, tuple)
    numbers = value if several else (value,)

    def good(number: Any) -> bool:
        above, below = least is None or number >= least, most is None or number <= most
        return above and below and math.isfinite(number) and (number > 0 or not positive)

    if numbers and all(map(good, numbers)):
        return
    if several:
        right = f"needs {'positive' if positive or least else 'finite'} numbers"
    elif positive:
        right = "must be a positive number"
    elif kind is int:
        right = f"must be at least {least}" if value < least else f"must be at most {most}"
    else:
        right = "must be a finite number" if least is None else f"must be in [{least:g}, {most:g}]"
    raise ValueError(f"{field_.name} {right}, got {value}")


_WORDS = {int: "a whole number", float: "a number", bool: "True or False", str: "text", types.NoneType: "None"}


def _in_words(hint: Any) -> str:
    """The type of a field."""
    if typing.get_origin(hint) is tuple:
        return f"several, each {_in_words(typing.get_args(hint)[0])}"
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(map(_in_words, typing.get_args(hint)))
    return _WORDS.get(hint, "a number, True or False, text, or several of one of these")


def _has_type(value: Any, hint: Any) -> bool:
    """Whether it is of the type of a field, a number of any size."""
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_has_type(item, typing.get_args(hint)[0]) for item in value)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return any(_has_type(value, kind) for kind in typing.get_args(hint))
    return hint in _WORDS and (type(value) is hint or (hint is float and type(value) is int))


def _is_of(value: Any, hint: Any) -> bool:
    """Whether it is of the type of a field: a number, a boolean, text, a tuple of them, or None where that is one."""
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_is_of(item, typing.get_args(hint)[0]) for item in value)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return any(_is_of(value, kind) for kind in typing.get_args(hint))
    if hint is types.NoneType:
        return value is None
    if hint is float:
        return is_number(value)
    return type(value) is hint and (hint is not int or abs(value) < LARGEST)
