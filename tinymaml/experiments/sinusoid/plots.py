"""The paper's figures 2, 3, 6 and 7, drawn from the results of the sinusoid experiment."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np

from tinymaml.train import results
from tinymaml.train.plots import Picture, colours, methods_in

TRUTH, POINTS, ADAPTED = "#222222", "#882255", "#0072B2"
STEPS = {0: ("before adaptation", "#BBBBBB", ":"), 1: ("after 1 step", "#56B4E9", "--")}


def _best_apart(entry: results.SinusoidEntry) -> results.Best | None:
    """The parameters best in validation, unless they are the last ones."""
    best = entry["best"]
    return None if best is None or best["iteration"] == entry["iterations"] else best


def _curve(axes: Any, entry: results.SinusoidEntry, shots: str, method: str, colour: str) -> None:
    """Mean and 95 % interval over the tasks that did not diverge, against inner steps; dotted: best in validation."""

    def values(numbers: Iterable[float | None]) -> Any:
        return np.array([np.nan if number is None else number for number in numbers], float)

    figures, name = entry["shots"][shots], results.name_of(method)
    mean, width = values(figures["mean_converged"]), values(figures["half_width_converged"])
    steps = np.arange(len(mean))
    look = {"linestyle": (0, (3, 1.5)), "zorder": 3} if method == "fomaml" else {"marker": "o", "markersize": 3.5}
    axes.plot(steps, mean, color=colour, label=name, clip_on=False, **look)  # on the axis, whole: the oracle
    axes.fill_between(steps, mean - width, mean + width, color=colour, alpha=0.18, linewidth=0)
    best = _best_apart(entry) if method == "maml" else None
    if best is not None and shots in best["shots"]:
        mean = values(best["shots"][shots]["mean_converged"])
        axes.plot(steps, mean, color=colour, linestyle=":", linewidth=1.2, label=f"{name}, best in validation")


def _panel(axes: Any, found: results.Results, shots: str, methods: list[str]) -> None:
    for method in methods:
        if shots in found["methods"][method]["shots"]:
            _curve(axes, found["methods"][method], shots, method, colours(found)[method])
    axes.set_title(f"K = {shots} support points")
    axes.set_xlabel("inner steps")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)


def _note(figure: Any, found: results.Results, methods: list[str], shots: list[str]) -> None:
    """Says how many tasks a curve leaves out."""
    curves = {results.name_of(m): found["methods"][m]["shots"] for m in methods}
    best = _best_apart(found["methods"]["maml"]) if "maml" in methods else None
    if best is not None:
        curves["MAML, best in validation"] = best["shots"]
    counts = {name: [c[k]["diverged"] if k in c else 0 for k in shots] for name, c in curves.items()}
    listed = "; ".join(f"{name} {' / '.join(map(str, n))}" for name, n in counts.items() if any(n))
    if listed:
        tasks = found["methods"][methods[0]]["protocol"]["tasks"]
        text = f"Left out: tasks whose inner steps diverged, of {tasks} (K = {' / '.join(shots)}): {listed}"
        text = textwrap.fill(text, int(17 * figure.get_figwidth()))
        figure.text(0.5, -0.03, text, ha="center", va="top", fontsize=7, color="#555555", linespacing=1.4)


def _figure3(plt: Any, found: results.Results) -> Any:
    """Figure 3: error against inner steps with 10 points."""
    methods = [m for m in methods_in(found) if "10" in found["methods"][m]["shots"]]
    if not methods:
        return None
    figure, axes = plt.subplots(figsize=(4.6, 3.1), layout="constrained")
    _panel(axes, found, "10", methods)
    axes.set_ylabel("mean squared error")
    axes.legend()
    _note(figure, found, methods, ["10"])
    return figure


def _figure6(plt: Any, found: results.Results) -> Any:
    """Figure 6: the same for every number of support points evaluated."""
    methods = methods_in(found)
    shots = sorted({k for m in methods for k in found["methods"][m]["shots"]}, key=int)
    if not shots:
        return None
    figure, row = plt.subplots(
        1, len(shots), figsize=(3 * len(shots), 2.9), sharey=True, layout="constrained", squeeze=False
    )
    for axes, k in zip(row[0], shots, strict=True):
        _panel(axes, found, k, methods)
    row[0][0].set_ylabel("mean squared error")
    handles = {label: h for axes in row[0] for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=len(handles))
    _note(figure, found, methods, shots)
    return figure


def _sketch(axes: Any, one: results.Sketch) -> None:
    """One task: the truth, the support points, the network before and after inner steps."""
    x = np.array(one["x"])
    axes.plot(x, one["amplitude"] * np.sin(x - one["phase"]), color=TRUTH, linewidth=1.2, label="ground truth")
    for steps in sorted(one["steps"], key=int):
        label, colour, line = STEPS.get(int(steps), (f"after {steps} steps", ADAPTED, "-"))
        axes.plot(x, np.array(one["steps"][steps], float), color=colour, linestyle=line, label=label)  # None: a gap
    look: dict[str, Any] = {"color": POINTS, "markersize": 5, "clip_on": False, "zorder": 3}
    axes.plot(one["support_x"], one["support_y"], "^", label="support points", **look)
    axes.set_ylim(-6, 6)
    axes.set_xlim(x[0], x[-1])
    axes.set_xticks(np.linspace(x[0], x[-1], 3))


def _sketches(found: results.Results, method: str, shots: int, tasks: list[int]) -> list[results.Sketch]:
    """Of those tasks; fewer, where fewer were kept."""
    kept = [one for one in found["methods"][method]["qualitative"] if one["shots"] == shots]
    return [kept[t] for t in tasks if t < len(kept)]


def _grid(plt: Any, found: results.Results, tasks: list[int], shots: list[int], title: str) -> Any:
    """Rows of numbers of shots; columns of tasks, first all of MAML's, then all of the pretrained network's."""
    columns = [(m, t) for m in methods_in(found, "maml", "pretrained") for t in tasks]
    columns = [(m, t) for m, t in columns if any(_sketches(found, m, k, [t]) for k in shots)]
    rows = [k for k in shots if any(_sketches(found, m, k, [t]) for m, t in columns)]
    if not rows:
        return None
    figure = plt.figure(figsize=(2.05 * len(columns) + 0.4, 1.75 * len(rows) + 0.8), layout="constrained")
    cells = figure.subplots(len(rows), len(columns), sharex=True, sharey=True, squeeze=False)
    handles: dict[str, Any] = {}
    for row, k in zip(cells, rows, strict=True):
        for axes, (method, t) in zip(row, columns, strict=True):
            for one in _sketches(found, method, k, [t]):
                _sketch(axes, one)
            handles |= {label: h for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        row[0].set_ylabel(f"K = {k}")
    for axes, (method, t) in zip(cells[0], columns, strict=True):
        axes.set_title(f"{results.name_of(method)}, task {t + 1}", color=colours(found)[method])
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles), fontsize=8.5)
    figure.suptitle(title, fontsize=10)
    return figure


def _figure2(plt: Any, found: results.Results) -> Any:
    """Figure 2: adaptation to a new sinusoid with 5 and 10 points; MAML left, pretrained right."""
    return _grid(plt, found, [0, 1], [5, 10], "Adaptation to new sinusoids")


def _figure7(plt: Any, found: results.Results) -> Any:
    """Figure 7: further tasks, as they come."""
    return _grid(plt, found, [3, 4, 5], [5, 10, 20], "Further test tasks, as they come")


PICTURES: dict[str, Picture] = {"figure2": _figure2, "figure3": _figure3, "figure6": _figure6, "figure7": _figure7}
