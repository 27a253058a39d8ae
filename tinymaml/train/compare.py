"""Runs side by side in one table and one picture, and one experiment over several training seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tinymaml.train import plots, report, results
from tinymaml.train.results import Figures, Results, ResultsError

_PALETTE = [*plots.COLOURS.values(), *plots.OTHERS]
_STYLES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D")


class Run(NamedTuple):
    """A run's results, and what it is called beside others."""

    name: str
    results: Results


def compare(folders: Sequence[Path], picture: Path | None = None) -> str:
    """The table of several runs, of any domains that share a metric; `picture` has their figures against inner steps.

    Args:
        folders: of runs, each with a results.json.
        picture: where to draw it; its ending, .png, .svg or .pdf, is the format. None: nowhere.

    Raises:
        ResultsError: a results.json is not there, cannot be used, or is of another metric than the first.
        MissingExtra: there is to be a picture, and matplotlib is not installed.
        ValueError: no folders, or another ending.
    """
    if picture is not None:
        plots.check_format(picture.suffix.removeprefix("."))
    runs = read(folders)
    if picture is not None:
        plots.save(plots.pyplot(), draw, runs, picture)
    return table(runs)


def read(folders: Sequence[Path]) -> list[Run]:
    """The results of runs that share a metric. Raises as `compare`."""
    if not folders:
        raise ValueError("there is no run to compare")
    names = [folder.resolve().name for folder in folders]
    runs: list[Run] = []
    metrics: dict[tuple[str, str, str], Path] = {}
    for folder, name in zip(folders, names, strict=True):
        path = folder / "results.json"
        content = results.load(path)
        runs.append(Run(name if names.count(name) == 1 else str(folder), content))
        for _, entry in results.entries(content):
            metrics.setdefault((entry["metric"], entry["unit"], entry["better"]), path)
    if len(metrics) > 1:
        listed = "; ".join(f"{path} has {metric[0]}" for metric, path in metrics.items())
        raise ResultsError(f"runs that are compared must share a metric, its unit and direction: {listed}")
    return runs


def table(runs: Sequence[Run]) -> str:
    """A section a condition, a row for every run's, method's and parameters' figures, a column for inner steps."""
    rows = [row._replace(name=f"{run.name}: {row.name}") for run in runs for row in report.rows(run.results)]
    notes = [note for run in runs for note in report.notes(run.results, f"{run.name}: ")]
    return "\n".join(["", *report.sections("", rows), *notes])


