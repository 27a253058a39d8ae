"""The table of reinforcement learning: our returns beside the authors', from a results file alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tinymaml.train.results import Results, Returns, RLEntry, entries, name_of


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


def published(entry: RLEntry, method: str) -> Published | None:
    """The figures to compare an entry with: of its environment, episodes, network and method, or None."""
    own = entry["settings"]
    network = (own.get("activation"), *own.get("hidden", ()))
    option = own.get("reward", own.get("flavour"))
    return PAPER.get((own.get("environment"), option, own.get("horizon"), network), {}).get(method)


def table(results: Results) -> str:
    """Returns after every inner step, the authors' below."""
    rows = list(_rows(results))
    steps = max((len(found["mean"]) for _, _, found in rows), default=0)
    lines = ["", f"{results['experiment']}: mean return on new goals after inner steps", ""]
    lines.append(f"{'':36}" + "".join(f"{k:>20}" for k in range(steps)))
    done: set[str] = set()
    for name, method, found in rows:
        paper = published(results["methods"][method], method)
        lines.append(f"{name:36}" + "".join(f"{_cell(found, k):>20}" for k in range(len(found["mean"]))))
        if paper is not None and method not in done:
            done.add(method)
            pairs = [(mean, paper.half_width.get(k)) for k, mean in enumerate(paper.mean)]
            lines.append(f"{f'  {name_of(method)}, authors':36}" + "".join(f"{_figure(*p):>20}" for p in pairs))
    return "\n".join([*lines, "", *_notes(results)])


def _rows(results: Results) -> Iterator[tuple[str, str, Returns]]:
    """(name, method, returns) of each method's last parameters, of those best in validation, and in training."""
    for method, entry in entries(results):
        own: RLEntry = entry
        yield name_of(method), method, own["returns"]
        for which, best in (("best in validation", own["best"]), ("best in training", own["best_in_training"])):
            if best is not None:
                yield f"{name_of(method)}, {which} ({best['iteration']})", method, best["returns"]


def _cell(found: Returns, k: int) -> str:
    return _figure(found["mean"][k], found["half_width"][k])


def _figure(mean: float, width: float | None) -> str:
    digits = 1 if abs(mean) >= 100 else 2
    return f"{mean:.{digits}f}" if width is None else f"{mean:.{digits}f} ± {width:.{digits}f}"


def _notes(results: Results) -> list[str]:
    notes = []
    for method, entry in entries(results):
        protocol = entry["protocol"]
        adapted = f", step size {protocol['alpha']}, then times {protocol['decay']}" if protocol["steps"] else ""
        notes.append(
            f"{name_of(method)}: seed {entry['seed']}, {entry['iterations']} iterations, {entry['seconds']:.0f} s, "
            f"{protocol['goals']} goals, {protocol['rollouts']} episodes a goal{adapted}"
        )
        if entry["step_size_search"]:
            search = entry["step_size_search"]
            tried = ", ".join(f"{a}: {'diverged' if r is None else f'{r:.1f}'}" for a, r in search.items())
            notes.append(f"{name_of(method)}: first step sizes tried on validation goals: {tried}")
    notes.append("best in validation: by the mean return after steps 1, 2, ... on other goals")
    return notes
