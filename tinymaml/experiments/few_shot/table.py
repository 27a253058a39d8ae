"""The table of the image experiments: our figures beside the published ones, from a results file alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tinymaml.train.results import Accuracy, ImageEntry, Results, Shares, entries, name_of

Network = tuple[Any, ...]

_STRIDED: Network = ("conv", 4, 64, "stride")
_POOLED: Network = ("conv", 4, 32, "max-pool")
_LINEAR: Network = ("mlp", 256, 128, 64, 64)

# Accuracy in per cent and its 95 % interval, by data set, ways, shots, network and method: Finn, Abbeel & Levine 2017,
# table 1; of CIFAR-FS, which is not in the paper, MAML in Bertinetto et al. 2019, table 1.
PAPER: dict[tuple[str, int, int, Network, str], tuple[float, float]] = {
    ("omniglot", 5, 1, _STRIDED, "maml"): (98.7, 0.4),
    ("omniglot", 5, 5, _STRIDED, "maml"): (99.9, 0.1),
    ("omniglot", 5, 1, _LINEAR, "maml"): (89.7, 1.1),
    ("omniglot", 5, 5, _LINEAR, "maml"): (97.5, 0.6),
    ("omniglot", 20, 1, _STRIDED, "maml"): (95.8, 0.3),
    ("omniglot", 20, 5, _STRIDED, "maml"): (98.9, 0.2),
    ("miniimagenet", 5, 1, _POOLED, "maml"): (48.70, 1.84),
    ("miniimagenet", 5, 1, _POOLED, "fomaml"): (48.07, 1.75),
    ("miniimagenet", 5, 5, _POOLED, "maml"): (63.11, 0.92),
    ("miniimagenet", 5, 5, _POOLED, "fomaml"): (63.15, 0.91),
    ("cifar_fs", 5, 1, _POOLED, "maml"): (58.9, 1.9),
    ("cifar_fs", 5, 5, _POOLED, "maml"): (71.5, 1.0),
}

Row = tuple[str, str, ImageEntry, Accuracy]


def published(entry: ImageEntry, method: str) -> tuple[float, float] | None:
    """The figure to compare an entry with: of its data set, ways, shots, network and method; None if there is none."""
    own, tasks = entry["settings"], entry["protocol"]
    if own.get("network") == "conv":
        network: Network = ("conv", own.get("layers"), own.get("filters"), own.get("downsample"))
    else:
        network = (own.get("network"), *own.get("hidden", ()))
    return PAPER.get((tasks["dataset"], tasks["ways"], tasks["shots"], network, method))


def table(results: Results) -> str:
    """Accuracy after the inner steps of meta-test, the published figure beside it, then after every inner step."""
    rows = list(_rows(results))
    lines = ["", f"{results['experiment']}: accuracy in % on new tasks of classes held out", ""]
    kinds = list(dict.fromkeys((kind, q) for *_, own in rows for kind in own for q in own[kind]))
    kinds.sort(key=lambda pair: (pair[0] != "transductive", int(pair[1])))
    lines.append(f"{'':28}{'published':>14}" + "".join(f"{_column(*pair):>24}" for pair in kinds))
    for name, method, entry, own in rows:
        steps = entry["protocol"]["test_steps"]
        cells = [_cell(own[kind][q], steps) if q in own.get(kind, {}) else "-" for kind, q in kinds]
        paper = published(entry, method)
        beside = "–" if paper is None else "{:.1f} ± {:.1f}".format(*paper)
        lines.append(f"{name:28}{beside:>14}" + "".join(f"{cell:>24}" for cell in cells))
    for kind, q in kinds[:1]:
        here = [(name, own[kind][q]) for name, _, _, own in rows if q in own.get(kind, {})]
        lines += ["", f"{f'{_column(kind, q)}, after':28}" + "".join(f"{name:>24}" for name, _ in here)]
        for k in range(max(len(found["mean"]) for _, found in here)):
            cells = [_cell(found, k) for _, found in here]
            lines.append(
                f"{f'{k} inner steps' if k != 1 else '1 inner step':28}" + "".join(f"{cell:>24}" for cell in cells)
            )
    return "\n".join([*lines, "", *_notes(results, rows)])


def _rows(results: Results) -> Iterator[Row]:
    """(name, method, entry, accuracy) of each method's last parameters, and of those best in validation."""
    for method, entry in entries(results):
        yield name_of(method), method, entry, entry["accuracy"]
        if entry["best"] is not None:
            yield f"{name_of(method)}, best", method, entry, entry["best"]["accuracy"]


def _column(kind: str, query: str) -> str:
    return f"{kind}, {query} query"


def _cell(found: Shares, steps: int) -> str:
    if steps >= len(found["mean"]):
        return "-"
    mean, width = found["mean"][steps], found["half_width"][steps]
    return f"{100 * mean:.2f}" if width is None else f"{100 * mean:.2f} ± {100 * width:.2f}"


def _notes(results: Results, rows: list[Row]) -> list[str]:
    notes = ["transductive: a task's query images are normalised together; inductive: each as the support images are;"]
    notes.append("N query: so many query images a class, of which the published figure's has as many as support images")
    for name, method, entry, own in rows:
        paper = published(entry, method)
        query, steps = str(entry["protocol"]["shots"]), entry["protocol"]["test_steps"]
        found = own.get("transductive", {}).get(query)
        if paper is not None and found is not None and steps < len(found["mean"]):
            reached = 100 * (found["mean"][steps] + (found["half_width"][steps] or 0)) >= paper[0]
            notes.append(f"{name}: the published figure or above, up to our interval: {'yes' if reached else 'no'}")
    for method, entry in entries(results):
        protocol, best = entry["protocol"], entry["best"]
        shown = "" if best is None else f", best in validation at {best['iteration']}"
        lost = max(entry["diverged"], 0 if best is None else best["diverged"])
        notes.append(
            f"{name_of(method)}: seed {entry['seed']}, {entry['iterations']} iterations, {entry['seconds']:.0f} s"
            f"{shown}; {protocol['tasks']} test tasks, {protocol['test_steps']} inner steps of {protocol['alpha']} "
            f"({protocol['inner_loss']}), gamma and beta {'adapted' if protocol['adapt_norm'] else 'not adapted'}"
            + (f"; {lost} tasks left all bounds, and count as wrong" if lost else "")
        )
    return notes
