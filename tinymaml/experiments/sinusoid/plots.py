"""The paper's figures 2, 3, 6 and 7, drawn from the results of the sinusoid experiment."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinymaml.autodiff.tensor import Array
from tinymaml.experiments.sinusoid.table import COMPARED, PAPER_STEPS, Details, Protocol, Sketch, condition, published
from tinymaml.train import plots, results
from tinymaml.train.plots import Picture, colours, methods_in
from tinymaml.train.results import Figures, Measured, Results

# Colours of no method: of the truth, its support points, and the network after ever more steps.
TRUTH, POINTS, ADAPTED = "#222222", "#AA4499", "#332288"
STEPS = {0: ("before adaptation", "#C3BCE0", ":"), 1: ("after 1 step", "#7A6FB5", "--")}


def _checked(draw: Picture) -> Picture:
    """A picture that holds the results to what it reads of them."""

    def draw_checked(plt: Any, content: Results) -> Any:
        results.check_domain(content, Protocol, Details)
        return draw(plt, content)

    return draw_checked


def _last(entry: Any) -> dict[str, Figures]:
    figures: dict[str, Figures] = entry["parameters"][results.LAST]["figures"]
    return figures


def _best_apart(entry: Any) -> Measured | None:
    """The parameters best in validation, unless they are the last ones."""
    best: Measured | None = entry["parameters"].get(results.BEST_IN_VALIDATION)
    return None if best is None or best["iteration"] == entry["iterations"] else best


def _converged(figures: Figures) -> Figures:
    """Of the tasks that did not diverge, where that is known."""
    mean = figures.get("mean_converged", figures["mean"])
    return {"mean": mean, "half_width": figures.get("half_width_converged", figures["half_width"])}


def _panel(axes: Any, content: Results, label: str, methods: list[str]) -> list[Array]:
    """Mean and 95 % interval over the tasks that did not diverge, against inner steps; dotted: best in validation;
    crosses: the paper's."""
    shown = []
    for method in methods:
        entry, colour, name = content["methods"][method], colours(content)[method], results.name_of(method)
        if label not in _last(entry):
            continue
        look = {"linestyle": (0, (3, 1.5)), "marker": None, "zorder": 3} if method == "fomaml" else {}
        shown.append(plots.curve(axes, entry, _converged(_last(entry)[label]), colour, name, **look))
        best = _best_apart(entry) if method == "maml" else None
        if best is not None and label in best["figures"]:
            mean = plots.drawn(entry, _converged(best["figures"][label])["mean"])
            legend = f"{name}, best in validation"
            axes.plot(np.arange(len(mean)), mean, color=colour, linestyle=":", linewidth=1.2, label=legend)
            shown.append(mean)
        paper = published(entry, method)
        if paper is not None and label == COMPARED:
            plots.crosses(axes, PAPER_STEPS, paper, [None] * len(paper), colour, f"{name}, paper")
    axes.set_title(label)
    plots.inner_steps(axes)
    return shown


def _note(figure: Any, content: Results, methods: list[str], labels: list[str]) -> None:
    """Says how many tasks a curve leaves out."""
    curves = {results.name_of(m): _last(content["methods"][m]) for m in methods}
    best = _best_apart(content["methods"]["maml"]) if "maml" in methods else None
    if best is not None:
        curves["MAML, best in validation"] = best["figures"]
    counts = {name: [c[k].get("diverged", 0) if k in c else 0 for k in labels] for name, c in curves.items()}
    listed = "; ".join(f"{name} {' / '.join(map(str, n))}" for name, n in counts.items() if any(n))
    if listed:
        tasks = content["methods"][methods[0]]["protocol"]["tasks"]
        text = f"Left out: tasks whose inner steps diverged, of {tasks} ({' / '.join(labels)}): {listed}"
        text = textwrap.fill(text, int(17 * figure.get_figwidth()))
        figure.text(0.5, -0.03, text, ha="center", va="top", fontsize=7, color="#555555", linespacing=1.4)


