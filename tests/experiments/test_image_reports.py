"""The table and the pictures of the image experiments."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.cases.results_cases import entry, image_entry, rl_entry
from tests.conftest import ROOT
from tests.train.test_plots import check_picture
from tinymaml.experiments.control import plots as rl_plots
from tinymaml.experiments.control import table as rl_table
from tinymaml.experiments.control.methods import METHODS
from tinymaml.experiments.few_shot import plots as image_plots
from tinymaml.experiments.few_shot import table as image_table
from tinymaml.experiments.registry import CONTROL, EXPERIMENTS, FEW_SHOT, GENERAL
from tinymaml.experiments.sinusoid import plots as sinusoid_plots
from tinymaml.experiments.sinusoid import table as sinusoid_table
from tinymaml.train import plots, results

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
    for name, method, which in (
        ("MAML", "maml", results.LAST),
        ("MAML, best", "maml", results.BEST_IN_VALIDATION),
        ("MAML, first order", "fomaml", results.LAST),
    ):
        figures = found["methods"][method]["parameters"][which]["figures"]
        cells = [figures[f"{kind}, {q} query"] for kind in ("transductive", "inductive") for q in (1, 15)]
        shown = [f"{100 * cell['mean'][3]:.2f} ± {100 * cell['half_width'][3]:.2f}" for cell in cells]
        position = 0
        for one in ["98.7 ± 0.4" if method == "maml" else "–", *shown]:
            assert one in rows[name][position:]
            position = rows[name].index(one, position)
    steps = {line[:28].strip(): line for line in text.splitlines() if "inner step" in line[:28]}
    for k in range(11):
        one = found["methods"]["fomaml"]["parameters"]["last"]["figures"]["transductive, 1 query"]
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
    results.merge(tmp_path / "results.json", "glyphs-5way-1shot", "maml", image_entry(0.9, dataset="glyphs"))
    text = image_table.table(results.load(tmp_path / "results.json", "glyphs-5way-1shot"))
    assert "published figure or above" not in text


def test_every_published_figure_is_of_an_experiment() -> None:
    """And of a method that it offers; every experiment but the one on glyphs has one of MAML, with its defaults."""
    found = []
    for name, experiment in FEW_SHOT.items():
        entry: Any = image_entry(0.9, experiment=experiment)
        own = {method: image_table.published(entry, method) for method in experiment.methods}
        assert (own["maml"] is None) == (name == "glyphs-5way-1shot")
        found += [figure for figure in own.values() if figure is not None]
    assert Counter(found) == Counter(image_table.PAPER.values())
    for experiment in CONTROL.values():
        of_rl: Any = {"settings": experiment.settings()}
        assert all(rl_table.published(of_rl, method) for method in METHODS)
    assert len(rl_table.PAPER) == len(CONTROL)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dataset": "shapes"}, None),
        ({"dataset": "glyphs"}, None),
        ({"dataset": "omniglot-vinyals"}, None),
        ({"filters": 8}, None),
        ({"layers": 3}, None),
        ({"downsample": "max-pool"}, None),
        ({"ways": 20}, (95.8, 0.3)),
        ({"shots": 5}, (99.9, 0.1)),
        ({"network": "mlp"}, (89.7, 1.1)),
    ],
    ids=str,
)
def test_a_run_of_something_else_has_another_published_figure_or_none(
    tmp_path: Path, changes: dict[str, Any], expected: Any
) -> None:
    """Whatever the experiment is called: the figure is of a data set, ways, shots, network and method."""
    path, experiment = tmp_path / "results.json", GENERAL["images"].replaced(**changes)
    results.merge(path, NAME, "maml", image_entry(0.95, experiment=experiment))
    entry: Any = results.load(path, NAME)["methods"]["maml"]
    assert image_table.published(entry, "maml") == expected
    assert "98.7" not in image_table.table(results.load(path, NAME))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("navigation", {"reward": "squared-distance"}),
        ("navigation", {"horizon": 50}),
        ("cheetah-velocity", {"flavour": "gym"}),
        ("ant-direction", {"hidden": (8,)}),
    ],
)
def test_returns_of_something_else_have_no_published_figures(name: str, changes: dict[str, Any]) -> None:
    entry: Any = {"settings": EXPERIMENTS[name].replaced(**changes).settings()}
    assert rl_table.published(entry, "maml") is None


def test_sinusoids_of_another_range_or_network_have_no_published_figures() -> None:
    for changes in ({"amplitude": (1.0, 2.0)}, {"hidden": (8,)}, {"activation": "tanh"}):
        entry: Any = {"settings": EXPERIMENTS["sinusoid"].replaced(**changes).settings()}
        assert sinusoid_table.published(entry, "maml") is None
    entry = {"settings": EXPERIMENTS["sinusoid"].replaced(meta_batch=4, iterations=7).settings()}
    assert sinusoid_table.published(entry, "maml") == (0.67, 0.38, 0.35)


def test_the_repositorys_own_runs_have_their_published_figures() -> None:
    """Some are from before there were all of today's settings."""
    paths = list((ROOT / "docs" / "results").glob("*/results.json"))
    assert len(paths) > 10
    for path in paths:
        experiment = json.loads(path.read_text())["experiment"]
        entry: Any = results.load(path, experiment)["methods"]["maml"]
        own = (rl_table if entry["domain"] == "control" else image_table).published(entry, "maml")
        assert (own is None) == ("squared-distance" in path.parent.name)


