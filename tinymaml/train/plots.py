"""Pictures of a run, drawn from its results.json and metrics: what the domains' pictures share, and pictures for any.

One colour is one method, in every picture; a cross is a figure published elsewhere; of a line's style the legend says
what it means.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinymaml.autodiff.tensor import Array
from tinymaml.train import metrics, results
from tinymaml.train.extras import require
from tinymaml.train.files import atomic_write
from tinymaml.train.results import Figures, Results

# Okabe and Ito's palette, which the colour-blind can tell apart.
COLOURS = {"maml": "#0072B2", "fomaml": "#CC79A7", "pretrained": "#D55E00", "random": "#999999", "oracle": "#009E73"}
OTHERS = ("#E69F00", "#56B4E9", "#F0E442", "#000000")  # of methods that this version does not know

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
    "svg.hashsalt": "tinymaml",  # the same file for the same figures
}
FORMATS = ("png", "svg", "pdf")
_UNDATED: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}

Picture = Callable[[Any, Results], Any]  # (matplotlib.pyplot, results) -> a figure, or None


def draw_all(
    run: Path,
    experiment: str,
    pictures: Mapping[str, Picture],
    format: str = "png",  # noqa: A002  # as the option is called
) -> list[Path]:
    """Write `run/figures/*`; a picture whose methods were not evaluated is left out.

    Args:
        experiment: what the run is of.
        pictures: of that experiment's domain, by name; the training curve comes with them.
        format: "png", "svg" or "pdf".

    Raises:
        MissingExtra: matplotlib is not installed.
        ResultsError: there is no results.json, or it is not one, or of another experiment.
        ValueError: another format.
    """
    check_format(format)
    content = results.load(run / "results.json", experiment)
    plt = pyplot()
    paths = []
    for name, draw in (*pictures.items(), ("training", lambda plt, content: _training(plt, content, run))):
        path = run / "figures" / f"{name}.{format}"
        try:
            if save(plt, draw, content, path):
                paths.append(path)
        except (ValueError, ArithmeticError) as error:  # figures that are numbers, but beyond what can be drawn
            raise results.ResultsError(f"{run / 'results.json'} cannot be drawn, {name}: {error}") from error
    return paths


def check_format(name: str) -> None:
    """Raises ValueError if it is none of FORMATS."""
    if name not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {name}")


def pyplot() -> Any:
    """matplotlib.pyplot, without a window. Raises MissingExtra if it is not installed."""
    require("matplotlib", "train").use("Agg")
    return require("matplotlib.pyplot", "train")


def save(plt: Any, draw: Callable[[Any, Any], Any], content: Any, path: Path) -> bool:
    """Write what `draw(plt, content)` makes, in the format that the path ends with; whether it made something."""
    kind = path.suffix.removeprefix(".")
    with plt.rc_context(STYLE):
        try:
            figure = draw(plt, content)
            if figure is None:
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=_UNDATED[kind])
            atomic_write(path, buffer.getvalue())
        finally:
            plt.close("all")
    return True


def methods_in(content: Results, *names: str) -> list[str]:
    """Those of the methods, or of all, that were evaluated."""
    evaluated = [method for method, _ in results.entries(content)]
    return [name for name in names or evaluated if name in evaluated]


def colours(content: Results) -> dict[str, str]:
    """The colour of each method that was evaluated."""
    others = [method for method in methods_in(content) if method not in COLOURS]
    return COLOURS | {method: OTHERS[i % len(OTHERS)] for i, method in enumerate(others)}


def best_or_last(entry: Mapping[str, Any]) -> dict[str, Figures]:
    """The figures of the parameters best in validation, or of the last ones, by condition."""
    parameters = entry["parameters"]
    figures: dict[str, Figures] = parameters.get(results.BEST_IN_VALIDATION, parameters[results.LAST])["figures"]
    return figures


def values(numbers: Iterable[float | None]) -> Array:
    """Numbers to be drawn; None is a gap."""
    return np.array([np.nan if number is None else number for number in numbers], float)


def shares_are_errors(entry: Mapping[str, Any]) -> bool:
    """Whether figures are drawn as what is missing: shares of which more is better, which come close to all."""
    return bool(entry["unit"] == "%" and entry["better"] == "higher")


def axis_label(entry: Mapping[str, Any]) -> str:
    """Of the axis that `drawn` is for."""
    return f"error, % (100 − {entry['metric']})" if shares_are_errors(entry) else results.quantity(entry)


def drawn(entry: Mapping[str, Any], numbers: Iterable[float | None]) -> Array:
    """Means as they are drawn: in the unit, and accuracies as errors."""
    scaled = results.scale(entry) * values(numbers)
    return 100 - scaled if shares_are_errors(entry) else scaled


def curve(axes: Any, entry: Mapping[str, Any], figures: Figures, colour: str, label: str, **look: Any) -> Array:
    """A mean against inner steps, with its interval; without inner steps a level line. Returns what was drawn."""
    mean = drawn(entry, figures["mean"])
    width = results.scale(entry) * values(figures["half_width"])
    interval(axes, mean, width, colour, label, **look)
    return mean


def interval(axes: Any, mean: Array, half_width: Array, colour: str, label: str, **look: Any) -> None:
    """Means against inner steps 0, 1, ... with their intervals; of one alone a level line."""
    low, high = mean - half_width, mean + half_width
    shade = {"color": colour, "alpha": 0.18, "linewidth": 0}
    if len(mean) == 1:
        axes.axhline(mean[0], color=colour, label=label, linestyle=look.get("linestyle", "--"))
        if np.isfinite(half_width[0]):
            axes.axhspan(low[0], high[0], **shade)
        return
    steps = np.arange(len(mean))
    axes.plot(steps, mean, color=colour, label=label, **{"marker": "o", "markersize": 3.5} | look)
    axes.fill_between(steps, low, high, **shade)


def crosses(
    axes: Any,
    steps: Sequence[int],
    means: Sequence[float],
    half_widths: Sequence[float | None],
    colour: str,
    label: str,
) -> None:
    """Published figures, in their method's colour, with their intervals where they are known."""
    look: dict[str, Any] = {"color": colour, "label": label, "markersize": 6, "markeredgewidth": 1.4, "zorder": 4}
    if any(half_widths):
        axes.errorbar(steps, means, values(half_widths), fmt="x", capsize=4, elinewidth=1, **look)
    else:
        axes.plot(steps, means, "x", **look)


