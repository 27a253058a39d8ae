"""Pictures of the image experiments, drawn from their results."""

from __future__ import annotations

from typing import Any

from tinymaml.autodiff.tensor import Array
from tinymaml.experiments.few_shot.table import Protocol, compared, published
from tinymaml.train import plots, results
from tinymaml.train.plots import Picture
from tinymaml.train.results import Results

LINES = {"transductive": "-", "inductive": "--"}


def _errors(plt: Any, content: Results) -> Any:
    """Error against inner steps, a panel for every number of query images; best parameters where there are."""
    results.check_domain(content, Protocol)
    entries = [(method, entry, plots.best_or_last(entry)) for method, entry in results.entries(content)]
    queries = list(dict.fromkeys(condition.partition(", ")[2] for *_, figures in entries for condition in figures))
    if not queries:
        return None
    figure, row = plt.subplots(
        1, len(queries), figsize=(3.6 * len(queries), 3.2), sharey=True, layout="constrained", squeeze=False
    )
    shown: list[Array] = []
    for axes, query in zip(row[0], queries, strict=True):
        for method, entry, figures in entries:
            colour, name = plots.colours(content)[method], results.name_of(method)
            for condition, of_condition in figures.items():
                kind, _, images = condition.partition(", ")
                if images == query:
                    look = {"linestyle": LINES.get(kind, ":")}
                    shown.append(plots.curve(axes, entry, of_condition, colour, f"{name}, {kind}", **look))
            paper = published(entry, method)
            if paper is not None and compared(entry).endswith(f", {query}"):
                steps, (accuracy, half_width) = entry["protocol"]["test_steps"], paper
                plots.crosses(axes, [steps], [100 - accuracy], [half_width], colour, f"{name}, published")
        axes.set_title(f"{query} image{'s' * (query != '1 query')} a class" if query else "")
        plots.inner_steps(axes)
    row[0][0].set_ylabel(plots.axis_label(entries[0][1]))
    plots.log_where_decades(row[0], shown)
    plots.legend_above(figure, row[0])
    return figure


PICTURES: dict[str, Picture] = {"error": _errors}
