"""The experiments by name: their settings, the code that runs them, their tables and pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tinymaml.autodiff.tree import Tree
from tinymaml.experiments.control import plots as rl_plots
from tinymaml.experiments.control import settings as rl_settings
from tinymaml.experiments.control import table as rl_table
from tinymaml.experiments.control import training as rl
from tinymaml.experiments.few_shot import plots as image_plots
from tinymaml.experiments.few_shot import settings as image_settings
from tinymaml.experiments.few_shot import table as image_table
from tinymaml.experiments.few_shot import training as images
from tinymaml.experiments.sinusoid import plots as sinusoid_plots
from tinymaml.experiments.sinusoid import table as sinusoid_table
from tinymaml.experiments.sinusoid import training as sinusoid
from tinymaml.experiments.sinusoid.settings import SinusoidSettings
from tinymaml.train import plots
from tinymaml.train.loop import Figures, Step, Trained
from tinymaml.train.results import Results
from tinymaml.train.settings import Settings


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
    needs: tuple[tuple[str, str], ...] = ()  # modules of extras that it cannot do without: (module, extra)


class RunOfAnother(ValueError):
    """A folder's run is not what it was taken for."""


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
            needs=(("gymnasium", "rl"), ("mujoco", "rl")),
        )
        for name, settings in rl_settings.EXPERIMENTS.items()
    },
}


def check_run(folder: Path, settings: Mapping[str, Any], experiment: Experiment, method: str) -> None:
    """Raises RunOfAnother if a checkpoint in a method's folder, with these settings, is of something else.

    Checkpoints say what they are of. Those from before they did are known by their settings.
    """
    if settings.get("method", method) != method:
        raise RunOfAnother(f"{folder} holds a run of the method {settings['method']}, not of {method}")
    said = settings.get("experiment")
    names = _like([*EXPERIMENTS.values(), experiment], settings) if said is None else [said]
    if experiment.name not in names:
        whose = f"a run of {' or '.join(names)}" if names else "a run of another experiment"
        raise RunOfAnother(f"{folder} holds {whose}, not of {experiment.name}")


def _like(experiments: list[Experiment], settings: Mapping[str, Any]) -> list[str]:
    """Experiments that have all these settings, and those that are fixed with the same values; of them the ones of the
    same data set, where there are such."""

    def fits(one: Experiment) -> bool:
        own = dataclasses.fields(one.settings)
        known = set(settings) - {"method"} <= {field.name for field in own}
        return known and all(
            settings.get(field.name) == getattr(one.settings, field.name) for field in own if field.metadata["fixed"]
        )

    found = {one.name: getattr(one.settings, "dataset", None) for one in experiments if fits(one)}
    same = [name for name, dataset in found.items() if dataset == settings.get("dataset")]
    return same or list(found)
