"""Pictures of a run, drawn from its results.json and metrics; the training curve, which every experiment has."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tinymaml.tasks.extras import require
from tinymaml.train import metrics, results
from tinymaml.train.files import atomic_write

# Okabe and Ito's palette, which the colour-blind can tell apart.
COLOURS = {"maml": "#0072B2", "fomaml": "#CC79A7", "pretrained": "#D55E00", "random": "#999999", "oracle": "#009E73"}
_OTHERS = ("#E69F00", "#56B4E9", "#F0E442", "#000000")  # of methods that this version does not know

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


Picture = Callable[[Any, results.Results], Any]  # (matplotlib.pyplot, results) -> a figure, or None


def draw_all(run: Path, experiment: str, pictures: Mapping[str, Picture]) -> list[Path]:
    """Write `run/figures/*.png`; a picture whose methods were not evaluated is left out.

    Args:
        experiment: what the run is of.
        pictures: that experiment's own, by name.

    Raises:
        MissingExtra: matplotlib is not installed.
        ResultsError: there is no results.json, or it is not one, or of another experiment.
    """
    found = results.load(run / "results.json", experiment)
    matplotlib = require("matplotlib", "train")
    matplotlib.use("Agg")
    plt = require("matplotlib.pyplot", "train")
    folder = run / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with plt.rc_context(STYLE):
        for name, draw in (*pictures.items(), ("training", lambda plt, found: _training(plt, found, run))):
            try:
                figure = draw(plt, found)
                if figure is not None:
                    paths.append(folder / f"{name}.png")
                    buffer = io.BytesIO()
                    figure.savefig(buffer)
                    atomic_write(paths[-1], buffer.getvalue())
            except (ValueError, ArithmeticError) as error:  # figures that are numbers, but beyond what can be drawn
                raise results.ResultsError(f"{run / 'results.json'} cannot be drawn, {name}: {error}") from error
            finally:
                plt.close("all")
    return paths


def methods_in(found: results.Results, *names: str) -> list[str]:
    """Those of the methods, or of all, that were evaluated."""
    known = [method for method, _ in results.entries(found)]
    return [name for name in names or known if name in known]


def colours(found: results.Results) -> dict[str, str]:
    """The colour of each method that was evaluated."""
    others = [method for method in methods_in(found) if method not in COLOURS]
    return COLOURS | {method: _OTHERS[i % len(_OTHERS)] for i, method in enumerate(others)}


def _training(plt: Any, found: results.Results, run: Path) -> Any:
    """The training loss of every method; where there is one, accuracy in training and validation beside it. Of
    reinforcement learning the returns."""
    lines = {method: metrics.read(run / method / "metrics.jsonl") for method in methods_in(found)}
    if any("return_0" in line for own in lines.values() for line in own):
        return _training_returns(plt, lines, colours(found))
    panels = [name for name in ("loss", "accuracy") if any(_series(own, name)[0] for own in lines.values())]
    if not panels:
        return None
    look = colours(found)
    figure, row = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.1), layout="constrained", squeeze=False)
    for axes, name in zip(row[0], panels, strict=True):
        for method, own in lines.items():
            axes.plot(*_series(own, name), color=look[method], label=results.name_of(method), linewidth=1.2)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}".replace(",", " "))
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel("iteration")
    row[0][0].set_yscale("log")
    row[0][0].set_ylabel("training loss (MAML: of the query set)")
    if "accuracy" in panels:
        for method, own in lines.items():
            dots = {"color": look[method], "marker": "o", "markersize": 2.5, "linewidth": 0.8, "linestyle": ":"}
            name = f"{results.name_of(method)}, validation"
            row[0][1].plot(*_series(own, "validation_accuracy"), label=name, **dots)
        row[0][1].set_ylabel("accuracy")
    handles = {label: h for h, label in zip(*row[0][-1].get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=4, fontsize=8)
    return figure


def _training_returns(plt: Any, lines: dict[str, list[dict[str, Any]]], look: dict[str, str]) -> Any:
    """Before and after the inner steps of training: thin, every line of the log; thick, the mean of 20 iterations."""
    figure, axes = plt.subplots(figsize=(4.6, 3.1), layout="constrained")
    for method, own in lines.items():
        steps = [k for k in range(10) if _series(own, f"return_{k}")[0]]
        for k in steps:
            iterations, values = _series(own, f"return_{k}")
            line = "-" if k == steps[-1] else ":"
            axes.plot(iterations, values, line, color=look[method], alpha=0.3, linewidth=0.7)
            width = max(1, 20 * len(values) // iterations[-1])
            smooth = [sum(values[i - width : i]) / width for i in range(width, len(values) + 1)]
            name = results.name_of(method)
            if len(steps) > 1:
                name += f", after {k} step{'s' * (k != 1)}"
            axes.plot(iterations[width - 1 :], smooth, line, color=look[method], linewidth=1.4, label=name)
    axes.set_xlim(left=0)
    axes.set_xlabel("iteration")
    axes.set_ylabel("return in training")
    figure.legend(loc="outside upper center", ncols=2, fontsize=8)
    return figure


def _series(lines: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Iterations and values of a figure, where there is one."""
    found = [(line["iteration"], line[name]) for line in lines if line.get(name) is not None]
    return [i for i, _ in found], [value for _, value in found]
