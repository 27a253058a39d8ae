"""The table of reinforcement learning: our returns beside the authors', from a results file alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict

from tinymaml.train import report
from tinymaml.train.results import Figures, Results, check_domain, entries, name_of

CONDITION = "new goals"


class Protocol(TypedDict):
    """What the table says of the evaluation; there may be more."""

    tasks: int
    rollouts: int
    steps: int
    alpha: float | None
    decay: float


class Published(NamedTuple):
    """Mean return after 0, 1, ... inner steps, and the 95 % intervals that are known."""

    mean: tuple[float, ...]
    half_width: dict[int, float]


_NETWORK = ("relu", 100, 100)

# Finn, Abbeel & Levine 2017, figures 4 and 5 and table 5, from the authors' result files: of an environment, its reward
# or flavour, the steps of an episode and the network; by method.
PAPER: dict[tuple[Any, ...], dict[str, Published]] = {
    ("tinymaml/Navigation-v0", "distance", 100, _NETWORK): {
        "maml": Published((-40.41, -11.68, -3.33, -3.23, -3.35), {0: 4.0, 1: 2.2, 2: 0.55, 3: 0.58}),
        "pretrained": Published((-40.8, -19.7, -11.7, -8.5), {}),
        "random": Published((-82.7, -58.0, -53.8, -46.8), {}),
        "oracle": Published((-2.29,), {}),
    },
    ("tinymaml/HalfCheetahDirection-v0", "rllab", 200, _NETWORK): {
        "maml": Published((-50.69, 293.19, 313.48, 315.65), {1: 17.0}),
        "pretrained": Published((-43.0, -24.8, -12.9, 19.6), {}),
        "random": Published((-35.7, 21.8, 62.3, 86.2), {}),
        "oracle": Published((442.69,), {}),
    },
    ("tinymaml/HalfCheetahVelocity-v0", "rllab", 200, _NETWORK): {
        "maml": Published((-129.5, -78.6, -66.6, -60.8), {1: 9.9}),
        "pretrained": Published((-158.0, -135.4, -128.5, -133.6), {}),
        "random": Published((-254.8, -254.3, -246.8, -230.8), {}),
        "oracle": Published((-54.5,), {}),
    },
    ("tinymaml/AntDirection-v0", "rllab", 200, _NETWORK): {
        "maml": Published((8.7, 499.2, 500.7, 499.1), {1: 32.0}),
        "pretrained": Published((3.2, 1.3, 6.5, 6.9), {}),
        "random": Published((3.1, 9.3, 16.0, 26.1), {}),
        "oracle": Published((524.8,), {}),
    },
    ("tinymaml/AntVelocity-v0", "rllab", 200, _NETWORK): {
        "maml": Published((30.6, 96.7, 100.1, 101.4), {1: 20.7}),
        "pretrained": Published((-1.8, 6.1, 8.5, 9.5), {}),
        "random": Published((-78.6, -62.8, -48.6, -35.6), {}),
        "oracle": Published((107.9,), {}),
    },
}


def published(entry: Mapping[str, Any], method: str) -> Published | None:
    """The figures to compare an entry with: of its environment, episodes, network and method, or None."""
    settings = entry["settings"]
    try:
        network = (settings.get("activation"), *settings.get("hidden", ()))
        option = settings.get("reward", settings.get("flavour"))
        return PAPER.get((settings.get("environment"), option, settings.get("horizon"), network), {}).get(method)
    except TypeError:  # settings of another kind
        return None


def table(results: Results) -> str:
    """Returns after every inner step, the authors' below."""
    check_domain(results, Protocol)
    rows = [row for row in report.rows(results) if CONDITION in row.figures]
    lines = ["", f"{results['experiment']}: mean return on new goals after inner steps", ""]
    lines.append(report.line("", map(str, range(report.steps_of(rows, CONDITION))), 36, 20))
    done: set[str] = set()
    for row in rows:
        figures = row.figures[CONDITION]
        cells = [_cell(figures, k) for k in range(len(figures["mean"]))]
        lines.append(report.line(row.name, cells, 36, 20))
        paper = published(row.entry, row.method)
        if paper is not None and row.method not in done:
            done.add(row.method)
            cells = [_figure(mean, paper.half_width.get(k)) for k, mean in enumerate(paper.mean)]
            lines.append(report.line(f"  {name_of(row.method)}, authors", cells, 36, 20))
    return "\n".join([*lines, "", *_notes(results)])


def _cell(figures: Figures, step: int) -> str:
    return _figure(figures["mean"][step], figures["half_width"][step])


def _figure(mean: float | None, half_width: float | None) -> str:
    return "diverged" if mean is None else report.interval(mean, half_width, 1 if abs(mean) >= 100 else 2)


def _notes(results: Results) -> list[str]:
    notes = []
    for method, entry in entries(results):
        protocol: Protocol = entry["protocol"]
        adapted = f", step size {protocol['alpha']}, then times {protocol['decay']}" if protocol["steps"] else ""
        notes.append(
            f"{name_of(method)}: {report.provenance(entry)}, "
            f"{protocol['tasks']} goals, {protocol['rollouts']} episodes a goal{adapted}"
        )
        for search in entry["step_size_search"].values():
            tried = report.tried(search, 1)
            notes.append(f"{name_of(method)}: first step sizes tried on validation goals: {tried}")
    notes.append("best in validation: by the mean return after steps 1, 2, ... on other goals")
    return notes
