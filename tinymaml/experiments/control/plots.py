"""Pictures of reinforcement learning: returns against inner steps (paper, figures 4 and 5), and in training."""

from __future__ import annotations

from typing import Any

from tinymaml.experiments.control.table import CONDITION, Protocol, published
from tinymaml.train import plots, results
from tinymaml.train.plots import Picture
from tinymaml.train.results import Results


def _returns(plt: Any, content: Results) -> Any:
    """Of the parameters best in validation, or the last; crosses where the authors' are."""
    results.check_domain(content, Protocol)
    figure, axes = plt.subplots(figsize=(4.6, 3.1), layout="constrained")
    for method, entry in results.entries(content):
        colour, name = plots.colours(content)[method], results.name_of(method)
        figures = plots.best_or_last(entry).get(CONDITION)
        if figures is not None:
            plots.curve(axes, entry, figures, colour, name)
        paper = published(entry, method)
        if paper is not None:
            steps = range(len(paper.mean))
            half_widths = [paper.half_width.get(k) for k in steps]
            plots.crosses(axes, steps, paper.mean, half_widths, colour, f"{name}, authors")
    axes.set_ylabel("return")
    plots.inner_steps(axes)
    plots.legend_above(figure, [axes])
    return figure


PICTURES: dict[str, Picture] = {"returns": _returns}
