"""Results of format 1, which had a schema for each of three domains: read, and converted to the one there is now."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from tinymaml.train import schema

Count = Annotated[str, "[0-9]{1,9}"]  # a number as the key of a JSON object
OverSteps = Annotated[list[float | None], "inner steps"]


class _Provenance(TypedDict):
    seed: int
    iterations: int
    seconds: float
    versions: dict[str, str]
    machine: str
    settings: dict[str, Any]


class _Errors(TypedDict):
    mean: OverSteps
    half_width: OverSteps
    median: OverSteps
    diverged: int
    mean_converged: OverSteps
    half_width_converged: OverSteps


class _BestErrors(TypedDict):
    iteration: int
    shots: dict[Count, _Errors]


class _SinusoidProtocol(TypedDict):
    tasks: int


class _Sinusoids(_Provenance):
    """Keys of `shots` and `step_size_search` are numbers of support points."""

    protocol: _SinusoidProtocol
    step_size_search: dict[Count, dict[str, float | None]]
    shots: dict[Count, _Errors]
    best: _BestErrors | None
    qualitative: list[Any]


class _Mean(TypedDict):
    mean: Annotated[list[float], "inner steps"]
    half_width: OverSteps


_Accuracy = dict[Annotated[str, "transductive|inductive"], dict[Count, _Mean]]  # the inner keys: query images a class


class _BestAccuracy(TypedDict):
    iteration: int
    accuracy: _Accuracy
    diverged: int


class _ImageProtocol(TypedDict):
    tasks: int


class _Images(_Provenance):
    protocol: _ImageProtocol
    accuracy: _Accuracy
    diverged: int
    best: _BestAccuracy | None


class _BestReturns(TypedDict):
    iteration: int
    returns: _Mean


class _ControlProtocol(TypedDict):
    goals: int


class _Control(_Provenance):
    protocol: _ControlProtocol
    step_size_search: dict[str, float | None]
    returns: _Mean
    best: _BestReturns | None
    best_in_training: _BestReturns | None


# The kinds of entries, by what only they have.
_KINDS: dict[str, Any] = {"shots": _Sinusoids, "accuracy": _Images, "returns": _Control}


def converted(entry: Any, method: str) -> dict[str, Any]:
    """An entry of format 1 as one of format 2. Raises ValueError, which says what is wrong, if it is none."""
    kinds = [figure for figure in _KINDS if isinstance(entry, dict) and figure in entry]
    if not kinds:
        raise ValueError(f"{method} has no accuracy, returns or shots")
    schema.check(entry, _KINDS[kinds[0]], method)
    domain = {"shots": _sinusoids, "accuracy": _images, "returns": _control}[kinds[0]](entry)
    return {**domain, **{name: entry[name] for name in _Provenance.__annotations__}}


def _sinusoids(entry: Any) -> dict[str, Any]:
    def label(points: str) -> str:
        return f"{points} support point{'s' * (points != '1')}"

    def measured(iteration: int, shots: Any) -> dict[str, Any]:
        return {"iteration": iteration, "figures": {label(points): errors for points, errors in shots.items()}}

    return {
        "domain": "sinusoid",
        "metric": "mean squared error",
        "unit": "",
        "better": "lower",
        "protocol": entry["protocol"],
        "step_size_search": {label(points): tried for points, tried in entry["step_size_search"].items()},
        "parameters": _parameters(entry, measured, "shots"),
        "details": {"sketches": entry["qualitative"]},
    }


def _images(entry: Any) -> dict[str, Any]:
    def measured(iteration: int, accuracy: Any, diverged: int) -> dict[str, Any]:
        listed = [(kind, int(query), mean) for kind, of_kind in accuracy.items() for query, mean in of_kind.items()]
        listed.sort(key=lambda one: (one[0] != "transductive", one[1]))
        figures = {f"{kind}, {query} query": {**mean, "diverged": diverged} for kind, query, mean in listed}
        return {"iteration": iteration, "figures": figures}

    return {
        "domain": "few-shot",
        "metric": "accuracy",
        "unit": "%",
        "better": "higher",
        "protocol": entry["protocol"],
        "step_size_search": {},
        "parameters": _parameters(entry, measured, "accuracy", "diverged"),
        "details": {},
    }


def _control(entry: Any) -> dict[str, Any]:
    def measured(iteration: int, returns: Any) -> dict[str, Any]:
        return {"iteration": iteration, "figures": {"new goals": returns}}

    search, protocol = entry["step_size_search"], dict(entry["protocol"])
    parameters = _parameters(entry, measured, "returns")
    best = entry["best_in_training"]
    if best is not None:
        parameters["best in training"] = measured(best["iteration"], best["returns"])
    return {
        "domain": "control",
        "metric": "return",
        "unit": "",
        "better": "higher",
        "protocol": {"tasks": protocol.pop("goals"), **protocol},
        "step_size_search": {"new goals": search} if search else {},
        "parameters": parameters,
        "details": {},
    }


def _parameters(entry: Any, measured: Any, *names: str) -> dict[str, Any]:
    """The last parameters and those best in validation, of what the entry and its `best` have under these names."""
    last = measured(entry["iterations"], *[entry[name] for name in names])
    best = entry["best"]
    return {"last": last} | (
        {"best in validation": measured(best["iteration"], *[best[name] for name in names])} if best else {}
    )
