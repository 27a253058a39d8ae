"""The table and the pictures of the image experiments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.results_cases import image_entry
from tests.test_plots import check_picture
from tinymaml.train import image_plots, image_settings, image_table, plots, results, rl_settings, rl_table

NAME = "omniglot-5way-1shot"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    results.merge(path, NAME, "maml", image_entry(0.95))
    results.merge(path, NAME, "fomaml", image_entry(0.98, diverged=2, best=False))
    return path


def test_the_table_has_our_figures_beside_the_published_ones(path: Path) -> None:
    found = results.load(path, NAME)
    text = image_table.table(found)
    rows = {line[:28].strip(): line for line in reversed(text.splitlines())}  # the first table's
    for name, method, own in (
        ("MAML", "maml", found["methods"]["maml"]),
        ("MAML, best", "maml", found["methods"]["maml"]["best"]),
        ("MAML, first order", "fomaml", found["methods"]["fomaml"]),
    ):
        cells = [own["accuracy"][kind][q] for kind in ("transductive", "inductive") for q in ("1", "15")]
        shown = [f"{100 * cell['mean'][3]:.2f} ± {100 * cell['half_width'][3]:.2f}" for cell in cells]
        position = 0
        for one in ["98.7 ± 0.4" if method == "maml" else "–", *shown]:
            assert one in rows[name][position:]
            position = rows[name].index(one, position)
    steps = {line[:28].strip(): line for line in text.splitlines() if "inner step" in line[:28]}
    for k in range(11):
        one = found["methods"]["fomaml"]["accuracy"]["transductive"]["1"]
        cell = f"{100 * one['mean'][k]:.2f} ± {100 * one['half_width'][k]:.2f}"
        assert steps[f"{k} inner steps" if k != 1 else "1 inner step"].endswith(cell)
    assert "MAML: the published figure or above, up to our interval: no" in text
    assert "first order: the published figure" not in text
    assert "seed 3, 60000 iterations, 7000 s, best in validation at 41000; 50 test tasks" in text
    assert "3 inner steps of 0.4 (mean), gamma and beta not adapted" in text
    assert "2 tasks left all bounds, and count as wrong" in text


@pytest.mark.parametrize(("level", "answer"), [(0.94, "no"), (0.9869, "yes"), (1.0, "yes")])
def test_the_published_figure_is_reached_up_to_the_interval(tmp_path: Path, level: float, answer: str) -> None:
    results.merge(tmp_path / "results.json", NAME, "maml", image_entry(level, best=False))
    text = image_table.table(results.load(tmp_path / "results.json", NAME))
    assert f"MAML: the published figure or above, up to our interval: {answer}" in text


def test_an_experiment_without_published_figures(tmp_path: Path) -> None:
    results.merge(tmp_path / "results.json", "glyphs-5way-1shot", "maml", image_entry(0.9))
    text = image_table.table(results.load(tmp_path / "results.json", "glyphs-5way-1shot"))
    assert "published figure or above" not in text


def test_every_published_figure_is_of_an_experiment() -> None:
    assert set(image_table.PAPER) == set(image_settings.EXPERIMENTS) - {"glyphs-5way-1shot"}
    assert set(rl_table.PAPER) == set(rl_settings.EXPERIMENTS)


def test_the_results_are_of_one_experiment(path: Path) -> None:
    with pytest.raises(results.ResultsError, match="is of omniglot-5way-1shot, not of omniglot-5way-5shot"):
        results.merge(path, "omniglot-5way-5shot", "maml", image_entry(0.99))
    incomplete = image_entry(0.9)
    del incomplete["accuracy"]
    results.merge(path, NAME, "maml", incomplete)
    with pytest.raises(results.ResultsError, match="is damaged: maml has no accuracy"):
        results.load(path, NAME)


@pytest.mark.parametrize("trained", [True, False])
def test_the_pictures(path: Path, trained: bool) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
    if trained:
        for method in ("maml", "fomaml"):
            (path.parent / method).mkdir()
            lines = [{"iteration": i, "loss": 10 / i, "accuracy": 1 - 1 / i, "seconds": i} for i in range(10, 90, 10)]
            lines += [{"iteration": i, "validation": 1 / i, "validation_accuracy": 1 - 1 / i} for i in (40, 80)]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (path.parent / method / "metrics.jsonl").write_text(text)
    drawn = plots.draw_all(path.parent, NAME, image_plots.PICTURES)
    assert [picture.name for picture in drawn] == ["accuracy.png", "training.png"][: 1 + trained]
    for picture in drawn:
        check_picture(picture)


def test_an_evaluation_of_one_task_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
    entry = image_entry(0.9, best=False)
    for own in entry["accuracy"].values():
        for shares in own.values():
            shares["half_width"] = [None] * 11
    results.merge(tmp_path / "results.json", NAME, "maml", entry)
    assert len(plots.draw_all(tmp_path, NAME, image_plots.PICTURES)) == 1
    assert "±" not in image_table.table(results.load(tmp_path / "results.json", NAME)).split("98.7 ± 0.4")[1]
