"""The pictures of a run."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cases.results_cases import entry, image_entry, rl_entry, user_entry
from tinymaml.experiments.control import plots as rl_plots
from tinymaml.experiments.few_shot import plots as image_plots
from tinymaml.experiments.sinusoid import plots as sinusoid_plots
from tinymaml.tasks.extras import MissingExtra
from tinymaml.train import plots, results

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


# Of all domains.

DRAWN: dict[str, tuple[dict[str, Any], Mapping[str, plots.Picture]]] = {
    "sinusoid": ({"maml": entry(0.6, 2, True), "oracle": entry(0.004)}, sinusoid_plots.PICTURES),
    "few-shot": ({"maml": image_entry(0.98), "fomaml": image_entry(0.7)}, image_plots.PICTURES),
    "control": ({"maml": rl_entry(-10.0), "oracle": rl_entry(-5.0)}, rl_plots.PICTURES),
    "oscillators": ({"maml": user_entry(0.5, 3), "mine": user_entry(0.4)}, plots.PICTURES),
}


def results_of(domain: str) -> results.Results:
    return {"format": 2, "experiment": domain, "methods": DRAWN[domain][0]}


def write_metrics(run: Path, **of_method: list[dict[str, Any]]) -> None:
    for method, lines in of_method.items():
        (run / method).mkdir(parents=True)
        (run / method / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def pyplot() -> Iterator[Any]:
    yield pytest.importorskip("matplotlib.pyplot", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
    plots.pyplot().close("all")


@pytest.mark.parametrize("domain", DRAWN)
def test_every_axis_has_a_label(domain: str, pyplot: Any) -> None:
    """Of axes that share one the outer."""
    for name, draw in DRAWN[domain][1].items():
        if name == "figure7":  # figure2 of other tasks
            continue
        figure = draw(pyplot, results_of(domain))
        for axes in figure.axes:
            place = axes.get_subplotspec()
            assert axes.get_xlabel() or not place.is_last_row()
            assert axes.get_ylabel() or not place.is_first_col()


@pytest.mark.parametrize(
    ("domain", "picture", "scale"),
    [("sinusoid", "figure6", "log"), ("few-shot", "error", "log"), ("control", "returns", "linear")],
)
def test_errors_that_differ_by_decades_are_on_a_logarithmic_axis(
    domain: str, picture: str, scale: str, pyplot: Any
) -> None:
    figure = DRAWN[domain][1][picture](pyplot, results_of(domain))
    assert {axes.get_yscale() for axes in figure.axes} == {scale}


def test_errors_that_do_not_are_on_a_linear_one(pyplot: Any) -> None:
    for levels in ((0.5, 0.6), (0.0, 0.5), (-100.0, 0.1)):
        _, axes = pyplot.subplots()
        plots.log_where_decades([axes], [np.array(levels), np.array([np.nan])])
        assert axes.get_yscale() == "linear"
    _, axes = pyplot.subplots()
    plots.log_where_decades([axes], [])
    plots.log_where_decades([axes], [np.array([0.0, 0.01, 0.5])])  # what is 0 lies below the axis
    assert axes.get_yscale() == "log"
    assert axes.get_ylim() == (0.005, 0.75)


def test_accuracies_are_drawn_as_errors_in_per_cent_beside_the_published_interval(pyplot: Any) -> None:
    figure = image_plots.PICTURES["error"](pyplot, results_of("few-shot"))
    axes = figure.axes[0]
    assert axes.get_ylabel() == "error, % (100 − accuracy)"
    best = DRAWN["few-shot"][0]["maml"]["parameters"]["best in validation"]["figures"]["transductive, 1 query"]
    lines = {line.get_label(): line for line in axes.get_lines()}
    np.testing.assert_allclose(lines["MAML, transductive"].get_ydata(), 100 - 100 * np.array(best["mean"]))
    (published,) = axes.containers
    point, _, (bars,) = published
    assert (point.get_xdata(), point.get_ydata()) == (3, pytest.approx(1.3))
    assert bars.get_segments()[0][:, 1] == pytest.approx([0.9, 1.7])
    assert point.get_color() == lines["MAML, transductive"].get_color() == plots.COLOURS["maml"]


def test_returns_have_the_authors_intervals(pyplot: Any) -> None:
    (axes,) = rl_plots.PICTURES["returns"](pyplot, results_of("control")).axes
    (published,) = axes.containers
    after_one_step = published[2][0].get_segments()[1]
    assert after_one_step[:, 1] == pytest.approx([-11.68 - 2.2, -11.68 + 2.2])


def test_a_colour_that_is_a_methods_is_nothing_else(pyplot: Any) -> None:
    """Those of the sinusoids' curves are of no method, of the package's or not."""
    figure = sinusoid_plots.PICTURES["figure2"](pyplot, results_of("sinusoid"))
    drawn = {line.get_color() for axes in figure.axes for line in axes.get_lines()}
    assert len(drawn) == 5
    assert not drawn & {*plots.COLOURS.values(), *plots.OTHERS}


def test_any_domain_has_figures_against_steps_and_learning_curves(run: Path) -> None:
    for method, one in DRAWN["oscillators"][0].items():
        results.merge(run / "results.json", "oscillators", method, one)
    lines = [{"iteration": 10 * i, "loss": 1 / i, "seconds": i} for i in range(1, 9)]
    write_metrics(run, maml=[*lines, {"iteration": 80, "validation": 0.3}], mine=[{"iteration": 80, "loss": -1.0}])
    drawn = plots.draw_all(run, "oscillators", plots.PICTURES)
    assert [path.name for path in drawn] == ["steps.png", "training.png"]
    for picture in drawn:
        check_picture(picture)


@pytest.mark.parametrize(("kind", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_other_formats_and_the_same_file_for_the_same_figures(run: Path, kind: str, start: bytes) -> None:
    for method, one in DRAWN["oscillators"][0].items():
        results.merge(run / "results.json", "oscillators", method, one)
    found = []
    for _ in range(2):
        (path,) = plots.draw_all(run, "oscillators", plots.PICTURES, kind)
        assert path.name == f"steps.{kind}"
        found.append(path.read_bytes())
    assert found[0].startswith(start)
    assert found[0] == found[1]


def test_an_unknown_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format must be one of png, svg, pdf, got gif"):
        plots.draw_all(tmp_path, "sinusoid", {}, "gif")


def test_what_a_picture_misses_is_named(run: Path) -> None:
    one = entry(0.6)
    one["details"] = {}
    results.merge(run / "results.json", "sinusoid", "maml", one)
    with pytest.raises(results.ResultsError, match=r"results\.json cannot be drawn, figure2: .* details has no sk"):
        plots.draw_all(run, "sinusoid", sinusoid_plots.PICTURES)
