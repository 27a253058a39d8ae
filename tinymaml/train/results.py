"""`results.json`: what every evaluation writes into its run's folder, and what tables and pictures are made from.

One schema for all domains and methods: `figures`, `measured` and `entry` build what `merge` writes and `load` reads.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, cast

import numpy as np

from tinymaml.autodiff.tensor import Array
from tinymaml.tasks.reading import DataError, one_line, parse_json, read_file
from tinymaml.train import files, lock, results_format_1, schema

FORMAT = 2
MOST = 1 << 24  # bytes of a results file
LAST, BEST_IN_VALIDATION, BEST_IN_TRAINING = "last", "best in validation", "best in training"

OverSteps = Annotated[list[float | None], "inner steps"]

NAMES = {
    "maml": "MAML",
    "fomaml": "MAML, first order",
    "pretrained": "pretrained",
    "random": "random",
    "oracle": "oracle",
}


class _OptionalFigures(TypedDict, total=False):
    median: OverSteps
    diverged: int
    mean_converged: OverSteps
    half_width_converged: OverSteps


class Figures(_OptionalFigures):
    """The metric over the tasks: lists over inner steps 0, 1, ..., of one number where there are none.

    None: not finite. `half_width` is of the mean's 95 % interval. `diverged` counts the tasks whose adaptation did, and
    the figures of those that did not are `mean_converged` and `half_width_converged`.
    """

    mean: OverSteps
    half_width: OverSteps


class Measured(TypedDict):
    """The figures of the parameters of one iteration, by condition: readable labels, of which the first is the main."""

    iteration: int
    figures: dict[str, Figures]


class Protocol(TypedDict):
    """How it was evaluated; a domain's own protocol says more."""

    tasks: int


class Provenance(TypedDict):
    """What every evaluation says of how its figures came about."""

    seed: int
    iterations: int
    seconds: float
    versions: dict[str, str]
    machine: str
    settings: dict[str, Any]


class Entry(Provenance):
    """The evaluation of a method."""

    domain: str
    metric: str
    unit: str  # "%": the figures are shares in [0, 1], and shown in per cent; "" if there is none
    better: Annotated[str, "lower|higher"]
    protocol: Protocol
    step_size_search: dict[str, dict[str, float | None]]  # by condition and step size; None: it diverged
    parameters: dict[str, Measured]  # LAST, and BEST_IN_VALIDATION and BEST_IN_TRAINING where there are such
    details: dict[str, Any]  # what the domain's pictures need


_PATIENCE = 60.0  # seconds to wait for another process that writes a results file, which takes it moments


class Results(TypedDict):
    """A whole results file; its methods are each an `Entry`."""

    format: int
    experiment: str
    methods: dict[str, Any]


class ResultsError(ValueError):
    """A results file cannot be used; the message names it and says what is wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def figures(scores: Array | Sequence[Array], diverged: Array | None = None) -> Figures:
    """Statistics of the tasks' scores after every inner step.

    Args:
        scores: [steps + 1, tasks]; infinite or NaN where a task left all bounds.
        diverged: booleans [tasks], those whose adaptation diverged; None if the domain does not say.

    Returns:
        mean, half_width (1.96 sigma / sqrt(n)) and median over all tasks, None where not finite or of too few tasks;
        where `diverged` is given how many did, and mean and half_width over the others.

    Raises:
        ValueError: of another shape.
    """
    rows = [np.asarray(row) for row in scores]
    if not rows or any(row.ndim != 1 or row.shape != rows[0].shape or not row.size for row in rows):
        shapes = " and ".join(sorted({str(list(row.shape)) for row in rows})) or "none"
        raise ValueError(f"scores must be [steps + 1, tasks], its rows are {shapes}")
    with np.errstate(invalid="ignore"):
        summary: Figures = {
            "mean": [_mean(row) for row in rows],
            "half_width": [half_width(row) for row in rows],
            "median": [_number(np.median(row)) for row in rows],
        }
        if diverged is not None:
            if diverged.shape != rows[0].shape or diverged.dtype != np.bool_:
                raise ValueError(f"diverged must be booleans {list(rows[0].shape)}, got {list(diverged.shape)}")
            converged = [row[~diverged] for row in rows]
            summary["diverged"] = int(diverged.sum())
            summary["mean_converged"] = [_mean(row) for row in converged]
            summary["half_width_converged"] = [half_width(row) for row in converged]
    return summary


def measured(iteration: int, figures: Mapping[str, Figures]) -> Measured:
    """The figures, by condition, of the parameters of an iteration."""
    return {"iteration": iteration, "figures": dict(figures)}


def entry(
    *,
    domain: str,
    metric: str,
    better: Literal["lower", "higher"],
    protocol: Mapping[str, Any],
    provenance: Mapping[str, Any],
    parameters: Mapping[str, Measured | None],
    unit: str = "",
    step_size_search: Mapping[str, Mapping[Any, float | None]] | None = None,
    details: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A method's entry, checked: what `merge` takes.

    Args:
        domain: its name.
        metric: what the figures are, such as "mean squared error".
        better: which figures are.
        protocol: `tasks`, and what else the domain says of the evaluation.
        provenance: `Provenance`, which `loop.provenance` gives.
        parameters: LAST, BEST_IN_VALIDATION, BEST_IN_TRAINING; those that are None are left out.
        unit: "%" for shares in [0, 1].
        step_size_search: by condition and step size, the figure in validation; None where it diverged.
        details: what the domain's own pictures need.

    Raises:
        ValueError: it is no entry; the message says what is wrong.
    """
    searched = step_size_search or {}
    whole = {
        "domain": domain,
        "metric": metric,
        "unit": unit,
        "better": better,
        "protocol": dict(protocol),
        **provenance,
        "step_size_search": {
            condition: {str(alpha): figure for alpha, figure in tried.items()} for condition, tried in searched.items()
        },
        "parameters": {which: one for which, one in parameters.items() if one is not None},
        "details": dict(details or {}),
    }
    check_entry(whole, domain)
    return whole


