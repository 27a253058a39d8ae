"""`results.json`: what every evaluation writes into its run's folder, and what tables and pictures are made from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tinymaml.tensor import Array
from tinymaml.train.checkpoint import atomic_write

FORMAT = 1
Results = dict[str, Any]

NAMES = {"maml": "MAML", "fomaml": "MAML, first order", "pretrained": "pretrained", "oracle": "oracle"}

# Finn, Abbeel & Levine 2017, table 2 and figure 3: 5-shot mean squared error after 1, 5 and 10 inner steps.
PAPER_STEPS = (1, 5, 10)
PAPER = {"maml": (0.67, 0.38, 0.35), "pretrained": (2.41, 2.23, 2.19)}


class ResultsError(ValueError):
    """A results file cannot be used; the message names it and says what is wrong."""


def summary(errors: list[Array], diverged: Array) -> dict[str, Any]:
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
    if not isinstance(found, dict) or not isinstance(found.get("methods"), dict) or "format" not in found:
        raise ResultsError(f"{path} is not a results file: it has no 'format' and 'methods'")
    if found["format"] > FORMAT:
        raise ResultsError(f"{path} was made by a newer tinymaml (format {found['format']}, this one reads {FORMAT})")
    return found


def merge(path: Path, experiment: str, method: str, entry: dict[str, Any]) -> None:
    """Put one method's entry into a results file; the others stay. Raises ResultsError as `load`."""
    found: Results = load(path) if path.exists() else {"format": FORMAT, "experiment": experiment, "methods": {}}
    if found.get("experiment") != experiment:
        raise ResultsError(f"{path} is of {found.get('experiment')}, not of {experiment}: take another --out")
    found["methods"][method] = entry
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
                cells = [_cell(found[shots], k, _paper(method, k) if shots == "5" else None) for k in PAPER_STEPS]
                lines.append(f"{name:28}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join([*lines, "", *_notes(results, rows)])


def _rows(results: Results) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(name, method, figures) of every row: each method's last parameters, and those best in validation."""
    for method, name in NAMES.items():
        entry = results["methods"].get(method)
        if entry is not None:
            yield name, method, entry["shots"]
            if entry["best"] is not None:
                yield f"{name}, best", method, entry["best"]["shots"]


def _paper(method: str, steps: int) -> float | None:
    return PAPER[method][PAPER_STEPS.index(steps)] if method in PAPER else None


def _cell(shots: dict[str, Any], steps: int, paper: float | None) -> str:
    if steps >= len(shots["mean"]):
        return "-"
    mean, width = shots["mean"][steps], shots["half_width"][steps]
    text = _figure(mean, width)
    if shots["diverged"] and steps > 1:
        text += "*"
    return f"{text} [{paper:.2f}]" if paper is not None else text


def _figure(mean: float | None, width: float | None) -> str:
    if mean is None:
        return "diverged"
    return f"{mean:.3g}" if mean >= 100 else f"{mean:.2f}" if width is None else f"{mean:.2f} ± {width:.2f}"


def _reached(mean: float | None, width: float | None, paper: float) -> bool:
    """At the figure or under, up to the interval; one that is wider than the figure says nothing."""
    return mean is not None and width is not None and width < paper and mean - width <= paper


def _notes(results: Results, rows: list[tuple[str, str, dict[str, Any]]]) -> list[str]:
    notes = []
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
        if method == "maml" and "5" in figures:
            found = figures["5"]
            answers = [
                f"{k}: {'yes' if _reached(found['mean'][k], found['half_width'][k], paper) else 'no'}"
                for k, paper in zip(PAPER_STEPS, PAPER["maml"], strict=True)
                if k < len(found["mean"])
            ]
            notes.append(f"{name}: the paper's figure or under, up to our interval, after {', '.join(answers)}")
    for method, entry in results["methods"].items():
        protocol, alpha = entry["protocol"], entry["protocol"]["alpha"]
        shown = ", ".join(f"{a} at {k}" for k, a in alpha.items()) if isinstance(alpha, dict) else alpha
        best = "" if entry["best"] is None else f", best in validation at {entry['best']['iteration']}"
        notes.append(
            f"{NAMES[method]}: seed {entry['seed']}, {entry['iterations']} iterations, {entry['seconds']:.0f} s{best}, "
            f"{protocol['tasks']} test tasks, {protocol['query_points']} query points, step size {shown}"
        )
        for k, errors in entry["step_size_search"].items():
            tried = ", ".join(f"{a}: {'diverged' if e is None else f'{e:.2f}'}" for a, e in errors.items())
            notes.append(f"{NAMES[method]}: step sizes tried on validation tasks with {k} points: {tried}")
    return notes
