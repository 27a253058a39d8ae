"""Whether a run fits into this machine's memory, said before it is tried."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

from tinymaml.train.settings import Settings, hints_of, kind_of

# Integers that say nothing of how much memory is needed.
_NO_SIZES = ("seed", "eval_seed", "iterations", "log_every", "checkpoint_every", "keep", "validate_every")


class TooLarge(ValueError):
    """There is not the memory for what was asked for; the message says what is larger than it has to be."""


def check(settings: Settings, defaults: Settings) -> None:
    """Raises TooLarge if a run needs more than all of this machine's memory; a GPU's own memory is not looked at."""
    here, needed = _size(), 4 * settings.least_numbers()
    if settings.device == "cpu" and here is not None and needed > here:
        raise TooLarge(
            f"these settings need at least {needed / 1e9:,.0f} GB of memory, this machine has {here / 1e9:,.0f} GB"
            + _enlarged(settings, defaults)
        )


@contextlib.contextmanager
def enough(settings: Settings, defaults: Settings) -> Iterator[None]:
    """Raises TooLarge where memory runs out in here."""
    try:
        yield
    except MemoryError as error:
        raise TooLarge(f"there is not enough memory: {error}{_enlarged(settings, defaults)}") from error


def _enlarged(settings: Settings, defaults: Settings) -> str:
    """Which sizes are larger than by default."""
    found, hints = [], hints_of(type(settings))
    for own in dataclasses.fields(settings):
        value, default = getattr(settings, own.name), getattr(defaults, own.name)
        sizes = kind_of(hints[own.name]) is int and own.name not in _NO_SIZES
        if sizes and _sum(value) > _sum(default):
            found.append(f"--{own.name.replace('_', '-')} {_words(value)} (default: {_words(default)})")
    return f"; smaller ones are needed: {', '.join(found)}" if found else ""


def _size() -> int | None:
    """Bytes of this machine's memory, None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # on Windows, say
        return None


def _sum(value: Any) -> int:
    return sum(value) if isinstance(value, tuple) else int(value)


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
