"""`results.json`: what every evaluation writes into its run's folder, and what tables and pictures are made from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np

from tinymaml.tensor import Array
from tinymaml.train import files, lock

FORMAT = 1

NAMES = {
    "maml": "MAML",
    "fomaml": "MAML, first order",
    "pretrained": "pretrained",
    "random": "random",
    "oracle": "oracle",
}


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


class Provenance(TypedDict):
    """What every evaluation of a method says of itself."""

    protocol: dict[str, Any]
    seed: int
    iterations: int
    seconds: float
    versions: dict[str, str]
    machine: str
    settings: dict[str, Any]


class SinusoidEntry(Provenance):
    """Of sinusoids; keys of `shots` and `step_size_search` are numbers of support points, as text."""

    step_size_search: dict[str, dict[str, float | None]]
    shots: dict[str, Figures]
    best: Best | None
    qualitative: list[Sketch]


class Shares(TypedDict):
    """Mean accuracy over the tasks and its 95 % interval; lists are over inner steps 0, 1, ..."""

    mean: list[float]
    half_width: list[float | None]


Accuracy = dict[str, dict[str, Shares]]  # by kind of batch norm's statistics, then by query images a class, as text


class BestAccuracy(TypedDict):
    """The accuracy of the parameters that were best in validation."""

    iteration: int
    accuracy: Accuracy
    diverged: int


class ImageEntry(Provenance):
    """Of images. `diverged` tasks left all bounds, and count as wrong from there on."""

    accuracy: Accuracy
    diverged: int
    best: BestAccuracy | None


class Returns(TypedDict):
    """Mean return over the goals and its 95 % interval; lists are over inner steps 0, 1, ..."""

    mean: list[float]
    half_width: list[float | None]


class BestReturns(TypedDict):
    """The returns of the parameters that were best, at that iteration."""

    iteration: int
    returns: Returns


class RLEntry(Provenance):
    """Of reinforcement learning: the last parameters, those best on validation goals, and those whose return after
    adaptation was the highest in training."""

    step_size_search: dict[str, float | None]
    returns: Returns
    best: BestReturns | None
    best_in_training: BestReturns | None


# By what only its entries have: the kinds of results, whatever the experiment is called.
KINDS: dict[str, Any] = {"shots": SinusoidEntry, "accuracy": ImageEntry, "returns": RLEntry}

_PATIENCE = 60.0  # seconds to wait for another process that writes a results file, which takes it moments


class Results(TypedDict):
    """A whole results file; its methods are each a `SinusoidEntry`, an `ImageEntry` or an `RLEntry`."""

    format: int
    experiment: str
    methods: dict[str, Any]


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


def shares(accuracies: Array) -> Shares:
    """Statistics of the tasks' accuracies [inner steps, tasks]."""
    return {"mean": accuracies.mean(1).tolist(), "half_width": [half_width(a) for a in accuracies]}


def half_width(values: Array) -> float | None:
    """Of the 95 % interval of a mean: 1.96 sigma / sqrt(n); None of fewer than two values, or where not finite."""
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    return _number(1.96 * np.std(values.astype(np.float64), ddof=1) / math.sqrt(len(values)))


def _mean(values: Array) -> float | None:
    return _number(values.mean(dtype=np.float64)) if len(values) else None


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def load(path: Path, experiment: str) -> Results:
    """Read an experiment's results file. Raises ResultsError if it is not one, is newer or of another experiment."""
    try:
        found = json.loads(files.read(path))
    except FileNotFoundError:
        raise ResultsError(f"{path} is not there: `tinymaml evaluate` writes it") from None
    except ValueError as error:
        raise ResultsError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict) or [type(found.get(k)) for k in ("methods", "format")] != [dict, int]:
        raise ResultsError(f"{path} is not a results file: it has no 'format' and 'methods'")
    if found["format"] > FORMAT:
        raise ResultsError(f"{path} was made by a newer tinymaml (format {found['format']}, this one reads {FORMAT})")
    if found.get("experiment") != experiment:
        raise ResultsError(f"{path} is of {found.get('experiment')}, not of {experiment}: take another --out")
    for method, entry in found["methods"].items():
        missing = _missing(entry)
        if missing:
            raise ResultsError(f"{path} is damaged: {method} has no {missing}")
    return cast(Results, found)


def _missing(entry: Any) -> str:
    """What an entry lacks to be one of its kind, nothing perhaps."""
    kinds = [kind for figure, kind in KINDS.items() if isinstance(entry, dict) and figure in entry]
    if not kinds:
        return "accuracy, returns or shots"
    return ", ".join(sorted(kinds[0].__required_keys__ - set(entry)))


def merge(path: Path, experiment: str, method: str, entry: Mapping[str, Any]) -> None:
    """Put one method's entry into a results file; the others stay, also those that other processes put there meanwhile.

    Raises:
        ResultsError: as `load`, or for an entry that `load` would refuse.
        InUse: another process does not come to an end with the file.
    """
    missing = _missing(entry)
    if missing:
        raise ResultsError(f"{path} cannot hold the entry of {method}: it has no {missing}")
    with lock.held(path.with_name(f"{path.name}.lock"), str(path), _PATIENCE):
        for left in path.parent.glob(f"{path.name}.*.tmp"):  # by a process that was killed
            left.unlink()
        new: Results = {"format": FORMAT, "experiment": experiment, "methods": {}}
        found = load(path, experiment) if path.exists() else new
        found["methods"][method] = entry
        files.atomic_write(path, (json.dumps(found, indent=1, allow_nan=False) + "\n").encode())


def name_of(method: str) -> str:
    """As tables and pictures call it; a method that this version does not know goes by its own name."""
    return NAMES.get(method, method)


def entries(results: Results) -> Iterator[tuple[str, Any]]:
    """Methods in the order of NAMES, then others."""
    found = results["methods"]
    for method in sorted(found, key=lambda m: list(NAMES).index(m) if m in NAMES else len(NAMES)):
        yield method, found[method]
