"""Metrics: JSON lines that survive a kill, and TensorBoard where it is installed."""

from __future__ import annotations

import json
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tinymaml.train import metrics


def test_lines_are_whole_json_and_later_ones_are_dropped(tmp_path: Path) -> None:
    writer = metrics.Metrics(tmp_path, 0)
    writer.write(10, loss=1.5, seconds=0.1)
    writer.write(20, loss=math.nan)
    writer.close()
    path = tmp_path / "metrics.jsonl"
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"iteration": 10, "loss": 1.5, "seconds": 0.1},
        {"iteration": 20, "loss": None},
    ]
    with path.open("a") as file:
        file.write('{"iteration": 30, "loss": 1')
    metrics.Metrics(tmp_path, 10).close()
    assert [line["iteration"] for line in metrics.read(path)] == [10]


def test_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'\xff\xfe\n[1]\n{"iteration": "x"}\n{"iteration": 5}\n')
    assert metrics.read(path) == [{"iteration": 5}]
    assert metrics.read(tmp_path / "none.jsonl") == []
    good = '{"iteration": 5, "loss": null}'
    bad = ["[" * 60_000, '{"iteration": 1, "loss": [1]}', '{"iteration": 1, "loss": "x"}', '{"iteration": true}']
    bad += ['{"iteration": 1, "loss": 1e999}', '{"iteration": 1, "loss": NaN}', '{"iteration": 0}', '{"iteration": -1}']
    bad += ['{"iteration": 1, "loss": ' + "9" * 400 + "}", '{"iteration": 1, "loss": true}', '{"iteration": 1.5}']
    path.write_text("\n".join([*bad, good, *bad]))
    assert metrics.read(path) == [{"iteration": 5, "loss": None}]


def test_tensorboard_gets_every_value_when_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            seen.append(Path(folder).name)

        def add_scalar(self, name: str, value: float, iteration: int) -> None:
            seen.append((name, value, iteration))

        def close(self) -> None:
            seen.append("closed")

    module = types.ModuleType("tensorboardX")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    module.__spec__ = types.SimpleNamespace(name="tensorboardX")  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    assert metrics.tensorboard_writer() == "tensorboardX"
    writer = metrics.Metrics(tmp_path, 0)
    writer.write(10, loss=1.5, seconds=0.1)
    writer.close()
    assert seen == ["tensorboard", ("loss", 1.5, 10), ("seconds", 0.1, 10), "closed"]
