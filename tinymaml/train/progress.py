"""How far training is: a bar with the figure that counts and time left on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import Any

from tinymaml.tasks.extras import require

_INTERVAL = 15.0  # seconds between two lines when there is no terminal
_COLUMNS = 80  # of a line that is not for a terminal
_NAME = 20  # characters of a name, at most
_BAR = 4  # characters of a bar, at least


class Progress:
    """Progress of one method, shown below that of others by `position`."""

    def __init__(self, name: str, iterations: int, position: int = 0, unit: str = "iteration") -> None:
        self.name = name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
        self.iterations, self.unit = iterations, unit
        self._bar: Any = None
        self._last = time.monotonic()
        if sys.stderr.isatty():
            tqdm = require("tqdm", "train")
            self._bar = tqdm.tqdm(
                total=iterations,
                desc=f"{self.name:10}",
                position=position,
                ncols=_columns(),
                # tqdm cuts off the end where it must: what matters most comes first.
                bar_format="{desc} {percentage:3.0f}%|{bar}|{postfix}, {n_fmt}/{total_fmt}, {remaining} left",
                smoothing=0.1,
            )

    def update(self, iteration: int, seconds: float, **figures: float) -> None:
        """Called with every line of metrics."""
        parts = described(figures)
        if self._bar is not None:
            self._bar.ncols = _columns()
            around = f"{self._bar.desc} 100%||, {self.iterations}/{self.iterations}, 00:00:00 left"
            self._bar.set_postfix_str(
                ", ".join(fitting(parts, self._bar.ncols - _BAR - len(around) - 2)), refresh=False
            )
            self._bar.update(iteration - self._bar.n)
        elif time.monotonic() - self._last > _INTERVAL or iteration == self.iterations:
            self._last = time.monotonic()
            left = f"{_clock((self.iterations - iteration) * seconds / iteration)} left"
            head = f"{self.name}: {self.unit} {iteration} of {self.iterations}"
            texts = fitting([*parts, (2, left), (9, f"{seconds:.0f} s")], _COLUMNS - 1 - len(head) - 2)
            print(", ".join([head, *texts]), file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def described(figures: dict[str, float]) -> list[tuple[int, str]]:
    """Figures of a line of metrics in words, in order; the number says how soon each is left out: 0 never.

    The one that counts is the return or the accuracy after adaptation, or else the loss.
    """
    steps = sorted(int(name[7:]) for name in figures if re.fullmatch("return_[0-9]{1,3}", name))
    parts = [(5 if steps or "accuracy" in figures else 0, f"loss {figures['loss']:.4f}")] if "loss" in figures else []
    if steps:
        before, after = steps[0], steps[-1]
        if before != after:
            parts.append((4, f"return {figures[f'return_{before}']:.1f} before"))
        counted = f" after {after} step{'s' * (after != 1)}" if after else ""
        parts.append((0, f"return {figures[f'return_{after}']:.1f}{counted}"))
    elif "accuracy" in figures:
        parts.append((0, f"accuracy {figures['accuracy']:.1%}"))
    if "validation_accuracy" in figures:
        parts.append((3, f"validation {figures['validation_accuracy']:.1%}"))
    elif "validation" in figures and not steps:
        parts.append((3, f"validation {figures['validation']:.4f}"))
    if "images_per_second" in figures:
        parts.append((6, f"{figures['images_per_second']:.0f} images/s"))
    return parts


def fitting(parts: list[tuple[int, str]], width: int) -> list[str]:
    """The texts, without the least important ones, so that they fit into a line; the most important stay anyhow."""
    while len(", ".join(text for _, text in parts)) > width and any(rank for rank, _ in parts):
        parts = [part for part in parts if part is not max(parts, key=lambda one: one[0])]
    return [text for _, text in parts]


def _columns() -> int:
    """Of the terminal, without its last, where some break the line."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns - 1
    except (OSError, ValueError):
        return _COLUMNS - 1


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