def draw(plt: Any, runs: Sequence[Run]) -> Any:
    """Figures against inner steps of the parameters best in validation, or the last: a panel for every condition.

    A colour is a method, and a line's style and marker a run; where there is one method in all, a colour is a run.
    """
    methods = {method: entry for run in runs for method, entry in results.entries(run.results)}
    of_method = plots.colours({"format": results.FORMAT, "experiment": "", "methods": methods})
    curves = []
    for i, run in enumerate(runs):
        marker, style = _MARKERS[i // len(_STYLES) % len(_MARKERS)], _STYLES[i % len(_STYLES)]
        if len(methods) == 1:
            style = _STYLES[i // len(_PALETTE) % len(_STYLES)]
        for method, entry in results.entries(run.results):
            colour = of_method[method] if len(methods) > 1 else _PALETTE[i % len(_PALETTE)]
            label = f"{run.name}: {results.name_of(method)}"
            look = {"linestyle": style, "marker": marker}
            curves.append(plots.Curve(label, entry, plots.best_or_last(entry), colour, look))
    return plots.panels(plt, curves)


class OverSeeds(NamedTuple):
    """A condition's figures after inner steps 0, 1, ..., of several training seeds; None: not finite."""

    mean: list[float | None]
    half_width: list[float | None]  # the mean over the seeds of the 95 % interval over the tasks
    deviation: list[float | None]  # sample standard deviation over the seeds; None of a single one


class SeedRow(NamedTuple):
    """What `over_seeds` says of a method's parameters."""

    method: str
    which: str  # parameters
    seeds: list[int]
    entry: Any  # of the first seed
    figures: dict[str, OverSeeds]  # by condition


def over_seeds(several: Sequence[Results]) -> list[SeedRow]:
    """Mean and spread over training seeds, beside the interval over tasks, of every method's parameters.

    Args:
        several: results of one experiment; a method may be missing in some.

    Raises:
        ResultsError: they are of several experiments; a method's seeds are not all different; its runs differ in
            the metric, the iterations or the number of test tasks.
    """
    experiments = list(dict.fromkeys(one["experiment"] for one in several))
    if len(experiments) != 1:
        raise ResultsError(f"a mean over seeds is of one experiment, not of {', '.join(experiments) or 'none'}")
    methods = dict.fromkeys(method for one in several for method, _ in results.entries(one))
    rows = []
    for method in methods:
        entries = [one["methods"][method] for one in several if method in one["methods"]]
        _check_alike(method, entries)
        for which in dict.fromkeys(which for entry in entries for which in entry["parameters"]):
            here = [entry for entry in entries if which in entry["parameters"]]
            figures = [entry["parameters"][which]["figures"] for entry in here]
            common = [condition for condition in figures[0] if all(condition in one for one in figures)]
            spread = {condition: _spread([one[condition] for one in figures]) for condition in common}
            rows.append(SeedRow(method, which, [entry["seed"] for entry in here], here[0], spread))
    return rows


def seeds_table(several: Sequence[Results]) -> str:
    """The table of `over_seeds`. Raises as that does."""
    rows, lines = over_seeds(several), [""]
    for condition in dict.fromkeys(condition for row in rows for condition in row.figures):
        here = [row for row in rows if condition in row.figures]
        steps = report.shown_steps(max(len(row.figures[condition].mean) for row in here))
        body = [(_name(row), list(_cells(row.figures[condition], steps, results.scale(row.entry)))) for row in here]
        title = report.title(several[0]["experiment"], here[0].entry, condition, steps)
        lines += report.grid(title, [str(k) for k in steps], body)
    lines.append("mean over the seeds ± the mean of their 95 % intervals over tasks")
    lines.append("(in brackets: the sample standard deviation over the seeds)")
    for method in dict.fromkeys(row.method for row in rows):
        row = next(row for row in rows if row.method == method)
        seeds = f"seed{'s' * (len(row.seeds) != 1)} {', '.join(map(str, row.seeds))}"
        run = f"{row.entry['iterations']} iterations, {row.entry['protocol']['tasks']} test tasks"
        lines.append(f"{results.name_of(method)}: {seeds}, {run}")
    return "\n".join(lines)


def _check_alike(method: str, entries: Sequence[Mapping[str, Any]]) -> None:
    seeds = [entry["seed"] for entry in entries]
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        raise ResultsError(f"{method} is there twice with seed {', '.join(map(str, twice))}")
    same: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "metrics": results.quantity,
        "iterations": lambda entry: entry["iterations"],
        "numbers of test tasks": lambda entry: entry["protocol"]["tasks"],
    }
    for name, of in same.items():
        values = list(dict.fromkeys(of(entry) for entry in entries))
        if len(values) > 1:
            raise ResultsError(f"a mean over seeds is of equal runs; those of {method} have {name} {values}")


def _spread(figures: Sequence[Figures]) -> OverSeeds:
    """Over the seeds; after as many inner steps as all have figures of."""

    def mean(numbers: Sequence[float | None]) -> float | None:
        known = [number for number in numbers if number is not None]
        return statistics.fmean(known) if len(known) == len(numbers) else None

    def deviation(numbers: Sequence[float | None]) -> float | None:
        known = [number for number in numbers if number is not None]
        return statistics.stdev(known) if len(known) == len(numbers) > 1 else None

    means = list(zip(*[one["mean"] for one in figures], strict=False))
    half_widths = list(zip(*[one["half_width"] for one in figures], strict=False))
    return OverSeeds([mean(m) for m in means], [mean(w) for w in half_widths], [deviation(m) for m in means])


def _name(row: SeedRow) -> str:
    which = "" if row.which == results.LAST else f", {row.which}"
    return f"{results.name_of(row.method)}{which} ({len(row.seeds)} seed{'s' * (len(row.seeds) != 1)})"


def _cells(figures: OverSeeds, steps: Sequence[int], scale: float) -> Iterator[str]:
    for k in steps:
        if k < len(figures.mean):
            mean, width, deviation = figures.mean[k], figures.half_width[k], figures.deviation[k]
            others = [] if deviation is None else [scale * deviation]
            shown = None if width is None else scale * width
            yield "diverged" if mean is None else report.rounded(scale * mean, shown, *others)