@pytest.mark.parametrize("kind", ["image", "sinusoid", "returns"])
def test_an_experiment_and_methods_that_this_version_does_not_know(tmp_path: Path, kind: str) -> None:
    """Results are read by what they hold; their methods are drawn, each in its own colour and under its own name."""
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
    path, entries = (
        tmp_path / "results.json",
        {"image": image_entry(0.9), "sinusoid": entry(0.6), "returns": rl_entry()},
    )
    methods = ("maml", "new", "newer")
    for method in methods:
        results.merge(path, "of-my-own", method, entries[kind])
    found = results.load(path, "of-my-own")
    modules: dict[str, Any] = {"image": image_plots, "sinusoid": sinusoid_plots, "returns": rl_plots}
    tables: dict[str, Any] = {"image": image_table, "sinusoid": sinusoid_table, "returns": rl_table}
    assert all(results.name_of(method) in tables[kind].table(found) for method in methods)
    name = {"image": "error", "sinusoid": "figure3", "returns": "returns"}[kind]
    figure = modules[kind].PICTURES[name](pyplot, found)
    legends = [*figure.legends, *[axes.get_legend() for axes in figure.axes if axes.get_legend()]]
    labels = [text.get_text() for legend in legends for text in legend.get_texts()]
    assert all(any(label.startswith(results.name_of(method)) for label in labels) for method in methods)
    assert len({plots.colours(found)[method] for method in methods}) == 3
    pyplot.close(figure)


def test_the_results_are_of_one_experiment(path: Path) -> None:
    with pytest.raises(results.ResultsError, match="is of omniglot-5way-1shot, not of omniglot-5way-5shot"):
        results.merge(path, "omniglot-5way-5shot", "maml", image_entry(0.99))
    before = path.read_bytes()
    for name in ("metric", "parameters"):
        incomplete = image_entry(0.9)
        del incomplete[name]
        with pytest.raises(results.ResultsError, match=f"cannot hold the entry of maml: maml has no {name}"):
            results.merge(path, NAME, "maml", incomplete)
    assert path.read_bytes() == before
    found = json.loads(before)
    del found["methods"]["maml"]["parameters"]
    path.write_text(json.dumps(found))
    with pytest.raises(results.ResultsError, match="is damaged: maml has no parameters"):
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
    assert [picture.name for picture in drawn] == ["error.png", "training.png"][: 1 + trained]
    for picture in drawn:
        check_picture(picture)


def test_an_evaluation_of_one_task_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
    entry = image_entry(0.9, best=False)
    for figures in entry["parameters"]["last"]["figures"].values():
        figures["half_width"] = [None] * 11
    results.merge(tmp_path / "results.json", NAME, "maml", entry)
    assert len(plots.draw_all(tmp_path, NAME, image_plots.PICTURES)) == 1
    assert "±" not in image_table.table(results.load(tmp_path / "results.json", NAME)).split("98.7 ± 0.4")[1]
