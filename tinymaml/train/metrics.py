"""Metrics as JSON lines, one object a line, and for TensorBoard where tensorboardX is installed."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

from tinymaml.tasks.extras import require
from tinymaml.tasks.reading import open_file, parse_json
from tinymaml.train import files
from tinymaml.train.schema import is_number

_LONGEST = 1 << 16  # bytes of a line


class Metrics:
    """Writes `metrics.jsonl` in a folder, going on after `iteration`: later or torn lines of a killed run are
    dropped."""

    def __init__(self, folder: Path, iteration: int) -> None:
        self.path = folder / "metrics.jsonl"
        kept = [line for line in read(self.path) if line["iteration"] <= iteration]
        files.atomic_write(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file = self.path.open("a", encoding="utf-8")
        self._board = _tensorboard(folder, iteration)

    def write(self, iteration: int, **values: float) -> None:
        """One line; it is on its way to the disk when this returns."""
        with files.naming(self.path):
            self._file.write(as_json(iteration=iteration, **values) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if math.isfinite(value):  # TensorBoard draws no others, and its writer complains of each
                    self._board.add_scalar(name, value, iteration)

    def close(self) -> None:
        with files.naming(self.path):
            self._file.close()
        if self._board is not None:
            self._board.close()


def as_json(**values: float) -> str:
    """A line; what is not finite is null in it, as JSON has nothing else."""
    return json.dumps({name: value if math.isfinite(value) else None for name, value in values.items()})


def from_json(line: str) -> dict[str, Any]:
    """What `as_json` gave; what was not finite is NaN."""
    return {name: math.nan if value is None else value for name, value in json.loads(line).items()}


def read(path: Path) -> list[dict[str, Any]]:
    """The lines that are whole: an iteration and numbers or nulls; others, such as a torn last one, are left out.

    Raises OSError: it cannot be read, or is no file.
    """
    try:
        file = open_file(path)
    except FileNotFoundError:
        return []
    lines = []
    with file:
        while line := file.readline(_LONGEST):
            try:
                value = parse_json(line)
            except ValueError:
                continue
            if isinstance(value, dict) and _is_line(value):
                lines.append(value)
    return lines


def _is_line(values: dict[str, Any]) -> bool:
    iteration = values.get("iteration")
    numbers = all(value is None or is_number(value) for value in values.values())
    return type(iteration) is int and iteration > 0 and numbers


def tensorboard_is_written() -> bool:
    """Whether metrics are also written for TensorBoard: tensorboardX is installed."""
    return importlib.util.find_spec("tensorboardX") is not None


def _tensorboard(folder: Path, iteration: int) -> Any:
    """A writer that goes on after an iteration: TensorBoard drops what a killed run wrote after it."""
    if not tensorboard_is_written():
        return None
    writer = require("tensorboardX", "tensorboard").SummaryWriter
    return writer(str(folder / "tensorboard"), purge_step=iteration + 1 if iteration else None)
