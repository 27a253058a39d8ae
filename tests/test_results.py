"""results.json and its table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.results_cases import entry
from tinymaml.train import results, sinusoid_table


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
    found = results.load(path, "sinusoid")
    assert set(found["methods"]) == {"maml", "pretrained"}
    assert found["methods"]["pretrained"] == json.loads(json.dumps(entry(2.4)))
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_unusable_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(results.ResultsError, match=r"results\.json is not there"):
        results.load(path, "sinusoid")
    for text, message in (
        ("{", "is not JSON"),
        ("[]", "is not a results file"),
        ('{"methods": {}}', "is not a results file"),
        ('{"format": 99, "methods": {}}', "made by a newer tinymaml"),
        ('{"format": "new", "methods": {}}', "is not a results file"),
        ('{"format": null, "methods": {}}', "is not a results file"),
        (
            '{"format": 1, "experiment": "sinusoid", "methods": {"maml": 3}}',
            "is damaged: maml has no accuracy, returns or shots",
        ),
        (
            '{"format": 1, "experiment": "sinusoid", "methods": {"maml": {"shots": 1}}}',
            "is damaged: maml has no best, iterations",
        ),
    ):
        path.write_text(text)
        with pytest.raises(results.ResultsError, match=message):
            results.merge(path, "sinusoid", "maml", entry(0.6))
        assert path.read_text() == text
    path.write_text('{"format": 1, "experiment": "omniglot", "methods": {}}')
    with pytest.raises(results.ResultsError, match="is of omniglot, not of sinusoid"):
        results.merge(path, "sinusoid", "maml", entry(0.6))


def test_the_table_has_our_figures_beside_the_papers(path: Path) -> None:
    text = sinusoid_table.table(results.load(path, "sinusoid"))
    found = results.load(path, "sinusoid")["methods"]["maml"]["shots"]["5"]
    assert f"{found['mean'][1]:.2f} ± {found['half_width'][1]:.2f}* [0.67]" not in text  # before any task left
    assert f"{found['mean'][1]:.2f} ± {found['half_width'][1]:.2f} [0.67]" in text
    assert "diverged* [0.38]" in text
    assert "2.41" in text
    assert "MAML, best" in text
    assert "MAML, 5 points: diverged on 2; without them" in text
    assert "MAML: the paper's figure or under, up to our interval, after 1: yes, 5: no, 10: no" in text
    assert "seed 3, 70000 iterations, 101 s, best in validation at 40000" in text
    assert "pretrained: step sizes tried on validation tasks with 5 points: 0.01: 2.50, 0.1: diverged" in text
    assert "pretrained: the paper's figure or under, up to our interval, after 1: yes" in text
    assert "oracle" not in text


def test_an_interval_wider_than_the_figure_proves_nothing() -> None:
    assert sinusoid_table._reached(0.4, 0.05, 0.38)
    assert not sinusoid_table._reached(0.5, 0.05, 0.38)
    assert not sinusoid_table._reached(11.0, 21.0, 0.38)
    assert not sinusoid_table._reached(None, None, 0.38)


def test_the_table_without_a_figure_of_the_papers_and_with_a_method_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for method, level in (("new", 0.5), ("oracle", 0.004), ("fomaml", 0.6)):
        results.merge(path, "sinusoid", method, entry(level))
    rows = sinusoid_table.table(results.load(path, "sinusoid")).splitlines()
    names = [row.split("  ")[0] for row in rows[4:7]]
    assert names == ["MAML, first order", "oracle", "new"]
    found = results.load(path, "sinusoid")["methods"]["oracle"]["shots"]["5"]
    assert f"{found['mean'][1]:.4f} ± {found['half_width'][1]:.4f} [ –  ]" in rows[5]  # more digits of small errors
    assert not any("the paper's figure or under" in row for row in rows)


def test_a_failed_write_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.merge(path, "sinusoid", "maml", {**entry(0.6), "seconds": float("nan")})
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        results.merge(path, "sinusoid", "maml", entry(0.6))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
