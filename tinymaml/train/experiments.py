"""The experiments by name: their settings, the code that runs them, their tables and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from tinymaml.train import (
    image_plots,
    image_settings,
    image_table,
    images,
    plots,
    rl,
    rl_plots,
    rl_settings,
    rl_table,
    sinusoid,
    sinusoid_plots,
    sinusoid_table,
)
from tinymaml.train.loop import Figures, Step, Trained
from tinymaml.train.results import Results
from tinymaml.train.settings import Settings, SinusoidSettings
from tinymaml.tree import Tree


class Code(Protocol):
    """What a module of experiments has, for settings of its own class and one of its methods."""

    METHODS: tuple[str, ...]

    def start_state(self, settings: Any, method: str) -> Tree:
        """The state that training starts from."""

    def stepper(self, settings: Any, method: str) -> Step:
        """Iterations of training."""

    def validator(self, settings: Any, method: str) -> Callable[[Tree], Figures] | None:
        """The error on validation tasks, or None."""

    def evaluate(self, settings: Any, method: str, trained: Trained) -> Mapping[str, Any]:
        """The method's entry of results.json."""


class Experiment(NamedTuple):
    """One experiment."""

    name: str
    summary: str
    settings: Settings  # the defaults
    code: Code
    table: Callable[[Results], str]
    pictures: Mapping[str, plots.Picture]
    by_order: bool  # whether the command line names a method by its order: 2 is maml, 1 is fomaml
    show: str | None  # what `tinymaml show` draws of it: "task" of images, "policy" of reinforcement learning


def _image_summary(settings: image_settings.ImageSettings) -> str:
    network = "" if settings.network == "conv" else ", no convolutions"
    return f"{settings.ways}-way {settings.shots}-shot classification of {settings.dataset} images{network}"


EXPERIMENTS: dict[str, Experiment] = {
    "sinusoid": Experiment(
        "sinusoid",
        "few-shot regression of sinusoids",
        SinusoidSettings(),
        sinusoid,
        sinusoid_table.table,
        sinusoid_plots.PICTURES,
        by_order=False,
        show=None,
    ),
    **{
        name: Experiment(
            name,
            _image_summary(settings),
            settings,
            images,
            image_table.table,
            image_plots.PICTURES,
            by_order=True,
            show="task",
        )
        for name, settings in image_settings.EXPERIMENTS.items()
    },
    **{
        name: Experiment(
            name,
            f"meta reinforcement learning: {name.replace('-', ', ')}",
            settings,
            rl,
            rl_table.table,
            rl_plots.PICTURES,
            by_order=False,
            show="policy",
        )
        for name, settings in rl_settings.EXPERIMENTS.items()
    },
}
