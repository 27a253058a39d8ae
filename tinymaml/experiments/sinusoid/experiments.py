"""The sinusoid experiment with the paper's settings."""

from __future__ import annotations

from tinymaml.experiments.sinusoid import table
from tinymaml.experiments.sinusoid.domain import Sinusoids
from tinymaml.experiments.sinusoid.plots import PICTURES
from tinymaml.train.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    "sinusoid": Experiment(
        Sinusoids(),
        "sinusoid",
        {name: method for name, method in Sinusoids.METHODS.items() if name != "random"},
        summary="few-shot regression of sinusoids",
        table=table.table,
        pictures=PICTURES,
    )
}
