"""The table of the image experiments: our figures beside the published ones, from a results file alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from tinymaml.train import report
from tinymaml.train.report import Row
from tinymaml.train.results import BEST_IN_VALIDATION, Figures, Results, check_domain, entries, name_of

Network = tuple[Any, ...]


class Protocol(TypedDict):
    """What the table and the pictures say of the evaluation; there may be more."""

    dataset: str
    tasks: int
    ways: int
    shots: int
    test_steps: int
    alpha: str | float  # the step size, or that it is learned, or that there is none
    inner_loss: str
    adapt_norm: bool


_STRIDED: Network = ("conv", 4, 64, "stride")
_POOLED: Network = ("conv", 4, 32, "max-pool")
_LINEAR: Network = ("mlp", 256, 128, 64, 64)

# Accuracy in per cent and its 95 % interval, by data set, ways, shots, network and method: Finn, Abbeel & Levine 2017,
# table 1; of CIFAR-FS, which is not in the paper, MAML in Bertinetto et al. 2019, table 1. Of other
# systems than MAML, prototypical networks from Snell et al. 2017 among them, each had a network of its own.
PAPER: dict[tuple[str, int, int, Network, str], tuple[float, float | None]] = {
    ("omniglot", 5, 1, _STRIDED, "maml"): (98.7, 0.4),
    ("omniglot", 5, 5, _STRIDED, "maml"): (99.9, 0.1),
    **{
        ("omniglot", ways, shots, _STRIDED, method): (figure, None)
        for method, figures in (
            ("siamese", (97.3, 98.4, 88.2, 97.0)),
            ("matching", (98.1, 98.9, 93.8, 98.5)),
            ("prototypical", (98.8, 99.7, 96.0, 98.9)),
        )
        for (ways, shots), figure in zip(((5, 1), (5, 5), (20, 1), (20, 5)), figures, strict=True)
    },
    ("omniglot", 5, 1, _LINEAR, "maml"): (89.7, 1.1),
    ("omniglot", 5, 5, _LINEAR, "maml"): (97.5, 0.6),
    ("omniglot", 20, 1, _STRIDED, "maml"): (95.8, 0.3),
    ("omniglot", 20, 5, _STRIDED, "maml"): (98.9, 0.2),
    ("miniimagenet", 5, 1, _POOLED, "maml"): (48.70, 1.84),
    ("miniimagenet", 5, 1, _POOLED, "fomaml"): (48.07, 1.75),
    ("miniimagenet", 5, 1, _POOLED, "fine-tune"): (28.86, 0.54),
    ("miniimagenet", 5, 5, _POOLED, "fine-tune"): (49.79, 0.79),
    ("miniimagenet", 5, 1, _POOLED, "nearest-neighbour"): (41.08, 0.70),
    ("miniimagenet", 5, 5, _POOLED, "nearest-neighbour"): (51.04, 0.65),
    ("miniimagenet", 5, 1, _POOLED, "matching"): (43.56, 0.84),
    ("miniimagenet", 5, 5, _POOLED, "matching"): (55.31, 0.73),
    ("miniimagenet", 5, 5, _POOLED, "maml"): (63.11, 0.92),
    ("miniimagenet", 5, 5, _POOLED, "fomaml"): (63.15, 0.91),
    ("cifar_fs", 5, 1, _POOLED, "maml"): (58.9, 1.9),
    ("cifar_fs", 5, 5, _POOLED, "maml"): (71.5, 1.0),
}

PAPER_ITERATIONS = 60_000


def condition(kind: str, query: int) -> str:
    """The label of figures with so many query images a class, "transductive" or "inductive"."""
    return f"{kind}, {query} query"


def published(entry: Mapping[str, Any], method: str) -> tuple[float, float | None] | None:
    """The figure to compare an entry with: of its data set, ways, shots, network and method; None if there is none."""
    settings, tasks = entry["settings"], entry["protocol"]
    try:
        if settings.get("network") == "conv":
            network: Network = ("conv", settings.get("layers"), settings.get("filters"), settings.get("downsample"))
        else:
            network = (settings.get("network"), *settings.get("hidden", ()))
        return PAPER.get((tasks["dataset"], tasks["ways"], tasks["shots"], network, method))
    except TypeError:  # settings of another kind
        return None


def compared(entry: Mapping[str, Any]) -> str:
    """The condition that the published figures are of: as many query images as support images, together."""
    return condition("transductive", entry["protocol"]["shots"])


def table(results: Results) -> str:
    """Accuracy after the inner steps of meta-test, the published figure beside it, then after every inner step."""
    check_domain(results, Protocol)
    rows = list(report.rows(results, report.ABBREVIATED))
    shown = report.conditions(rows)
    lines = ["", f"{results['experiment']}: accuracy in % on new tasks of classes held out", ""]
    lines.append(f"{'':28}{'published':>14}" + report.line("", shown, 0, 24))
    for row in rows:
        steps, paper = row.entry["protocol"]["test_steps"], published(row.entry, row.method)
        cells = [_cell(row.figures[label], steps) if label in row.figures else "-" for label in shown]
        beside = "–" if paper is None else report.interval(*paper, 1)
        lines.append(f"{row.name:28}{beside:>14}" + report.line("", cells, 0, 24))
    for label in shown[:1]:
        here = [row for row in rows if label in row.figures]
        lines += ["", report.line(f"{label}, after", [row.name for row in here], 28, 24)]
        for k in range(report.steps_of(here, label)):
            cells = [_cell(row.figures[label], k) if k == 0 or _takes_steps(row.entry) else "" for row in here]
            lines.append(report.line(f"{k} inner steps" if k != 1 else "1 inner step", cells, 28, 24))
    return "\n".join([*lines, "", *_notes(results, rows)])


def _after(figures: Figures, steps: int) -> tuple[float | None, float | None] | None:
    """Mean and half of the interval after so many inner steps, of a method that takes none in any case; None: they were
    not measured."""
    means, half_widths = figures["mean"], figures["half_width"]
    if steps >= len(means) > 1:
        return None
    return means[min(steps, len(means) - 1)], half_widths[min(steps, len(means) - 1)]


def _cell(figures: Figures, step: int) -> str:
    measured = _after(figures, step)
    if measured is None:
        return "-"
    mean, half_width = measured
    if mean is None:
        return "diverged"
    return report.interval(100 * mean, None if half_width is None else 100 * half_width, 2)


def _notes(results: Results, rows: list[Row]) -> list[str]:
    notes = ["transductive: a task's query images are normalised together; inductive: each as the support images are;"]
    notes.append("N query: so many query images a class, of which the published figure's has as many as support images")
    notes += [note for row in rows for note in _verdict(row)]
    for method, entry in entries(results):
        protocol: Protocol = entry["protocol"]
        best = entry["parameters"].get(BEST_IN_VALIDATION)
        shown = "" if best is None else f", best in validation at {best['iteration']}"
        measured = [figures for one in entry["parameters"].values() for figures in one["figures"].values()]
        diverged = max(figures.get("diverged", 0) for figures in measured)
        notes.append(
            f"{name_of(method)}: {report.provenance(entry)}"
            f"{shown}; {protocol['tasks']} test tasks, {_steps(entry)}"
            + (f"; {diverged} tasks left all bounds, and count as wrong" if diverged else "")
        )
    return notes


def _steps(entry: Mapping[str, Any]) -> str:
    """How the method adapts to a task."""
    protocol: Protocol = entry["protocol"]
    if not _takes_steps(entry):
        return "no inner steps"
    return (
        f"{protocol['test_steps']} inner steps of {protocol['alpha']} ({protocol['inner_loss']}), gamma and beta "
        f"{'adapted' if protocol['adapt_norm'] else 'not adapted'}"
    )


def _takes_steps(entry: Mapping[str, Any]) -> bool:
    """Whether there are figures after inner steps, or one figure of a method that takes none."""
    measured = [figures for one in entry["parameters"].values() for figures in one["figures"].values()]
    return any(len(figures["mean"]) > 1 for figures in measured)


def _verdict(row: Row) -> list[str]:
    """Whether the published figure was reached, if there is one."""
    paper, steps = published(row.entry, row.method), row.entry["protocol"]["test_steps"]
    figures = row.figures.get(compared(row.entry))
    measured = None if figures is None else _after(figures, steps)
    if paper is None or measured is None:
        return []
    if row.entry["iterations"] < PAPER_ITERATIONS:
        return [f"{row.name}: {report.TOO_SHORT}"]
    mean, half_width = measured
    reached = mean is not None and 100 * (mean + (half_width or 0)) >= paper[0]
    return [f"{row.name}: the published figure or above, up to our interval: {'yes' if reached else 'no'}"]