def half_width(values: Array) -> float | None:
    """Of the 95 % interval of a mean: 1.96 sigma / sqrt(n); None of fewer than two values, or where not finite."""
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    return _number(1.96 * np.std(values.astype(np.float64), ddof=1) / math.sqrt(len(values)))


def _mean(values: Array) -> float | None:
    return _number(values.mean(dtype=np.float64)) if len(values) else None


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def load(path: Path, experiment: str | None = None) -> Results:
    """Read a results file, also one of format 1.

    Raises:
        ResultsError: it is not one, or is newer, or of another experiment than the one that is given.
    """
    try:
        content = parse_json(read_file(path, MOST))
    except FileNotFoundError:
        raise ResultsError(f"{path} is not there: `tinymaml evaluate` writes it") from None
    except DataError as error:
        raise ResultsError(str(error)) from error
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error}") from error
    except ValueError as error:
        raise ResultsError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or [type(content.get(k)) for k in ("methods", "format")] != [dict, int]:
        raise ResultsError(f"{path} is not a results file: it has no 'format' and 'methods'")
    version = content["format"]
    if version > FORMAT:
        raise ResultsError(f"{path} was made by a newer tinymaml (format {version}, this one reads {FORMAT})")
    if version < 1:
        raise ResultsError(f"{path} is not a results file: there is no format {version}")
    if experiment is not None and content.get("experiment") != experiment:
        raise ResultsError(f"{path} is of {content.get('experiment')}, not of {experiment}: take another --out")
    try:
        schema.check(content.get("experiment"), str, "experiment")
        for method, one in content["methods"].items():
            schema.check(method, str, "a method's name")
            if version == 1:
                content["methods"][method] = one = results_format_1.converted(one, method)
            check_entry(one, method)
    except ValueError as error:
        raise ResultsError(f"{path} is damaged: {error}") from error
    return cast(Results, {**content, "format": FORMAT})


def check_entry(value: Any, method: str) -> None:
    """Raises ValueError, which says what is wrong, if it is no `Entry`."""
    schema.check(value, Entry, method)
    if LAST not in value["parameters"]:
        raise ValueError(f"{method}'s parameters have no {LAST!r}")
    for which, one in value["parameters"].items():
        if not one["figures"]:
            raise ValueError(f"{method}'s parameters[{which!r}]'s figures are of no condition")


def check_domain(results: Results, protocol: Any, details: Any = None) -> None:
    """Hold all entries to what a domain's table and pictures read of them.

    Args:
        protocol: a TypedDict, of `entry["protocol"]`.
        details: a TypedDict, of `entry["details"]`.

    Raises:
        ResultsError: an entry has something else; the message says where.
    """
    try:
        for method, one in results["methods"].items():
            schema.check(one["protocol"], protocol, f"{method}'s protocol")
            if details is not None:
                schema.check(one["details"], details, f"{method}'s details")
    except ValueError as error:
        raise ResultsError(f"the results of {results['experiment']} are damaged: {error}") from error


def merge(path: Path, experiment: str, method: str, entry: Mapping[str, Any]) -> None:
    """Put one method's entry into a results file; the others stay, also those that other processes put there meanwhile.

    Raises:
        ResultsError: as `load`, for an entry that `load` would refuse, or if the file would become too large for it.
        InUse: another process does not come to an end with the file.
    """
    entry = parse_json(json.dumps(entry, allow_nan=False))
    try:
        check_entry(entry, method)
    except ValueError as error:
        raise ResultsError(f"{path} cannot hold the entry of {method}: {error}") from error
    with lock.held(path.with_name(f"{path.name}.lock"), str(path), _PATIENCE):
        new: Results = {"format": FORMAT, "experiment": experiment, "methods": {}}
        content = load(path, experiment) if path.exists() else new
        content["methods"][method] = entry
        data = as_bytes(content)
        if len(data) > MOST:
            size = f"{len(data):,} bytes with {method}, more than the {MOST:,} that are read"
            raise ResultsError(f"{path} would have {size}")
        files.atomic_write(path, data)


def as_bytes(results: Results) -> bytes:
    """A results file's content."""
    return (json.dumps(results, indent=1, allow_nan=False) + "\n").encode()


def name_of(method: str) -> str:
    """As tables and pictures call it; a method that this version does not know goes by its own name."""
    return NAMES.get(method, method)


def entries(results: Results) -> Iterator[tuple[str, Any]]:
    """Methods in the order of NAMES, then others."""
    methods = results["methods"]
    for method in sorted(methods, key=lambda m: list(NAMES).index(m) if m in NAMES else len(NAMES)):
        yield method, methods[method]


def scale(entry: Mapping[str, Any]) -> float:
    """What the figures are multiplied by when they are shown."""
    return 100.0 if entry["unit"] == "%" else 1.0


def quantity(entry: Mapping[str, Any]) -> str:
    """The metric with its unit, as titles and axes name it."""
    return f"{entry['metric']}, {entry['unit']}" if entry["unit"] else str(entry["metric"])
