"""results.json, its table and its pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinymaml.train import plots, results


def entry(level: float, diverged: int = 0, best: bool = False) -> dict[str, Any]:
    """An evaluation with made-up errors around `level`, of 50 tasks, three inner steps and one more for the last."""
    rng = np.random.default_rng(int(100 * level))
    errors = [level / (1 + k) * rng.uniform(0.5, 1.5, 50).astype(np.float32) for k in range(11)]
    bad = np.zeros(50, np.bool_)
    bad[:diverged] = True
    for k in range(5, 11):
        errors[k] = np.where(bad, np.inf, errors[k])
    found = results.summary(errors, bad)
    shots = dict.fromkeys(("5", "10", "20"), found)
    x = np.linspace(-5, 5, 100)
    sketch = {
        "amplitude": 2.0,
        "phase": 1.0,
        "support_x": [0.0, 1.0],
        "support_y": [-1.7, 0.0],
        "x": x.tolist(),
        "steps": {k: (np.sin(x) * s).tolist() for k, s in (("0", 0.1), ("1", 1.0), ("10", 1.9))},
    }
    return {
        "protocol": {"tasks": 50, "query_points": 100, "alpha": {"5": 0.01, "10": 0.01, "20": 0.02}},
        "seed": 3,
        "iterations": 70000,
        "seconds": 101.2,
        "step_size_search": {"5": {"0.01": 2.5, "0.1": None}},
        "shots": shots,
        "best": {"iteration": 40000, "shots": shots} if best else None,
        "qualitative": [{**sketch, "shots": k} for k in (5, 10, 20) for _ in range(6)],
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    results.merge(path, "sinusoid", "maml", entry(0.6, diverged=2, best=True))
    results.merge(path, "sinusoid", "pretrained", entry(2.4))
    return path


def test_the_summary_against_plain_numpy() -> None:
    errors = np.array([1.0, 2.0, 4.0, np.inf])
    found = results.summary([errors[:3].repeat(2)[:4], errors], np.array([False, False, False, True]))
    assert found["mean"] == [pytest.approx(np.mean([1, 1, 2, 2])), None]
    assert found["half_width"][0] == pytest.approx(1.96 * np.std([1, 1, 2, 2], ddof=1) / 2)
    assert found["half_width"][1] is None
    assert found["mean_converged"][1] == pytest.approx(7 / 3)
    assert found["half_width_converged"][1] == pytest.approx(1.96 * np.std([1, 2, 4], ddof=1) / np.sqrt(3))
    assert found["median"][1] == 3
    assert found["diverged"] == 1


def test_merging_keeps_the_others(path: Path) -> None:
    results.merge(path, "sinusoid", "maml", entry(0.7))
    found = results.load(path)
    assert set(found["methods"]) == {"maml", "pretrained"}
    assert found["methods"]["pretrained"] == json.loads(json.dumps(entry(2.4)))
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_unusable_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(results.ResultsError, match=r"results\.json is not there"):
        results.load(path)
    for text, message in (
        ("{", "is not JSON"),
        ("[]", "is not a results file"),
        ('{"methods": {}}', "is not a results file"),
        ('{"format": 99, "methods": {}}', "made by a newer tinymaml"),
    ):
        path.write_text(text)
        with pytest.raises(results.ResultsError, match=message):
            results.merge(path, "sinusoid", "maml", entry(0.6))
        assert path.read_text() == text
    path.write_text('{"format": 1, "experiment": "omniglot", "methods": {}}')
    with pytest.raises(results.ResultsError, match="is of omniglot, not of sinusoid"):
        results.merge(path, "sinusoid", "maml", entry(0.6))


def test_the_table_has_our_figures_beside_the_papers(path: Path) -> None:
    text = results.table(results.load(path))
    found = results.load(path)["methods"]["maml"]["shots"]["5"]
    assert f"{found['mean'][1]:.2f} ± {found['half_width'][1]:.2f}* [0.67]" not in text  # before any task left
    assert f"{found['mean'][1]:.2f} ± {found['half_width'][1]:.2f} [0.67]" in text
    assert "diverged* [0.38]" in text
    assert "2.41" in text
    assert "MAML, best" in text
    assert "MAML, 5 points: diverged on 2; without them" in text
    assert "MAML: the paper's figure or under, up to our interval, after 1: yes, 5: no, 10: no" in text
    assert "seed 3, 70000 iterations, 101 s, best in validation at 40000" in text
    assert "pretrained: step sizes tried on validation tasks with 5 points: 0.01: 2.50, 0.1: diverged" in text
    assert "oracle" not in text


def test_an_interval_wider_than_the_figure_proves_nothing() -> None:
    assert results._reached(0.4, 0.05, 0.38)
    assert not results._reached(0.5, 0.05, 0.38)
    assert not results._reached(11.0, 21.0, 0.38)
    assert not results._reached(None, None, 0.38)


def test_every_picture_is_drawn(path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
    for method in ("maml", "pretrained"):
        (path.parent / method).mkdir()
        lines = [{"iteration": 10 * i, "loss": 1 / i, "seconds": i} for i in range(1, 9)]
        lines.append({"iteration": 80, "validation": 0.3})
        (path.parent / method / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = plots.draw_all(path.parent)
    assert [p.name for p in found] == ["figure2.png", "figure3.png", "figure6.png", "figure7.png", "training.png"]
    for picture in found:
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size > 10_000


def test_pictures_do_without_methods_that_were_not_evaluated(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
    results.merge(tmp_path / "results.json", "sinusoid", "oracle", entry(0.1))
    assert [p.name for p in plots.draw_all(tmp_path)] == ["figure3.png", "figure6.png", "training.png"]
