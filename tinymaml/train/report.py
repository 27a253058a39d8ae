"""Tables of results: what the domains' tables share, and a table for any domain."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tinymaml.train import results
from tinymaml.train.results import Figures, Measured, Results

SHOWN = (0, 1, 2, 3, 5, 10, 20, 50, 100)  # inner steps that have a column, and the last
ABBREVIATED = {results.LAST: "", results.BEST_IN_VALIDATION: ", best"}
TOO_SHORT = "fewer iterations than the paper's: no verdict"


class Row(NamedTuple):
    """The figures of a method's parameters."""

    name: str
    method: str
    entry: Any  # results.Entry
    measured: Measured

    @property
    def figures(self) -> dict[str, Figures]:
        """By condition."""
        return self.measured["figures"]


def rows(content: Results, abbreviated: Mapping[str, str] | None = None) -> Iterator[Row]:
    """Of every method the last parameters, then those best in validation and in training.

    Args:
        abbreviated: what a row's name says of parameters; by itself which they are, and of which iteration.
    """
    for method, entry in results.entries(content):
        for which, measured in entry["parameters"].items():
            said = {results.LAST: ""} if abbreviated is None else abbreviated
            suffix = said.get(which, f", {which} ({measured['iteration']})")
            yield Row(results.name_of(method) + suffix, method, entry, measured)


def conditions(shown: Iterable[Row]) -> list[str]:
    """Those of the rows, in order, once each."""
    return list(dict.fromkeys(condition for row in shown for condition in row.figures))


def line(name: str, cells: Iterable[str], left: int, width: int) -> str:
    """A row's name in `left` characters, and its cells in `width` each, to the right."""
    return f"{name:{left}}" + "".join(f"{cell:>{width}}" for cell in cells)


def interval(mean: float, half_width: float | None, digits: int) -> str:
    """A mean and its interval, if it has one."""
    return f"{mean:.{digits}f}" if half_width is None else f"{mean:.{digits}f} ± {half_width:.{digits}f}"


def cell(figures: Figures, step: int, scale: float = 1.0) -> str:
    """The mean and interval after a number of inner steps: two digits of the interval, or four of a mean without."""
    if step >= len(figures["mean"]):
        return "-"
    mean, width = figures["mean"][step], figures["half_width"][step]
    if mean is None:
        return "diverged"
    return rounded(scale * mean, None if width is None else scale * width)


def rounded(mean: float, half_width: float | None, *others: float) -> str:
    """A mean and its interval to two digits of the interval; then other numbers to as many, in brackets."""
    if max(abs(mean), half_width or 0.0) >= 1e6:
        digits = None
    elif half_width:
        digits = _digits(half_width, 2)
    else:
        digits = _digits(mean, 4) if mean else 2
    numbers = [f"{x:.3g}" if digits is None else f"{x:.{digits}f}" for x in (mean, half_width or 0.0, *others)]
    text = numbers[0] if half_width is None else f"{numbers[0]} ± {numbers[1]}"
    return " ".join([text, *[f"({x})" for x in numbers[2:]]])


def _digits(value: float, significant: int) -> int:
    """Digits after the point that show so many of a number's, 6 at most."""
    return min(6, max(0, significant - 1 - math.floor(math.log10(abs(value)))))


def shown_steps(count: int) -> list[int]:
    """Of the numbers of inner steps 0, ..., count - 1 those that have a column."""
    return [k for k in range(count) if k in SHOWN or k == count - 1]


def steps_of(shown: Iterable[Row], condition: str) -> int:
    """The most numbers of inner steps that a row has figures of, with that of none."""
    return max((len(row.figures[condition]["mean"]) for row in shown if condition in row.figures), default=0)


def grid(title: str, head: Sequence[str], body: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """A title, and lines of cells below their heads, as wide as they must be."""
    left = max([12, *[len(name) for name, _ in body]])
    width = 2 + max(len(text) for text in [*head, *[cell for _, cells in body for cell in cells]])
    return [title, "", line("", head, left, width), *[line(name, cells, left, width) for name, cells in body], ""]


def provenance(entry: Mapping[str, Any]) -> str:
    """How long it was trained, and from which seed."""
    return f"seed {entry['seed']}, {entry['iterations']} iterations, {entry['seconds']:.0f} s"


def tried(search: Mapping[str, float | None], digits: int) -> str:
    """Step sizes and their figures in validation."""
    texts = [f"{size}: {'diverged' if figure is None else f'{figure:.{digits}f}'}" for size, figure in search.items()]
    return ", ".join(texts)


def table(content: Results) -> str:
    """Of any domain: a section a condition, a row for every method's parameters, columns of inner steps."""
    return "\n".join(["", *sections(content["experiment"], list(rows(content))), *notes(content)])


def sections(experiment: str, shown: Sequence[Row]) -> list[str]:
    """A grid for every quantity and condition."""
    lines = []
    for quantity in dict.fromkeys(results.quantity(row.entry) for row in shown):
        of_quantity = [row for row in shown if results.quantity(row.entry) == quantity]
        for condition in conditions(of_quantity):
            here = [row for row in of_quantity if condition in row.figures]
            steps = shown_steps(steps_of(here, condition))
            body = [
                (
                    row.name,
                    [
                        cell(row.figures[condition], k, results.scale(row.entry))
                        for k in steps
                        if k < len(row.figures[condition]["mean"])
                    ],
                )
                for row in here
            ]
            lines += grid(title(experiment, here[0].entry, condition, steps), [str(k) for k in steps], body)
    return lines


def title(experiment: str, entry: Mapping[str, Any], condition: str, steps: Sequence[int]) -> str:
    """What a grid is of; an experiment without a name is left out."""
    after = "" if list(steps) == [0] else "; after inner steps"
    what = f"{results.quantity(entry)}; {condition}{after} ({entry['better']} is better)"
    return f"{experiment}: {what}" if experiment else what


def notes(content: Results, prefix: str = "") -> list[str]:
    """How every method's figures came about, and what diverged."""
    lines = []
    for method, entry in results.entries(content):
        name = prefix + results.name_of(method)
        lines.append(f"{name}: {provenance(entry)}, {entry['protocol']['tasks']} test tasks")
        for condition, search in entry["step_size_search"].items():
            lines.append(f"{name}: step sizes tried in validation, {condition}: {tried(search, 4)}")
        for which, measured in entry["parameters"].items():
            counts = {condition: figures.get("diverged") for condition, figures in measured["figures"].items()}
            listed = ", ".join(f"{count} ({condition})" for condition, count in counts.items() if count)
            if listed:
                lines.append(f"{name}, {which} parameters: tasks that diverged: {listed}")
    return lines
