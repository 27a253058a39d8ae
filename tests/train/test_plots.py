"""The pictures of a run."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import pytest

from tests.cases.results_cases import entry
from tinymaml.experiments.sinusoid import plots as sinusoid_plots
from tinymaml.train import plots, results
from tinymaml.train.extras import MissingExtra

ALL = ["figure2.png", "figure3.png", "figure6.png", "figure7.png", "training.png"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
    return tmp_path


def put(run: Path, method: str, level: float, *, trained: bool = True) -> None:
    results.merge(run / "results.json", "sinusoid", method, entry(level, diverged=2, best=method == "maml"))
    if trained:
        (run / method).mkdir()
        lines = [{"iteration": 10 * i, "loss": level / i, "seconds": i} for i in range(1, 9)]
        lines.append({"iteration": 80, "validation": 0.3})
        (run / method / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def check_picture(path: Path) -> None:
    """A PNG of a sensible size with something in it."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 10_000
    width, height = struct.unpack(">II", data[16:24])
    assert 400 < width < 2000
    assert 300 < height < 2000


def names(run: Path) -> list[str]:
    """Of the pictures drawn."""
    found = plots.draw_all(run, "sinusoid", sinusoid_plots.PICTURES)
    for picture in found:
        check_picture(picture)
    assert sorted((run / "figures").glob("*")) == sorted(found)
    return [picture.name for picture in found]


def test_every_picture_is_drawn(run: Path) -> None:
    for method, level in (("maml", 0.6), ("fomaml", 0.7), ("pretrained", 2.4), ("oracle", 0.004)):
        put(run, method, level)
    assert names(run) == ALL


@pytest.mark.parametrize(
    ("method", "expected"), [("maml", ALL), ("pretrained", ALL), ("oracle", [ALL[1], ALL[2], ALL[4]])]
)
def test_one_method_alone(run: Path, method: str, expected: list[str]) -> None:
    put(run, method, 0.6)
    assert names(run) == expected


def test_without_metrics_there_is_no_training_curve(run: Path) -> None:
    put(run, "fomaml", 0.6, trained=False)
    assert names(run) == ["figure3.png", "figure6.png"]


def test_nothing_evaluated(run: Path) -> None:
    (run / "results.json").write_text('{"format": 1, "experiment": "sinusoid", "methods": {}}')
    assert names(run) == []


def test_a_method_evaluated_on_less_than_the_others(run: Path) -> None:
    put(run, "maml", 0.6)
    less = entry(2.4)
    figures = less["parameters"]["last"]["figures"]
    less["parameters"]["last"]["figures"] = {"5 support points": figures["5 support points"]}
    less["details"]["sketches"] = [one for one in less["details"]["sketches"] if one["shots"] == 5][:2]
    results.merge(run / "results.json", "sinusoid", "pretrained", less)
    assert names(run) == ALL


def test_a_method_of_which_every_task_diverged(run: Path) -> None:
    results.merge(run / "results.json", "sinusoid", "maml", entry(0.6, diverged=50))
    assert "figure3.png" in names(run)


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "maml", 0.6)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tinymaml\[train\]'"):
        plots.draw_all(tmp_path, "sinusoid", sinusoid_plots.PICTURES)
