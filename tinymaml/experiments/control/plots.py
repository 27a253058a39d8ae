"""Pictures of reinforcement learning: returns against inner steps (paper, figures 4 and 5), and in training."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinymaml.experiments.control.table import published
from tinymaml.train import results
from tinymaml.train.plots import Picture, colours, methods_in


def _returns(plt: Any, found: results.Results) -> Any:
    """Of the parameters best in validation, or the last; crosses where the authors' are."""
    figure, axes = plt.subplots(figsize=(4.6, 3.1), layout="constrained")
    for method in methods_in(found):
        entry, colour, name = found["methods"][method], colours(found)[method], results.name_of(method)
        own = (entry["best"] or entry)["returns"]
        mean, width = np.array(own["mean"]), np.array(own["half_width"], float)
        if len(mean) == 1:
            axes.axhline(mean[0], color=colour, linestyle="--", label=name)
            continue
        steps = np.arange(len(mean))
        axes.plot(steps, mean, color=colour, marker="o", markersize=3.5, label=name)
        axes.fill_between(steps, mean - width, mean + width, color=colour, alpha=0.18, linewidth=0)
        paper = published(entry, method)
        if paper is not None:
            axes.plot(range(len(paper.mean)), paper.mean, "x", color=colour, markersize=5, label=f"{name}, authors")
    axes.set_xlabel("inner steps")
    axes.set_ylabel("return")
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    return figure


PICTURES: dict[str, Picture] = {"returns": _returns}
