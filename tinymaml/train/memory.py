"""Whether a run fits into this machine's memory, said before it is tried."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from tinymaml.settings import kind_of
from tinymaml.train.experiment import Experiment

# Integers that say nothing of how much memory is needed.
_NO_SIZES = ("seed", "eval_seed", "iterations", "log_every", "checkpoint_every", "keep", "validate_every")


class TooLarge(ValueError):
    """There is not the memory for what was asked for; the message says what is larger than it has to be."""


def check(experiment: Experiment, defaults: Experiment) -> None:
    """Raises TooLarge if a run needs more than all of this machine's memory; a GPU's own memory is not looked at."""
    here, needed = _size(), 4 * experiment.domain.least_numbers(experiment.training)
    if experiment.training.device == "cpu" and here is not None and needed > here:
        raise TooLarge(
            f"these settings need at least {needed / 1e9:,.0f} GB of memory, this machine has {here / 1e9:,.0f} GB"
            + _enlarged(experiment, defaults)
        )


@contextlib.contextmanager
def enough(experiment: Experiment, defaults: Experiment) -> Iterator[None]:
    """Raises TooLarge where memory runs out in here."""
    try:
        yield
    except MemoryError as error:
        raise TooLarge(f"there is not enough memory: {error}{_enlarged(experiment, defaults)}") from error


def _enlarged(experiment: Experiment, defaults: Experiment) -> str:
    """Which sizes are larger than by default."""
    values, before, larger = experiment.settings(), defaults.settings(), []
    hints = {name: hint for part in experiment.parts() for name, hint in part.hints().items()}
    for name, value in values.items():
        sizes = kind_of(hints[name]) is int and name not in _NO_SIZES
        if sizes and _sum(value) > _sum(before[name]):
            larger.append(f"--{name.replace('_', '-')} {_words(value)} (default: {_words(before[name])})")
    return f"; smaller ones are needed: {', '.join(larger)}" if larger else ""


def _size() -> int | None:
    """Bytes of this machine's memory, None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # on Windows, say
        return None


def _sum(value: Any) -> int:
    return sum(value) if isinstance(value, list) else int(value or 0)


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
