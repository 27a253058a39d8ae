"""The table of the sinusoid experiment: our figures beside the paper's, from a results file alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

from tinymaml.experiments.sinusoid.settings import SinusoidSettings
from tinymaml.train import report
from tinymaml.train.report import Row
from tinymaml.train.results import BEST_IN_VALIDATION, Figures, Results, check_domain, entries, name_of

# Finn, Abbeel & Levine 2017, table 2 and figure 3: 5-shot mean squared error after 1, 5 and 10 inner steps.
PAPER_STEPS = (1, 5, 10)
PAPER = {"maml": (0.67, 0.38, 0.35), "pretrained": (2.41, 2.23, 2.19)}
PAPER_ITERATIONS = 70_000
_PAPERS = SinusoidSettings()  # the tasks and the network that they are of


class Protocol(TypedDict):
    """What the table and the pictures say of the evaluation; there may be more."""

    tasks: int
    query_points: int
    alpha: dict[str, float] | str | float


class Sketch(TypedDict):
    """One task's curves before and after inner steps, for the pictures; keys of `steps` are numbers of steps."""

    amplitude: float
    phase: float
    shots: int
    support_x: Annotated[list[float], "support points"]
    support_y: Annotated[list[float], "support points"]
    x: Annotated[list[float], "x"]
    steps: Annotated[dict[Annotated[str, "[0-9]{1,9}"], list[float | None]], "x"]


class Details(TypedDict):
    """What the pictures need beside the figures."""

    sketches: list[Sketch]


def condition(points: int) -> str:
    """The label of figures with so many support points."""
    return f"{points} support point{'s' * (points != 1)}"


COMPARED = condition(5)  # what the paper's figures are of


def table(results: Results) -> str:
    """Our figures beside the paper's, from a results file alone."""
    check_domain(results, Protocol)
    rows = list(report.rows(results, report.ABBREVIATED))
    first, *others = report.conditions(rows) or [COMPARED]
    beside = " (the paper's figure in brackets)" if first == COMPARED else ""
    lines = ["", f"Mean squared error on new sinusoids, {first}{beside}", ""]
    lines += [report.line("", [f"after {k} steps" if k > 1 else "after 1 step" for k in PAPER_STEPS], 28, 24)]
    for label in (first, *others):
        lines += ["", label] if label != first else []
        for row in rows:
            if label in row.figures:
                cells = [
                    _cell(row.figures[label], k) + (_beside(row, k) if label == COMPARED else "") for k in PAPER_STEPS
                ]
                lines.append(report.line(row.name, cells, 28, 24))
    return "\n".join([*lines, "", *_notes(results, rows)])


def published(entry: Mapping[str, Any], method: str) -> tuple[float, ...] | None:
    """The figures to compare an entry with, of 5 support points: of its tasks, network and method; None if there are
    none."""
    settings, theirs = entry["settings"], _PAPERS.as_dict()
    same = all(settings.get(name) == theirs[name] for name in ("amplitude", "phase", "x", "hidden", "activation"))
    return PAPER.get(method) if same else None


def _beside(row: Row, step: int) -> str:
    paper = published(row.entry, row.method)
    return " [ –  ]" if paper is None else f" [{paper[PAPER_STEPS.index(step)]:.2f}]"


def _cell(figures: Figures, step: int) -> str:
    if step >= len(figures["mean"]):
        return "-"
    text = _figure(figures["mean"][step], figures["half_width"][step])
    return f"{text}*" if figures.get("diverged") and step > 1 else text


def _figure(mean: float | None, half_width: float | None) -> str:
    if mean is None:
        return "diverged"
    if mean >= 100:
        return f"{mean:.3g}"
    return report.interval(mean, half_width, 2 if mean >= 0.01 else 4)


def _reached(mean: float | None, half_width: float | None, paper: float) -> bool:
    """At the figure or under, up to the interval; one that is wider than the figure says nothing."""
    return mean is not None and half_width is not None and half_width < paper and mean - half_width <= paper


def _notes(results: Results, rows: list[Row]) -> list[str]:
    notes = [note for row in rows for note in _diverged(row)]
    if notes:
        notes.append(
            "  (diverged: tasks whose inner steps left the support loss above its start; the table is over all tasks)"
        )
    notes += [note for row in rows for note in _verdict(row)]
    for method, entry in entries(results):
        protocol, alpha = entry["protocol"], entry["protocol"]["alpha"]
        shown = ", ".join(f"{a} at {k}" for k, a in alpha.items()) if isinstance(alpha, dict) else alpha
        best = entry["parameters"].get(BEST_IN_VALIDATION)
        at = "" if best is None else f", best in validation at {best['iteration']}"
        notes.append(
            f"{name_of(method)}: {report.provenance(entry)}"
            f"{at}, {protocol['tasks']} test tasks, {protocol['query_points']} query points, step size {shown}"
        )
        for label, search in entry["step_size_search"].items():
            tried, points = report.tried(search, 2), _points(label)
            notes.append(f"{name_of(method)}: step sizes tried on validation tasks with {points}: {tried}")
    return notes


def _points(label: str) -> str:
    return label.replace(" support", "")


def _diverged(row: Row) -> list[str]:
    """The figures without the tasks that diverged."""
    notes = []
    for label, figures in row.figures.items():
        if not figures.get("diverged"):
            continue
        means, half_widths = figures.get("mean_converged", [None]), figures.get("half_width_converged", [None])
        shown = [_figure(means[k], half_widths[k]) for k in PAPER_STEPS if k < min(len(means), len(half_widths))]
        without = "which is all" if means[0] is None else f"without them {', '.join(shown)}"
        notes.append(f"* {row.name}, {_points(label)}: diverged on {figures['diverged']}; {without}")
    return notes


def _verdict(row: Row) -> list[str]:
    """Whether the paper's figures were reached, if there are any."""
    paper, figures = published(row.entry, row.method), row.figures.get(COMPARED)
    if paper is None or figures is None:
        return []
    if row.entry["iterations"] < PAPER_ITERATIONS:
        return [f"{row.name}: {report.TOO_SHORT}"]
    answers = [
        f"{k}: {'yes' if _reached(figures['mean'][k], figures['half_width'][k], figure) else 'no'}"
        for k, figure in zip(PAPER_STEPS, paper, strict=True)
        if k < len(figures["mean"])
    ]
    return [f"{row.name}: the paper's figure or under, up to our interval, after {', '.join(answers)}"]
