"""Metrics: JSON lines that survive a kill, and TensorBoard where it is installed."""

from __future__ import annotations

import importlib
import json
import math
import struct
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


def events(folder: Path) -> list[Any]:
    """What TensorBoard reads: records of a length, its checksum, an event and its checksum."""
    event_pb2 = importlib.import_module("tensorboardX.proto.event_pb2")
    found = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(event_pb2.Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_tensorboard_gets_every_value_that_it_can_draw(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="needs tensorboardX: pip install 'tinymaml[tensorboard]'")
    assert metrics.tensorboard_is_written()
    writer = metrics.Metrics(tmp_path, 0)
    writer.write(10, loss=1.5, seconds=0.25)
    writer.write(20, loss=math.nan)
    writer.close()
    found = [event for event in events(tmp_path / "tensorboard") if event.HasField("summary")]
    shown = [(event.step, one.tag, one.simple_value) for event in found for one in event.summary.value]
    assert shown == [(10, "loss", 1.5), (10, "seconds", 0.25)]
    assert not any(event.HasField("session_log") for event in events(tmp_path / "tensorboard"))


def test_tensorboard_drops_what_a_killed_run_wrote_later(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="needs tensorboardX: pip install 'tinymaml[tensorboard]'")
    writer = metrics.Metrics(tmp_path, 0)
    writer.write(10, loss=1.5)
    writer.close()
    metrics.Metrics(tmp_path, 5).close()
    (start,) = [event for event in events(tmp_path / "tensorboard") if event.HasField("session_log")]
    assert (start.session_log.status, start.step) == (1, 6)  # a start: what is of this step or later is dropped


def test_without_tensorboardx_there_are_json_lines_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not metrics.tensorboard_is_written()
    writer = metrics.Metrics(tmp_path, 0)
    writer.write(10, loss=1.5)
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