def inner_steps(axes: Any, label: str = "inner steps") -> None:
    """The axis of inner steps."""
    axes.set_xlabel(label)
    axes.xaxis.get_major_locator().set_params(integer=True)


def log_where_decades(all_axes: Sequence[Any], shown: Iterable[Array]) -> None:
    """A logarithmic axis where positive values differ by more than a decade, a linear one elsewhere.

    Args:
        all_axes: share the axis.
        shown: what was drawn on them; nothing below 0.
    """
    numbers = np.concatenate([np.zeros(0), *[np.ravel(x) for x in shown]])
    numbers = numbers[np.isfinite(numbers)]
    positive = numbers[numbers > 0]
    if len(positive) and (numbers >= 0).all() and positive.max() > 10 * positive.min():
        for axes in all_axes:
            axes.set_yscale("log", nonpositive="clip")
            axes.set_ylim(positive.min() / 2, positive.max() * 1.5)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    elif len(numbers) and (numbers >= 0).all():
        for axes in all_axes:
            axes.set_ylim(bottom=0)


def legend_above(figure: Any, all_axes: Iterable[Any], columns: int = 3) -> None:
    """One legend for all axes, each label once."""
    handles = {label: h for axes in all_axes for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if handles:
        figure.legend(handles.values(), handles, loc="outside upper center", ncols=columns, fontsize=8)


class Curve(NamedTuple):
    """A line of `panels`."""

    label: str
    entry: Any  # results.Entry
    figures: dict[str, Figures]  # by condition
    colour: str
    look: Mapping[str, Any]  # for matplotlib


def against_steps(plt: Any, content: Results) -> Any:
    """Of any domain: figures against inner steps, a panel for every condition; of the parameters best in validation, or
    the last."""
    look = colours(content)
    curves = [
        Curve(results.name_of(method), entry, best_or_last(entry), look[method], {})
        for method, entry in results.entries(content)
    ]
    return panels(plt, curves)


def panels(plt: Any, curves: Sequence[Curve]) -> Any:
    """A panel for every quantity and condition; None if there are no curves."""
    places = list(dict.fromkeys((axis_label(one.entry), condition) for one in curves for condition in one.figures))
    if not places:
        return None
    columns = 3 if max(len(one.label) for one in curves) < 30 else 2
    size = (max(4.6, 3.4 * len(places)), 2.9 + 0.17 * -(-len(curves) // columns))
    figure, row = plt.subplots(1, len(places), figsize=size, layout="constrained", squeeze=False)
    shown: dict[str, list[Array]] = {}
    for axes, (label, condition) in zip(row[0], places, strict=True):
        for one in curves:
            if axis_label(one.entry) == label and condition in one.figures:
                mean = curve(axes, one.entry, one.figures[condition], one.colour, one.label, **one.look)
                shown.setdefault(label, []).append(mean)
        axes.set_title(condition)
        axes.set_ylabel(label)
        inner_steps(axes)
    for label, numbers in shown.items():
        log_where_decades([axes for axes, place in zip(row[0], places, strict=True) if place[0] == label], numbers)
    legend_above(figure, row[0], columns)
    return figure


# Of a domain that has no pictures of its own.
PICTURES: dict[str, Picture] = {"steps": against_steps}


def _training(plt: Any, content: Results, run: Path) -> Any:
    """The training loss of every method; beside it accuracy in training and validation, or the error in validation. Of
    reinforcement learning the returns."""
    lines = {method: metrics.read(run / method / "metrics.jsonl") for method in methods_in(content)}

    def there(name: str) -> bool:
        return any(_series(of_method, name)[0] for of_method in lines.values())

    if there("return_0"):
        return _training_returns(plt, lines, colours(content))
    shown = [name for name in ("loss", "accuracy" if there("accuracy") else "validation") if there(name)]
    if not shown:
        return None
    figure, row = plt.subplots(1, len(shown), figsize=(4.6 * len(shown), 3.1), layout="constrained", squeeze=False)
    for axes, name in zip(row[0], shown, strict=True):
        _learning_curves(axes, lines, name, colours(content))
        _iterations(axes)
    legend_above(figure, row[0], 4)
    return figure


# Of a figure of the metrics: what it is multiplied by, and the axis.
_CURVES = {
    "loss": (1, "training loss (MAML: of the query set)"),
    "accuracy": (100, "accuracy, %"),
    "validation": (1, "error in validation"),
}


def _learning_curves(axes: Any, lines: dict[str, list[dict[str, Any]]], name: str, look: dict[str, str]) -> None:
    """A figure of the metrics, of every method; dotted, that of validation."""
    scale, label = _CURVES[name]
    dots: dict[str, Any] = {"marker": "o", "markersize": 2.5, "linewidth": 0.8, "linestyle": ":"}
    everything: list[float] = []
    for method, of_method in lines.items():
        iterations, numbers = _series(of_method, name)
        style = dots if name == "validation" else {"linewidth": 1.2}
        legend = results.name_of(method) + (", validation" if name == "validation" else "")
        axes.plot(iterations, scale * values(numbers), color=look[method], label=legend, **style)
        everything += numbers
    if name == "accuracy":
        for method, of_method in lines.items():
            iterations, numbers = _series(of_method, "validation_accuracy")
            legend = f"{results.name_of(method)}, validation"
            axes.plot(iterations, scale * values(numbers), color=look[method], label=legend, **dots)
    elif min(everything) > 0:
        axes.set_yscale("log")
    axes.set_ylabel(label)


def _training_returns(plt: Any, lines: dict[str, list[dict[str, Any]]], look: dict[str, str]) -> Any:
    """Before and after the inner steps of training: thin, every line of the log; thick, the mean of 20 iterations."""
    figure, axes = plt.subplots(figsize=(4.6, 3.1), layout="constrained")
    for method, of_method in lines.items():
        names = {name for line in of_method for name in line if re.fullmatch("return_[0-9]{1,3}", name)}
        steps = sorted(int(name.removeprefix("return_")) for name in names if _series(of_method, name)[0])
        for k in steps:
            iterations, numbers = _series(of_method, f"return_{k}")
            style = "-" if k == steps[-1] else ":"
            axes.plot(iterations, numbers, style, color=look[method], alpha=0.3, linewidth=0.7)
            width = max(1, 20 * len(numbers) // iterations[-1])
            smooth = [sum(numbers[i - width : i]) / width for i in range(width, len(numbers) + 1)]
            name = results.name_of(method)
            if len(steps) > 1:
                name += f", after {k} step{'s' * (k != 1)}"
            axes.plot(iterations[width - 1 :], smooth, style, color=look[method], linewidth=1.4, label=name)
    _iterations(axes)
    axes.set_ylabel("return in training")
    legend_above(figure, [axes], 2)
    return figure


def _iterations(axes: Any) -> None:
    """The axis of iterations."""
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}".replace(",", " "))
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel("meta-iterations")


def _series(lines: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Iterations and values of a figure, where there is one."""
    pairs = [(line["iteration"], line[name]) for line in lines if line.get(name) is not None]
    return [iteration for iteration, _ in pairs], [value for _, value in pairs]
