"""Runs side by side, and an experiment over several seeds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cases.results_cases import entry, image_entry, rl_entry, user_entry
from tests.conftest import ROOT
from tinymaml.train import compare, plots, results

DOCS = ROOT / "docs" / "results"


def put(folder: Path, experiment: str, **entries: dict[str, Any]) -> Path:
    for method, one in entries.items():
        results.merge(folder / "results.json", experiment, method, one)
    return folder


def test_runs_side_by_side(tmp_path: Path) -> None:
    folders = [
        put(tmp_path / "short", "oscillators", maml=user_entry(0.6, 3, iterations=50)),
        put(tmp_path / "long", "oscillators", maml=user_entry(0.4, 3), mine=user_entry(0.5)),
    ]
    assert (
        compare.compare(folders)
        == """
root mean squared error, m; new tasks; after inner steps (lower is better)

                            0                1                2                3
short: MAML     0.625 ± 0.070    0.312 ± 0.035    0.208 ± 0.023    0.156 ± 0.017
long: MAML      0.378 ± 0.039    0.189 ± 0.019    0.126 ± 0.013  0.0944 ± 0.0097
long: mine      0.490 ± 0.052

short: MAML: seed 3, 50 iterations, 2 s, 30 test tasks
long: MAML: seed 3, 200 iterations, 2 s, 30 test tasks
long: mine: seed 3, 200 iterations, 2 s, 30 test tasks"""
    )


def test_runs_of_several_domains_that_share_a_metric(tmp_path: Path) -> None:
    own = results.entry(
        domain="waves",
        metric="mean squared error",
        better="lower",
        protocol={"tasks": 4},
        provenance={name: entry(0.6)[name] for name in results.Provenance.__annotations__},
        parameters={results.LAST: results.measured(9, {"new tasks": results.figures(np.ones((2, 4)))})},
    )
    text = compare.compare([put(tmp_path / "a", "sinusoid", maml=entry(0.6)), put(tmp_path / "b", "waves", mine=own)])
    sections = re.findall("^mean squared error; (.*);", text, re.MULTILINE)
    assert sections == ["5 support points", "10 support points", "20 support points", "new tasks"]
    assert "b: mine  1.000 ± 0.000  1.000 ± 0.000" in re.sub("  +", "  ", text)


def test_runs_of_other_metrics_are_refused(tmp_path: Path) -> None:
    folders = [put(tmp_path / "a", "sinusoid", maml=entry(0.6)), put(tmp_path / "b", "navigation", maml=rl_entry())]
    with pytest.raises(
        results.ResultsError, match=r"share a metric.*: .*a/results\.json has mean .*b/results.* return"
    ):
        compare.compare(folders)
    with pytest.raises(results.ResultsError, match=r"none/results\.json is not there"):
        compare.compare([tmp_path / "a", tmp_path / "none"])
    with pytest.raises(ValueError, match="no run to compare"):
        compare.compare([])
    with pytest.raises(ValueError, match="format must be one of png, svg, pdf, got gif"):
        compare.compare(folders, tmp_path / "picture.gif")


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [put(tmp_path / name / "run", "oscillators", maml=user_entry(0.6)) for name in "ab"]
    assert [run.name for run in compare.read(folders)] == [str(folder) for folder in folders]
    assert [run.name for run in compare.read(folders[:1])] == ["run"]


@pytest.mark.parametrize("kind", plots.FORMATS)
def test_the_picture_has_every_run(tmp_path: Path, kind: str) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
    folders = [DOCS / f"navigation-distance-seed-{seed}" for seed in range(3)]
    assert compare.compare(folders, tmp_path / f"picture.{kind}")
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind]
    assert (tmp_path / f"picture.{kind}").read_bytes().startswith(start)
    figure = compare.draw(pyplot, compare.read(folders))
    lines = [line for axes in figure.axes for line in axes.get_lines()]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(lines) == 12
    assert {line.get_color() for line in lines} == {
        plots.COLOURS[m] for m in ("maml", "pretrained", "random", "oracle")
    }
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {
        f"navigation-distance-seed-{seed}: {method}"
        for seed in range(3)
        for method in ("MAML", "pretrained", "random", "oracle")
    }
    pyplot.close(figure)


def test_runs_of_one_method_have_colours_of_their_own(tmp_path: Path) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
    folders = [put(tmp_path / f"run{i}", "oscillators", maml=user_entry(0.6, 2)) for i in range(11)]
    figure = compare.draw(pyplot, compare.read(folders))
    lines = figure.axes[0].get_lines()
    assert len({line.get_color() for line in lines}) == 9
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 11
    pyplot.close(figure)


def seeds(*levels: float, steps: int = 1) -> list[results.Results]:
    return [
        {"format": 2, "experiment": "oscillators", "methods": {"maml": user_entry(level, steps, seed=i)}}
        for i, level in enumerate(levels)
    ]


def test_mean_and_spread_over_seeds_against_plain_numpy() -> None:
    several = seeds(0.5, 0.6, 0.8)
    (row,) = compare.over_seeds(several)
    assert (row.method, row.which, row.seeds) == ("maml", "last", [0, 1, 2])
    figures = [one["methods"]["maml"]["parameters"]["last"]["figures"]["new tasks"] for one in several]
    means = np.array([one["mean"] for one in figures])
    found = row.figures["new tasks"]
    np.testing.assert_allclose(found.mean, means.mean(0))  # type: ignore[arg-type]
    np.testing.assert_allclose(found.deviation, means.std(0, ddof=1))  # type: ignore[arg-type]
    np.testing.assert_allclose(found.half_width, np.mean([one["half_width"] for one in figures], 0))  # type: ignore[arg-type]


def test_the_table_over_seeds() -> None:
    several = seeds(0.5, 0.6, 0.8)
    several[0]["methods"]["mine"] = user_entry(0.4, seed=7)
    assert (
        compare.seeds_table(several)
        == """
