"""Pictures of the image experiments, drawn from their results."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinymaml.experiments.few_shot.table import published
from tinymaml.train import results
from tinymaml.train.plots import Picture, colours, methods_in

LINES = {"transductive": "-", "inductive": "--"}


def _accuracy(plt: Any, found: results.Results) -> Any:
    """Accuracy against inner steps, a panel for every number of query images; best parameters where there are."""
    methods = methods_in(found)
    queries = sorted({q for m in methods for own in found["methods"][m]["accuracy"].values() for q in own}, key=int)
    if not queries:
        return None
    figure, row = plt.subplots(
        1, len(queries), figsize=(3.6 * len(queries), 3.2), sharey=True, layout="constrained", squeeze=False
    )
    for axes, query in zip(row[0], queries, strict=True):
        for method in methods:
            _curves(axes, found, method, query)
        axes.set_title(f"{query} query image{'s' * (query != '1')} a class")
        axes.set_xlabel("inner steps")
        axes.set_xlim(left=0)
    row[0][0].set_ylabel("accuracy, %")
    handles = {label: h for axes in row[0] for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=3, fontsize=8)
    return figure


def _curves(axes: Any, found: results.Results, method: str, query: str) -> None:
    """Of the parameters best in validation, or the last; a cross where the published figure is."""
    entry, colour, name = found["methods"][method], colours(found)[method], results.name_of(method)
    for kind, own in (entry["best"] or entry)["accuracy"].items():
        if query not in own:
            continue
        mean = 100 * np.array(own[query]["mean"])
        width = 100 * np.array(own[query]["half_width"], float)  # None, of a single task: a gap
        steps = np.arange(len(mean))
        axes.plot(steps, mean, LINES[kind], color=colour, marker="o", markersize=3, label=f"{name}, {kind}")
        axes.fill_between(steps, mean - width, mean + width, color=colour, alpha=0.18, linewidth=0)
    paper = published(entry, method)
    if paper is not None and query == str(entry["protocol"]["shots"]):
        at = entry["protocol"]["test_steps"]
        look = {"fmt": "x", "color": "#222222", "capsize": 3, "markersize": 5, "zorder": 4}
        axes.errorbar([at], [paper[0]], [paper[1]], label=f"{name}, published", **look)


PICTURES: dict[str, Picture] = {"accuracy": _accuracy}