def _errors(plt: Any, content: Results, labels: Sequence[str]) -> Any:
    """Error against inner steps, a panel for each of these conditions that was evaluated."""
    methods = [m for m in methods_in(content) if any(label in _last(content["methods"][m]) for label in labels)]
    labels = [label for label in labels if any(label in _last(content["methods"][m]) for m in methods)]
    if not labels:
        return None
    figure, row = plt.subplots(
        1,
        len(labels),
        figsize=(max(4.6, 3 * len(labels)), 3.1),
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    shown: list[Array] = []
    for axes, label in zip(row[0], labels, strict=True):
        shown += _panel(axes, content, label, methods)
    row[0][0].set_ylabel("mean squared error")
    plots.log_where_decades(row[0], shown)
    plots.legend_above(figure, row[0], 2 + len(labels))
    _note(figure, content, methods, list(labels))
    return figure


def _figure3(plt: Any, content: Results) -> Any:
    """Figure 3: error against inner steps with 10 points."""
    return _errors(plt, content, [condition(10)])


def _figure6(plt: Any, content: Results) -> Any:
    """Figure 6: the same for every number of support points evaluated."""
    labels = [label for method in methods_in(content) for label in _last(content["methods"][method])]
    return _errors(plt, content, list(dict.fromkeys(labels)))


def _sketch(axes: Any, one: Sketch) -> None:
    """One task: the truth, the support points, the network before and after inner steps."""
    x = np.array(one["x"])
    axes.plot(x, one["amplitude"] * np.sin(x - one["phase"]), color=TRUTH, linewidth=1.2, label="ground truth")
    for steps in sorted(one["steps"], key=int):
        label, colour, line = STEPS.get(int(steps), (f"after {steps} steps", ADAPTED, "-"))
        axes.plot(x, plots.values(one["steps"][steps]), color=colour, linestyle=line, label=label)  # None: a gap
    look: dict[str, Any] = {"color": POINTS, "markersize": 5, "clip_on": False, "zorder": 3}
    axes.plot(one["support_x"], one["support_y"], "^", label="support points", **look)
    axes.set_ylim(-6, 6)
    axes.set_xlim(x[0], x[-1])
    axes.set_xticks(np.linspace(x[0], x[-1], 3))


def _sketches(content: Results, method: str, shots: int, tasks: list[int]) -> list[Sketch]:
    """Of those tasks; fewer, where fewer were kept."""
    kept = [one for one in content["methods"][method]["details"]["sketches"] if one["shots"] == shots]
    return [kept[t] for t in tasks if t < len(kept)]


def _grid(plt: Any, content: Results, tasks: list[int], shots: list[int], title: str) -> Any:
    """Rows of numbers of shots; columns of tasks, first all of MAML's, then all of the pretrained network's."""
    columns = [(m, t) for m in methods_in(content, "maml", "pretrained") for t in tasks]
    columns = [(m, t) for m, t in columns if any(_sketches(content, m, k, [t]) for k in shots)]
    rows = [k for k in shots if any(_sketches(content, m, k, [t]) for m, t in columns)]
    if not rows:
        return None
    figure = plt.figure(figsize=(2.05 * len(columns) + 0.4, 1.75 * len(rows) + 0.8), layout="constrained")
    cells = figure.subplots(len(rows), len(columns), sharex=True, sharey=True, squeeze=False)
    handles: dict[str, Any] = {}
    for row, k in zip(cells, rows, strict=True):
        for axes, (method, t) in zip(row, columns, strict=True):
            for one in _sketches(content, method, k, [t]):
                _sketch(axes, one)
            handles |= {label: h for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        row[0].set_ylabel(f"y, {condition(k)}")
    for axes in cells[-1]:
        axes.set_xlabel("x")
    for axes, (method, t) in zip(cells[0], columns, strict=True):
        axes.set_title(f"{results.name_of(method)}, task {t + 1}", color=colours(content)[method])
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles), fontsize=8.5)
    figure.suptitle(title, fontsize=10)
    return figure


def _figure2(plt: Any, content: Results) -> Any:
    """Figure 2: adaptation to a new sinusoid with 5 and 10 points; MAML left, pretrained right."""
    return _grid(plt, content, [0, 1], [5, 10], "Adaptation to new sinusoids")


def _figure7(plt: Any, content: Results) -> Any:
    """Figure 7: further tasks, as they come."""
    return _grid(plt, content, [3, 4, 5], [5, 10, 20], "Further test tasks, as they come")


PICTURES: dict[str, Picture] = {
    name: _checked(draw)
    for name, draw in (("figure2", _figure2), ("figure3", _figure3), ("figure6", _figure6), ("figure7", _figure7))
}
