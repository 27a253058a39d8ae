"""The paper's figures 2, 3, 6 and 7 and the training curve, drawn from a run's results.json and metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tinymaml.train import metrics, results
from tinymaml.train.extras import require

# Okabe and Ito's palette, which the colour-blind can tell apart.
COLOURS = {"maml": "#0072B2", "fomaml": "#56B4E9", "pretrained": "#D55E00", "oracle": "#009E73"}
TRUTH, POINTS, ADAPTED = "#222222", "#882255", "#0072B2"
STEPS = {0: ("before adaptation", "#BBBBBB", ":"), 1: ("after 1 step", "#56B4E9", "--")}

STYLE = {
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "savefig.bbox": "tight",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


def draw_all(run: Path) -> list[Path]:
    """Write `run/figures/*.png`; a picture whose methods were not evaluated is left out.

    Raises:
        MissingExtra: matplotlib is not installed.
        ResultsError: there is no results.json, or it is not one.
    """
    found = results.load(run / "results.json")
    matplotlib = require("matplotlib", "train")
    matplotlib.use("Agg")
    plt = require("matplotlib.pyplot", "train")
    folder = run / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with plt.rc_context(STYLE):
        for name, draw in (
            ("figure2", _figure2),
            ("figure3", _figure3),
            ("figure6", _figure6),
            ("figure7", _figure7),
            ("training", lambda plt, found: _training(plt, found, run)),
        ):
            figure = draw(plt, found)
            if figure is not None:
                paths.append(folder / f"{name}.png")
                figure.savefig(paths[-1])
                plt.close(figure)
    return paths


def _methods(found: results.Results, *names: str) -> list[str]:
    return [name for name in names or COLOURS if name in found["methods"]]


def _curve(axes: Any, entry: dict[str, Any], shots: str, method: str) -> None:
    """Mean and 95 % interval over the tasks that did not diverge, against inner steps; dashed: best in validation."""

    def values(figures: dict[str, Any], key: str) -> Any:
        return np.array([np.nan if value is None else value for value in figures[shots][key]], float)

    mean, width = values(entry["shots"], "mean_converged"), values(entry["shots"], "half_width_converged")
    steps, name = np.arange(len(mean)), results.NAMES[method]
    axes.plot(steps, mean, color=COLOURS[method], marker="o", markersize=3, label=name)
    axes.fill_between(steps, mean - width, mean + width, color=COLOURS[method], alpha=0.18, linewidth=0)
    if method == "maml" and entry["best"] is not None:
        best = values(entry["best"]["shots"], "mean_converged")
        axes.plot(steps, best, color=COLOURS[method], linestyle="--", linewidth=1, label=f"{name}, best in validation")


def _panel(axes: Any, found: results.Results, shots: str, methods: list[str]) -> None:
    for method in methods:
        _curve(axes, found["methods"][method], shots, method)
    axes.set_title(f"K = {shots} support points")
    axes.set_xlabel("inner steps")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)


def _note(figure: Any, found: results.Results, methods: list[str], shots: list[str]) -> None:
    """Says what a curve leaves out."""
    counts = [
        f"{results.NAMES[m]} K = {k}: {found['methods'][m]['shots'][k]['diverged']}"
        for m in methods
        for k in shots
        if found["methods"][m]["shots"][k]["diverged"]
    ]
    if counts:
        text = f"Without tasks whose inner steps diverged, of {found['methods'][methods[0]]['protocol']['tasks']}: "
        figure.text(0.5, -0.04, text + "; ".join(counts), ha="center", va="top", fontsize=7, color="#555555")


def _figure3(plt: Any, found: results.Results) -> Any:
    """Figure 3: error against inner steps with 10 points."""
    methods = _methods(found)
    if not methods or any("10" not in found["methods"][m]["shots"] for m in methods):
        return None
    figure, axes = plt.subplots(figsize=(4.6, 3.1), layout="constrained")
    _panel(axes, found, "10", methods)
    axes.set_ylabel("mean squared error")
    axes.legend()
    _note(figure, found, methods, ["10"])
    return figure


def _figure6(plt: Any, found: results.Results) -> Any:
    """Figure 6: the same for every number of support points evaluated."""
    methods = _methods(found)
    shots = sorted({k for m in methods for k in found["methods"][m]["shots"]}, key=int)
    shots = [k for k in shots if all(k in found["methods"][m]["shots"] for m in methods)]
    if not shots:
        return None
    figure, row = plt.subplots(
        1, len(shots), figsize=(3 * len(shots), 2.9), sharey=True, layout="constrained", squeeze=False
    )
    for axes, k in zip(row[0], shots, strict=True):
        _panel(axes, found, k, methods)
    row[0][0].set_ylabel("mean squared error")
    row[0][-1].legend()
    _note(figure, found, methods, shots)
    return figure


def _sketch(axes: Any, one: dict[str, Any]) -> None:
    """One task: the truth, the support points, the network before and after inner steps."""
    x = np.array(one["x"])
    axes.plot(x, one["amplitude"] * np.sin(x - one["phase"]), color=TRUTH, linewidth=1.2, label="ground truth")
    for steps in sorted(one["steps"], key=int):
        label, colour, line = STEPS.get(int(steps), (f"after {steps} steps", ADAPTED, "-"))
        axes.plot(x, np.array(one["steps"][steps], float), color=colour, linestyle=line, label=label)  # None: a gap
    axes.plot(
        one["support_x"], one["support_y"], "^", color=POINTS, markersize=5, linestyle="none", label="support points"
    )
    axes.set_ylim(-6, 6)
    axes.set_xlim(x[0], x[-1])


def _grid(plt: Any, found: results.Results, tasks: list[int], shots: list[int], title: str) -> Any:
    """Rows of methods and numbers of shots, columns of tasks."""
    methods = _methods(found, "maml", "pretrained")
    rows = [(m, k) for m in methods for k in shots if any(q["shots"] == k for q in found["methods"][m]["qualitative"])]
    if not rows:
        return None
    figure, cells = plt.subplots(
        len(rows),
        len(tasks),
        figsize=(2.5 * len(tasks), 1.75 * len(rows) + 0.5),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for row, (method, k) in zip(cells, rows, strict=True):
        sketches = [q for q in found["methods"][method]["qualitative"] if q["shots"] == k]
        for axes, t in zip(row, tasks, strict=True):
            _sketch(axes, sketches[t])
        row[0].set_ylabel(f"{results.NAMES[method]}\nK = {k}")
    handles, labels = cells[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def _figure2(plt: Any, found: results.Results) -> Any:
    """Figure 2: adaptation to a new sinusoid with 5 and 10 points."""
    return _grid(plt, found, [0, 1, 2], [5, 10], "Adaptation to new sinusoids")


def _figure7(plt: Any, found: results.Results) -> Any:
    """Figure 7: further tasks, as they come."""
    return _grid(plt, found, [3, 4, 5], [5, 10, 20], "Further test tasks, as they come")


def _training(plt: Any, found: results.Results, run: Path) -> Any:
    """The training loss of every method."""
    figure, axes = plt.subplots(figsize=(4.6, 3.1), layout="constrained")
    for method in _methods(found):
        lines = [line for line in metrics.read(run / method / "metrics.jsonl") if line.get("loss") is not None]
        axes.plot(
            [line["iteration"] for line in lines],
            [line["loss"] for line in lines],
            color=COLOURS[method],
            label=results.NAMES[method],
            linewidth=1.1,
        )
    axes.set_yscale("log")
    axes.set_xlabel("iteration")
    axes.set_ylabel("training loss (MAML: of the query set)")
    axes.set_ylim(top=3 * axes.get_ylim()[1])
    axes.legend(ncols=2, loc="upper right")
    return figure
