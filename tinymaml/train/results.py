"""`results.json`: what every evaluation writes into its run's folder, and what tables and pictures are made from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypedDict, cast

import numpy as np

from tinymaml.autodiff.tensor import Array
from tinymaml.tasks.reading import DataError, one_line, parse_json, read_file
from tinymaml.train import files, lock, schema

FORMAT = 1
MOST = 1 << 24  # bytes of a results file

Count = Annotated[str, "[0-9]{1,9}"]  # a number as the key of a JSON object
OverSteps = Annotated[list[float | None], "inner steps"]

NAMES = {
    "maml": "MAML",
    "fomaml": "MAML, first order",
    "pretrained": "pretrained",
    "random": "random",
    "oracle": "oracle",
}


class Figures(TypedDict):
    """What `summary` says of one number of support points; lists are over inner steps 0, 1, ...; None: not finite."""

    mean: OverSteps
    half_width: OverSteps
    median: OverSteps
    diverged: int
    mean_converged: OverSteps
    half_width_converged: OverSteps


class Best(TypedDict):
    """The figures of the parameters that were best in validation."""

    iteration: int
    shots: dict[Count, Figures]


class Sketch(TypedDict):
    """One task's curves before and after inner steps, for the pictures; keys of `steps` are numbers of steps."""

    amplitude: float
    phase: float
    shots: int
    support_x: Annotated[list[float], "support points"]
    support_y: Annotated[list[float], "support points"]
    x: Annotated[list[float], "x"]
    steps: Annotated[dict[Count, list[float | None]], "x"]


class Provenance(TypedDict):
    """What every evaluation of a method says of itself."""

    seed: int
    iterations: int
    seconds: float
    versions: dict[str, str]
    machine: str
    settings: dict[str, Any]


class SinusoidProtocol(TypedDict):
    """What the table and the pictures say of the evaluation; there may be more."""

    tasks: int
    query_points: int
    alpha: dict[str, float] | str | float


class SinusoidEntry(Provenance):
    """Of sinusoids; keys of `shots` and `step_size_search` are numbers of support points."""

    protocol: SinusoidProtocol
    step_size_search: dict[Count, dict[str, float | None]]
    shots: dict[Count, Figures]
    best: Best | None
    qualitative: list[Sketch]


class Shares(TypedDict):
    """Mean accuracy over the tasks and its 95 % interval; lists are over inner steps 0, 1, ..."""

    mean: Annotated[list[float], "inner steps"]
    half_width: OverSteps


Kind = Annotated[str, "transductive|inductive"]  # of batch norm's statistics
Accuracy = dict[Kind, dict[Count, Shares]]  # the inner keys: query images a class


class BestAccuracy(TypedDict):
    """The accuracy of the parameters that were best in validation."""

    iteration: int
    accuracy: Accuracy
    diverged: int


class ImageProtocol(TypedDict):
    """As `SinusoidProtocol`, of images."""

    dataset: str
    tasks: int
    ways: int
    shots: int
    test_steps: int
    alpha: float
    inner_loss: str
    adapt_norm: bool


class ImageEntry(Provenance):
    """Of images. `diverged` tasks left all bounds, and count as wrong from there on."""

    protocol: ImageProtocol
    accuracy: Accuracy
    diverged: int
    best: BestAccuracy | None


class Returns(TypedDict):
    """Mean return over the goals and its 95 % interval; lists are over inner steps 0, 1, ..."""

    mean: Annotated[list[float], "inner steps"]
    half_width: OverSteps


class BestReturns(TypedDict):
    """The returns of the parameters that were best, at that iteration."""

    iteration: int
    returns: Returns


class RLProtocol(TypedDict):
    """As `SinusoidProtocol`, of reinforcement learning."""

    goals: int
    rollouts: int
    steps: int
    alpha: float | None
    decay: float


class RLEntry(Provenance):
    """Of reinforcement learning: the last parameters, those best on validation goals, and those whose return after
    adaptation was the highest in training."""

    protocol: RLProtocol
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

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


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
        found = parse_json(read_file(path, MOST))
    except FileNotFoundError:
        raise ResultsError(f"{path} is not there: `tinymaml evaluate` writes it") from None
    except DataError as error:
        raise ResultsError(str(error)) from error
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error}") from error
    except ValueError as error:
        raise ResultsError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict) or [type(found.get(k)) for k in ("methods", "format")] != [dict, int]:
        raise ResultsError(f"{path} is not a results file: it has no 'format' and 'methods'")
    if found["format"] > FORMAT:
        raise ResultsError(f"{path} was made by a newer tinymaml (format {found['format']}, this one reads {FORMAT})")
    if found.get("experiment") != experiment:
        raise ResultsError(f"{path} is of {found.get('experiment')}, not of {experiment}: take another --out")
    try:
        for method, entry in found["methods"].items():
            schema.check(method, str, "a method's name")
            _check(entry, method)
    except ValueError as error:
        raise ResultsError(f"{path} is damaged: {error}") from error
    return cast(Results, found)


def _check(entry: Any, method: str) -> None:
    """Raises ValueError, which says what is wrong, if an entry is none of the kinds that its figures are of."""
    kinds = [kind for figure, kind in KINDS.items() if isinstance(entry, dict) and figure in entry]
    if not kinds:
        raise ValueError(f"{method} has no accuracy, returns or shots")
    schema.check(entry, kinds[0], method)


def merge(path: Path, experiment: str, method: str, entry: Mapping[str, Any]) -> None:
    """Put one method's entry into a results file; the others stay, also those that other processes put there meanwhile.

    Raises:
        ResultsError: as `load`, for an entry that `load` would refuse, or if the file would become too large for it.
        InUse: another process does not come to an end with the file.
    """
    entry = parse_json(json.dumps(entry, allow_nan=False))
    try:
        _check(entry, method)
    except ValueError as error:
        raise ResultsError(f"{path} cannot hold the entry of {method}: {error}") from error
    with lock.held(path.with_name(f"{path.name}.lock"), str(path), _PATIENCE):
        new: Results = {"format": FORMAT, "experiment": experiment, "methods": {}}
        found = load(path, experiment) if path.exists() else new
        found["methods"][method] = entry
        data = (json.dumps(found, indent=1, allow_nan=False) + "\n").encode()
        if len(data) > MOST:
            said = f"{len(data):,} bytes with {method}, more than the {MOST:,} that are read"
            raise ResultsError(f"{path} would have {said}")
        files.atomic_write(path, data)


def name_of(method: str) -> str:
    """As tables and pictures call it; a method that this version does not know goes by its own name."""
    return NAMES.get(method, method)


def entries(results: Results) -> Iterator[tuple[str, Any]]:
    """Methods in the order of NAMES, then others."""
    found = results["methods"]
    for method in sorted(found, key=lambda m: list(NAMES).index(m) if m in NAMES else len(NAMES)):
        yield method, found[method]
