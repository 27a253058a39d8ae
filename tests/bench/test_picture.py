"""The bench's picture is drawn from a file of results."""

import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench.output import read_json, write_json
from bench.picture import picture

RESULTS = Path(__file__).parents[2] / "bench/results/2026-11-23-frameworks-2-cores.json"
MACHINE = {"processor": "A processor", "cores": 3}


def row(implementation, median, workload="W1", order=2, floor=0.5, **more):
    spread = {"median_ms": median, "low_ms": 0.9 * median, "high_ms": 1.3 * median, "floor_ms": floor}
    of = {"part": "frameworks", "workload": workload, "order": order, "implementation": implementation}
    return {**of, **spread, **more}


@pytest.fixture(autouse=True)
def matplotlib():
    return pytest.importorskip("matplotlib", reason="the picture needs matplotlib: pip install 'tinymaml[train]'")


def panels(figure):
    return [axis for axis in figure.axes if axis.get_visible()]


def labels(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def assert_no_ticks_collide(figure):
    figure.draw_without_rendering()
    for axis in panels(figure):
        shown = [text for text in axis.get_xticklabels() + axis.get_xticklabels(minor=True) if text.get_text()]
        boxes = sorted([text.get_window_extent() for text in shown], key=lambda box: box.x0)
        assert len(boxes) >= 2, "a scale of one number is none"
        assert all(one.x1 < other.x0 for one, other in pairwise(boxes))


def test_from_the_results_that_are_committed():
    machine, rows = read_json(RESULTS)
    figure = picture(machine, rows)
    assert figure.get_suptitle() == "A meta-step on Intel(R) Xeon(R) Processor, 2 cores"
    titles = [axis.get_title() for axis in panels(figure)]
    assert len(titles) == 10
    assert titles[0] == "Sinusoids, MLP 1-40-40-1, 10 support and 10 query points; 25 tasks\nsecond order, 1 inner step"
    assert titles[7] == "Omniglot 20-way 1-shot, 1 query image a class; 16 tasks\nfirst order, 5 inner steps"
    assert_no_ticks_collide(picture(machine, [row for row in rows if row.get("workload") == "W3"]))


def test_a_panel():
    rows = [row("tinymaml-replay", 2.0), row("jax-plain", 1234.5), row("tinymaml-eager", 24.0)]
    figure = picture(MACHINE, rows)
    (axis,) = panels(figure)
    assert axis.get_xscale() == "log" and not axis.patches, "points, no bars: an axis of logarithms has no zero"
    figure.draw_without_rendering()
    assert labels(axis.yaxis) == ["tinymaml-replay", "tinymaml-eager", "jax-plain"]  # the fastest first
    (factors,) = axis.child_axes
    assert labels(factors.yaxis) == ["2 ms   × 1", "24 ms   × 12", "1230 ms   × 620"]
    lines = {tuple(map(float, line.get_xdata())): line for line in axis.lines}
    assert {(2.0,), (24.0,), (1234.5,), (1.8, 2.6), (0.9 * 24, 1.3 * 24), (0.5, 0.5)} <= set(lines)
    assert lines[2.0,].get_color() == lines[24.0,].get_color() != lines[1234.5,].get_color()
    assert figure.get_suptitle() == "A meta-step on A processor, 3 cores"


@pytest.mark.parametrize("top", [1.2, 3.0, 40.0, 900.0, 1500.0, 1e6])
def test_ticks_do_not_collide_over_any_range(top):
    rows = [row(name, ms, order=order) for order in (1, 2) for name, ms in (("tinymaml", 0.97), ("torch", top))]
    assert_no_ticks_collide(picture(MACHINE, rows))


def test_precisions_of_a_gpu_have_panels_of_their_own_and_a_new_workload_its_name():
    rows = [row(f"torch-{p}", 3.0, "W9", precision=p, floor=floor) for p, floor in (("fp32", 0.5), ("tf32", 0.25))]
    figure = picture({"gpu": "NVIDIA H200"}, rows)
    assert figure.get_suptitle() == "A meta-step on NVIDIA H200"
    assert [axis.get_title() for axis in panels(figure)] == ["W9\nsecond order, FP32", "W9\nsecond order, TF32"]
    assert [axis.lines[-1].get_xdata()[0] for axis in panels(figure)] == [0.5, 0.25]


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_command(ending, monkeypatch, tmp_path):
    results, drawn = tmp_path / "found.json", tmp_path / f"found.{ending}"
    write_json(results, MACHINE, [{"part": "installed"}, row("tinymaml-replay", 2.0)])
    monkeypatch.setattr(sys, "argv", ["bench", "picture", str(results), str(drawn)])
    assert bench.main() == 0
    assert {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending] == drawn.read_bytes()[: 4 + (ending == "svg")]
    assert {path.name for path in tmp_path.iterdir()} == {results.name, drawn.name}


@pytest.mark.parametrize("content", ["", "[]", '{"rows": []}', '{"machine": {}, "rows": 1}'])
def test_what_is_no_results_is_refused(content, tmp_path):
    path = tmp_path / "found.json"
    path.write_text(content)
    with pytest.raises(SystemExit, match=r"found\.json holds no results of the bench"):
        read_json(path)
    with pytest.raises(SystemExit, match="No such file"):
        read_json(tmp_path / "none.json")


def test_without_the_part_frameworks():
    with pytest.raises(SystemExit, match="the picture is of the part frameworks, which did not run"):
        picture(MACHINE, [{"part": "installed"}, {"part": "frameworks", "failed": "no time left"}])


def test_the_file_has_what_was_written(tmp_path):
    path = tmp_path / "found.json"
    write_json(path, MACHINE, [row("jax", 1.5)])
    assert read_json(path) == (MACHINE, json.loads(path.read_text())["rows"])
