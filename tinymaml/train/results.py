"""`results.json`: what every evaluation writes into its run's folder, and what tables and pictures are made from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np

from tinymaml.tensor import Array
from tinymaml.train.checkpoint import atomic_write

FORMAT = 1

NAMES = {"maml": "MAML", "fomaml": "MAML, first order", "pretrained": "pretrained", "oracle": "oracle"}

# Finn, Abbeel & Levine 2017, table 2 and figure 3: 5-shot mean squared error after 1, 5 and 10 inner steps.
PAPER_STEPS = (1, 5, 10)
PAPER = {"maml": (0.67, 0.38, 0.35), "pretrained": (2.41, 2.23, 2.19)}


class Figures(TypedDict):
    """What `summary` says of one number of support points; lists are over inner steps 0, 1, ...; None: not finite."""

    mean: list[float | None]
    half_width: list[float | None]
    median: list[float | None]
    diverged: int
    mean_converged: list[float | None]
    half_width_converged: list[float | None]


class Best(TypedDict):
    """The figures of the parameters that were best in validation."""

    iteration: int
    shots: dict[str, Figures]


class Sketch(TypedDict):
    """One task's curves before and after inner steps, for the pictures; keys of `steps` are numbers of steps."""

    amplitude: float
    phase: float
    shots: int
    support_x: list[float]
    support_y: list[float]
    x: list[float]
    steps: dict[str, list[float | None]]


class Entry(TypedDict):
    """One method's evaluation; keys of `shots` and `step_size_search` are numbers of support points, as text."""

    protocol: dict[str, Any]
    seed: int
    iterations: int
    seconds: float
    step_size_search: dict[str, dict[str, float | None]]
    shots: dict[str, Figures]
    best: Best | None
    qualitative: list[Sketch]
    versions: dict[str, str]
    machine: str
    settings: dict[str, Any]


class Results(TypedDict):
    """A whole results file."""

    format: int
    experiment: str
    methods: dict[str, Entry]


Row = tuple[str, str, dict[str, Figures]]


class ResultsError(ValueError):
    """A results file cannot be used; the message names it and says what is wrong."""


def summary(errors: list[Array], diverged: Array) -> Figures:
    """Statistics of the tasks' errors after every inner step.

    Args:
        errors: [tasks] for each number of inner steps; infinite where a task left all bounds.
        diverged: booleans [tasks]; those whose adaptation made the fit of the support set itself worse.

    Returns:
        mean and half_width (1.96 sigma / sqrt(n)) over all tasks, None where not finite or of too few tasks; the same
        over the tasks that did not diverge; the median over all; and how many diverged.
    """
    rest = [e[~diverged] for e in errors]
    return {
        "mean": [_mean(e) for e in errors],
        "half_width": [half_width(e) for e in errors],
        "median": [_number(np.median(e)) for e in errors],
        "diverged": int(diverged.sum()),
        "mean_converged": [_mean(e) for e in rest],
        "half_width_converged": [half_width(e) for e in rest],
    }


def half_width(values: Array) -> float | None:
    """Of the 95 % interval of a mean: 1.96 sigma / sqrt(n); None of fewer than two values, or where not finite."""
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    return _number(1.96 * np.std(values.astype(np.float64), ddof=1) / math.sqrt(len(values)))


def _mean(values: Array) -> float | None:
    return _number(values.mean(dtype=np.float64)) if len(values) else None


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def load(path: Path) -> Results:
    """Read a results file. Raises ResultsError if it is not one, or is newer."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultsError(f"{path} is not there: `tinymaml evaluate` writes it") from None
    except ValueError as error:
        raise ResultsError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict) or [type(found.get(k)) for k in ("methods", "format")] != [dict, int]:
        raise ResultsError(f"{path} is not a results file: it has no 'format' and 'methods'")
    if found["format"] > FORMAT:
        raise ResultsError(f"{path} was made by a newer tinymaml (format {found['format']}, this one reads {FORMAT})")
    for method, entry in found["methods"].items():
        missing = Entry.__required_keys__ - set(entry) if isinstance(entry, dict) else Entry.__required_keys__
        if missing:
            raise ResultsError(f"{path} is damaged: {method} has no {', '.join(sorted(missing))}")
    return cast(Results, found)


def merge(path: Path, experiment: str, method: str, entry: Mapping[str, Any]) -> None:
    """Put one method's `Entry` into a results file; the others stay. Raises ResultsError as `load`."""
    found: Results = load(path) if path.exists() else {"format": FORMAT, "experiment": experiment, "methods": {}}
    if found.get("experiment") != experiment:
        raise ResultsError(f"{path} is of {found.get('experiment')}, not of {experiment}: take another --out")
    found["methods"][method] = cast(Entry, entry)
    atomic_write(path, (json.dumps(found, indent=1, allow_nan=False) + "\n").encode())


def table(results: Results) -> str:
    """Our figures beside the paper's, from a results file alone."""
    rows = list(_rows(results))
    lines = ["", "Mean squared error on new sinusoids, 5 support points (the paper's figure in brackets)", ""]
    lines += [f"{'':28}" + "".join(f"{f'after {k} steps' if k > 1 else 'after 1 step':>24}" for k in PAPER_STEPS)]
    for shots in ("5", "10", "20"):
        lines += ["", f"{shots} support points"] if shots != "5" else []
        for name, method, found in rows:
            if shots in found:
                cells = [_cell(found[shots], k) + (_beside(method, k) if shots == "5" else "") for k in PAPER_STEPS]
                lines.append(f"{name:28}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join([*lines, "", *_notes(results, rows)])


def name_of(method: str) -> str:
    """As tables and pictures call it; a method that this version does not know goes by its own name."""
    return NAMES.get(method, method)


def _entries(results: Results) -> Iterator[tuple[str, Entry]]:
    """Methods in the order of NAMES, then others."""
    found = results["methods"]
    for method in sorted(found, key=lambda m: list(NAMES).index(m) if m in NAMES else len(NAMES)):
        yield method, found[method]


def _rows(results: Results) -> Iterator[Row]:
    """(name, method, figures) of every row: each method's last parameters, and those best in validation."""
    for method, entry in _entries(results):
        yield name_of(method), method, entry["shots"]
        if entry["best"] is not None:
            yield f"{name_of(method)}, best", method, entry["best"]["shots"]


def _beside(method: str, steps: int) -> str:
    return f" [{PAPER[method][PAPER_STEPS.index(steps)]:.2f}]" if method in PAPER else " [ –  ]"


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
        if method in PAPER and "5" in figures:
            found = figures["5"]
            answers = [
                f"{k}: {'yes' if _reached(found['mean'][k], found['half_width'][k], paper) else 'no'}"
                for k, paper in zip(PAPER_STEPS, PAPER[method], strict=True)
                if k < len(found["mean"])
            ]
            notes.append(f"{name}: the paper's figure or under, up to our interval, after {', '.join(answers)}")
    for method, entry in _entries(results):
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
