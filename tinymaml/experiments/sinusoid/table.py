"""The table of the sinusoid experiment: our figures beside the paper's, from a results file alone."""

from __future__ import annotations

from collections.abc import Iterator

from tinymaml.experiments.sinusoid.settings import SinusoidSettings
from tinymaml.train.results import Figures, Results, SinusoidEntry, entries, name_of

# Finn, Abbeel & Levine 2017, table 2 and figure 3: 5-shot mean squared error after 1, 5 and 10 inner steps.
PAPER_STEPS = (1, 5, 10)
PAPER = {"maml": (0.67, 0.38, 0.35), "pretrained": (2.41, 2.23, 2.19)}
_PAPERS = SinusoidSettings()  # the tasks and the network that they are of

Row = tuple[str, str, dict[str, Figures]]


def table(results: Results) -> str:
    """Our figures beside the paper's, from a results file alone."""
    rows = list(_rows(results))
    lines = ["", "Mean squared error on new sinusoids, 5 support points (the paper's figure in brackets)", ""]
    lines += [f"{'':28}" + "".join(f"{f'after {k} steps' if k > 1 else 'after 1 step':>24}" for k in PAPER_STEPS)]
    for shots in ("5", "10", "20"):
        lines += ["", f"{shots} support points"] if shots != "5" else []
        for name, method, found in rows:
            if shots in found:
                cells = [
                    _cell(found[shots], k) + (_beside(results["methods"][method], method, k) if shots == "5" else "")
                    for k in PAPER_STEPS
                ]
                lines.append(f"{name:28}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join([*lines, "", *_notes(results, rows)])


def _rows(results: Results) -> Iterator[Row]:
    """(name, method, figures) of every row: each method's last parameters, and those best in validation."""
    for method, entry in entries(results):
        yield name_of(method), method, entry["shots"]
        if entry["best"] is not None:
            yield f"{name_of(method)}, best", method, entry["best"]["shots"]


def published(entry: SinusoidEntry, method: str) -> tuple[float, ...] | None:
    """The figures to compare an entry with, of 5 support points: of its tasks, network and method; None if there are
    none."""
    own, theirs = entry["settings"], _PAPERS.as_dict()
    same = all(own.get(name) == theirs[name] for name in ("amplitude", "phase", "x", "hidden", "activation"))
    return PAPER.get(method) if same else None


def _beside(entry: SinusoidEntry, method: str, steps: int) -> str:
    paper = published(entry, method)
    return " [ –  ]" if paper is None else f" [{paper[PAPER_STEPS.index(steps)]:.2f}]"


def _cell(shots: Figures, steps: int) -> str:
    if steps >= len(shots["mean"]):
        return "-"
    mean, width = shots["mean"][steps], shots["half_width"][steps]
    text = _figure(mean, width)
    if shots["diverged"] and steps > 1:
        text += "*"
    return text


def _figure(mean: float | None, width: float | None) -> str:
    if mean is None:
        return "diverged"
    if mean >= 100:
        return f"{mean:.3g}"
    digits = 2 if mean >= 0.01 else 4
    return f"{mean:.{digits}f}" if width is None else f"{mean:.{digits}f} ± {width:.{digits}f}"


def _reached(mean: float | None, width: float | None, paper: float) -> bool:
    """At the figure or under, up to the interval; one that is wider than the figure says nothing."""
    return mean is not None and width is not None and width < paper and mean - width <= paper


def _notes(results: Results, rows: list[Row]) -> list[str]:
    notes: list[str] = []
    for name, _, figures in rows:
        for shots, found in figures.items():
            if found["diverged"]:
                pairs = list(zip(found["mean_converged"], found["half_width_converged"], strict=True))
                rest = ", ".join(_figure(*pairs[k]) for k in PAPER_STEPS if k < len(pairs))
                without = f"without them {rest}" if pairs[0][0] is not None else "which is all"
                notes.append(f"* {name}, {shots} points: diverged on {found['diverged']}; {without}")
    if notes:
        notes.append(
            "  (diverged: tasks whose inner steps left the support loss above its start; the table is over all tasks)"
        )
    for name, method, figures in rows:
        paper = published(results["methods"][method], method)
        if paper is not None and "5" in figures:
            found = figures["5"]
            answers = [
                f"{k}: {'yes' if _reached(found['mean'][k], found['half_width'][k], figure) else 'no'}"
                for k, figure in zip(PAPER_STEPS, paper, strict=True)
                if k < len(found["mean"])
            ]
            notes.append(f"{name}: the paper's figure or under, up to our interval, after {', '.join(answers)}")
    for method, entry in entries(results):
        protocol, alpha = entry["protocol"], entry["protocol"]["alpha"]
        shown = ", ".join(f"{a} at {k}" for k, a in alpha.items()) if isinstance(alpha, dict) else alpha
        best = "" if entry["best"] is None else f", best in validation at {entry['best']['iteration']}"
        notes.append(
            f"{name_of(method)}: seed {entry['seed']}, {entry['iterations']} iterations, {entry['seconds']:.0f} s"
            f"{best}, {protocol['tasks']} test tasks, {protocol['query_points']} query points, step size {shown}"
        )
        for k, errors in entry["step_size_search"].items():
            tried = ", ".join(f"{a}: {'diverged' if e is None else f'{e:.2f}'}" for a, e in errors.items())
            notes.append(f"{name_of(method)}: step sizes tried on validation tasks with {k} points: {tried}")
    return notes
