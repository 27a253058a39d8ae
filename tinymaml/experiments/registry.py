"""The experiments by name: the package's own, and those that installed packages offer as entry points."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tinymaml.experiments.control.experiments import ENVIRONMENT
from tinymaml.experiments.control.experiments import EXPERIMENTS as CONTROL
from tinymaml.experiments.few_shot.experiments import EXPERIMENTS as FEW_SHOT
from tinymaml.experiments.few_shot.experiments import IMAGES
from tinymaml.experiments.sinusoid.experiments import EXPERIMENTS as SINUSOID
from tinymaml.train.domain import Domain
from tinymaml.train.experiment import Experiment
from tinymaml.train.loop import renamed

# With the paper's settings.
EXPERIMENTS: dict[str, Experiment] = {**SINUSOID, **FEW_SHOT, **CONTROL}

# For any set of images, and for any environment.
GENERAL: dict[str, Experiment] = {"images": IMAGES, "control": ENVIRONMENT}

GROUP = "tinymaml.experiments"  # of entry points: each an `Experiment` or `Domain`, or what returns one when called


class RunOfAnother(ValueError):
    """A folder's run is not what it was taken for."""


def installed(silent: bool = False) -> dict[str, Experiment]:
    """The experiments that other packages have installed, by name; what cannot be used is named on standard error,
    unless that is to be silent."""
    experiments: dict[str, Experiment] = {}
    for point in metadata.entry_points(group=GROUP):
        try:
            offered = point.load()
            made = offered if isinstance(offered, Experiment | Domain) else offered()
            if not isinstance(made, Experiment | Domain):
                raise TypeError(f"it is no Experiment or Domain, but {type(made).__name__}")
            experiment = Experiment(made) if isinstance(made, Domain) else made
            if experiment.name in {**EXPERIMENTS, **GENERAL, **experiments}:
                raise ValueError(f"there is an experiment {experiment.name} already")
            experiments[experiment.name] = experiment
        except Exception as error:  # whatever another package raises, the other experiments are there
            said = " ".join(str(error).split())
            if not silent:
                print(f"tinymaml: the experiment {point.name} ({point.value}) is left out: {said}", file=sys.stderr)
    return experiments


def check_run(folder: Path, settings: Mapping[str, Any], experiment: Experiment, method: str) -> None:
    """Raises RunOfAnother if a checkpoint in a method's folder, with these settings, is of something else.

    Checkpoints say what they are of. Those from before they did are known by their settings.
    """
    if settings.get("method", method) != method:
        raise RunOfAnother(f"{folder} holds a run of the method {settings['method']}, not of {method}")
    said = settings.get("experiment")
    names = _like([*EXPERIMENTS.values(), experiment], renamed(settings)) if said is None else [said]
    if experiment.name not in names:
        whose = f"a run of {' or '.join(names)}" if names else "a run of another experiment"
        raise RunOfAnother(f"{folder} holds {whose}, not of {experiment.name}")


def _like(experiments: list[Experiment], settings: Mapping[str, Any]) -> list[str]:
    """Experiments that have all these settings, and those that are fixed with the same values; of them the ones of the
    same data set, where there are such."""
    datasets = {}
    for experiment in experiments:
        values = experiment.settings()
        known = set(settings) - {"method"} <= set(values)
        if known and all(settings.get(name) == values[name] for name in experiment.fixed):
            datasets[experiment.name] = values.get("dataset")
    same = [name for name, dataset in datasets.items() if dataset == settings.get("dataset")]
    return same or list(datasets)