oscillators: root mean squared error, m; new tasks; after inner steps (lower is better)

                                    0                      1
MAML (3 seeds)  0.625 ± 0.065 (0.135)  0.313 ± 0.032 (0.068)
mine (1 seed)           0.378 ± 0.039

mean over the seeds ± the mean of their 95 % intervals over tasks
(in brackets: the sample standard deviation over the seeds)
MAML: seeds 0, 1, 2, 200 iterations, 30 test tasks
mine: seed 7, 200 iterations, 30 test tasks"""
    )


def test_a_seed_that_diverged_leaves_no_mean() -> None:
    several = seeds(0.5, 0.6)
    figures = several[1]["methods"]["maml"]["parameters"]["last"]["figures"]["new tasks"]
    figures["mean"][1] = figures["half_width"][1] = None
    (row,) = compare.over_seeds(several)
    assert row.figures["new tasks"].mean[1] is row.figures["new tasks"].deviation[1] is None
    assert re.search(r"MAML \(2 seeds\) .* diverged$", compare.seeds_table(several), re.MULTILINE)


def test_accuracies_over_seeds_are_in_per_cent() -> None:
    several: list[results.Results] = [
        {"format": 2, "experiment": "omniglot", "methods": {"maml": image_entry(0.95, seed=seed)}} for seed in (0, 1)
    ]
    text = compare.seeds_table(several)
    assert "omniglot: accuracy, %; transductive, 1 query; after inner steps (higher is better)" in text
    assert re.search(r"MAML, best in validation \(2 seeds\) .*9\d\.\d\d ± 0\.\d\d \(0\.00\)$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 0}, "maml is there twice with seed 0"),
        ({"iterations": 100}, r"those of maml have iterations \[200, 100\]"),
        ({"protocol": {"tasks": 7}}, r"those of maml have numbers of test tasks \[30, 7\]"),
        ({"metric": "points"}, "those of maml have metrics .*points"),
    ],
)
def test_runs_that_differ_in_more_than_the_seed_are_refused(change: dict[str, Any], message: str) -> None:
    several = seeds(0.5, 0.6)
    several[1]["methods"]["maml"] |= change
    with pytest.raises(results.ResultsError, match=message):
        compare.over_seeds(several)


def test_seeds_are_of_one_experiment() -> None:
    several = seeds(0.5, 0.6)
    several[1]["experiment"] = "waves"
    with pytest.raises(results.ResultsError, match="one experiment, not of oscillators, waves"):
        compare.over_seeds(several)
    with pytest.raises(results.ResultsError, match="one experiment, not of none"):
        compare.over_seeds([])


def test_the_repositorys_own_seeds() -> None:
    several = [results.load(DOCS / f"navigation-distance-seed-{seed}" / "results.json") for seed in range(3)]
    text = compare.seeds_table(several)
    assert re.search(r"MAML, best in validation \(3 seeds\) +-40\.\d ± \d\.\d \(0\.\d\)", text)
