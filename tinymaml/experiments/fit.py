"""Training a method on a domain of one's own, evaluating it, and loading what was learned: the same as our own have."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from tinymaml.autodiff.tree import Tree
from tinymaml.experiments import registry, run
from tinymaml.experiments.registry import check_run
from tinymaml.settings import Settings
from tinymaml.train import loop, plots, results
from tinymaml.train.domain import Domain
from tinymaml.train.experiment import Experiment, nearest


class Run(NamedTuple):
    """What `fit` and `evaluate` give: a method's figures in a folder, and what the folder is of."""

    folder: Path
    experiment: Experiment
    method: str
    results: results.Results

    @property
    def entry(self) -> Any:
        """The method's entry of results.json: its figures, their protocol and how they came about."""
        return self.results["methods"][self.method]

    def table(self) -> str:
        """The figures of all methods that were evaluated in the folder, as text."""
        return self.experiment.table(self.results)

    def plot(self, form: str = "png") -> list[Path]:
        """Draw the pictures of the folder, as png, svg or pdf; their paths."""
        return plots.draw_all(self.folder, self.experiment.name, self.experiment.pictures, form)


class Learned(NamedTuple):
    """What `load` gives."""

    params: Tree  # a pytree of arrays [1, ...]
    model: Any  # the network: `model.apply(params, x[T, N, ...])`; a policy, in reinforcement learning
    iteration: int
    experiment: Experiment  # with the settings of the run
    state: Tree  # of the method, with what else it learned


def fit(
    method: Settings | str,
    domain: Domain | Experiment,
    *,
    out: str | Path,
    progress: bool = True,
    evaluate: bool = True,
    **training: Any,
) -> Run | None:
    """Train a method on a domain, from where the folder's latest checkpoint is, and evaluate it.

    Args:
        method: a method, such as `methods.MAML(alpha=0.1)` or an instance of a subclass of `Method`; or the name of one
            of the domain's, such as "maml".
        domain: an instance of a subclass of `Domain`, or an experiment.
        out: folder of the run: OUT/METHOD/checkpoints, OUT/METHOD/metrics.jsonl and OUT/results.json. One folder takes
            several methods on one domain.
        progress: whether progress is shown on standard error.
        evaluate: whether it is evaluated after training; if not, None is returned.
        training: settings of the loop: iterations, meta_batch, seed, ...; see `tinymaml.train.training`.

    Returns:
        The figures, with `.table()` and `.plot()`.

    Raises:
        ValueError: a setting that there is not, or out of its range; a method and a domain that do not go together; a
            folder that holds another run.
        TrainingDiverged: the loss or a gradient stopped being finite.
        Interrupted: it was stopped, after a checkpoint: the same call goes on from there.

    Example:
        >>> run = tinymaml.fit(methods.MAML(alpha=0.05), Lines(), out="runs/lines", iterations=2000)
        >>> print(run.table())
    """
    experiment, name = _experiment(method, domain)
    experiment = experiment.replaced(**training) if training else experiment
    run.train(experiment, Path(out), name, report=None if progress else _silent)
    return _evaluated(experiment, Path(out), name, {}, progress) if evaluate else None


def evaluate(
    out: str | Path,
    method: Settings | str,
    domain: Domain | Experiment | None = None,
    *,
    progress: bool = True,
    **protocol: Any,
) -> Run:
    """Evaluate again what was trained in a folder.

    Args:
        out, method: as of `fit`.
        domain: as of `fit`; an experiment of the package is known by its checkpoints.
        progress: whether progress is shown on standard error.
        protocol: settings of the evaluation: eval_tasks, eval_steps, eval_seed, ...; all others are as in training.

    Raises:
        FileNotFoundError: the method was not trained there.
        ValueError: the run is of another domain or method, or a setting is out of its range.
    """
    experiment, name = _experiment(method, _domain(Path(out), method, domain))
    allowed = {one for part in experiment.parts(name) for one in part.names("evaluation")}
    for setting in protocol:
        if setting not in allowed:
            raise ValueError(f"{setting!r} is no setting of the evaluation{nearest(setting, allowed)}")
    return _evaluated(experiment, Path(out), name, protocol, progress)


def _evaluated(experiment: Experiment, out: Path, method: str, protocol: dict[str, Any], progress: bool) -> Run:
    return Run(out, experiment, method, run.evaluate(experiment, out, [method], protocol, progress))


def load(
    out: str | Path, method: Settings | str = "maml", domain: Domain | Experiment | None = None, *, best: bool = True
) -> Learned:
    """The parameters and the network of a run.

    Args:
        out, method, domain: as of `evaluate`.
        best: those that were best in validation, where there was one; else the last.

    Raises:
        FileNotFoundError: the method was not trained there.
        ValueError: the run is of another domain or method.
    """
    experiment, name = _experiment(method, _domain(Path(out), method, domain))
    trained = loop.latest(Path(out) / name)
    check_run(Path(out) / name, trained.settings, experiment, name)
    trained_with = experiment.of(trained.settings)
    chosen = trained.best if best and trained.best else None
    params = trained.state["params"] if chosen is None else chosen["params"]
    iteration = trained.iterations if chosen is None else chosen["iteration"]
    trainer = trained_with.trainer(name)
    loop.check_parameters(Path(out) / name, trainer, params)
    return Learned(params, trainer.model, iteration, trained_with, {**trained.state, "params": params})


def _experiment(method: Settings | str, domain: Domain | Experiment) -> tuple[Experiment, str]:
    """The experiment, and the method's name in it."""
    if not isinstance(domain, Domain | Experiment):
        what = f"{domain.__name__}, a class: give {domain.__name__}()" if isinstance(domain, type) else repr(domain)
        raise TypeError(f"domain must be an instance of a subclass of tinymaml.Domain, got {what}")
    experiment = domain if isinstance(domain, Experiment) else Experiment(domain)
    if isinstance(method, str):
        experiment.method(method)  # which raises ValueError, if there is none
        return experiment, method
    if not isinstance(method, Settings):
        what = f"{method.__name__}, a class: give {method.__name__}()" if isinstance(method, type) else repr(method)
        raise TypeError(f"method must be a name, or an instance of a subclass of tinymaml.Method, got {what}")
    name: str = getattr(method, "name", type(method).__name__.lower())
    return dataclasses.replace(experiment, methods={name: method}), name


def _domain(out: Path, method: Settings | str, domain: Domain | Experiment | None) -> Domain | Experiment:
    """The one that was given, or the package's own that a run's checkpoints name."""
    if domain is not None:
        return domain
    name = method if isinstance(method, str) else getattr(method, "name", "")
    said = loop.latest(out / name).settings.get("experiment")
    known = {**registry.EXPERIMENTS, **registry.GENERAL, **registry.installed()}
    if said not in known:
        raise ValueError(f"{out / name} holds a run of {said}, which is not in the package: give its domain")
    return known[said]


def _silent(**line: float) -> None:
    """Progress that nobody sees."""
