"""Reinforcement learning as a domain (paper, section 5.3 and appendix A.2): an environment of Gymnasium, with goals."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tinymaml.experiments.control.methods import METHODS, PolicyMethod
from tinymaml.settings import setting
from tinymaml.train.domain import Domain
from tinymaml.train.trainer import Trainer
from tinymaml.train.training import Loop

NEW_GOALS = "new goals"  # what figures are of


@dataclass(frozen=True)
class ControlTraining(Loop):
    """Settings of training policies."""

    iterations: int = setting(500, "meta-iterations", free=True)
    log_every: int = setting(1, "iterations between two lines of metrics", free=True)
    checkpoint_every: int = setting(10, "iterations between two checkpoints", free=True)
    validate_every: int = setting(25, "iterations between two validations on held-out goals, of all steps")
    meta_batch: int = setting(40, "tasks a meta-iteration")
    workers: int = setting(
        os.cpu_count() or 1,
        "threads that sample; results do not depend on how many",
        most=1024,
        free=True,
        evaluation=True,
    )


@dataclass(frozen=True)
class Control(Domain):
    """Any environment of Gymnasium that has a sampler of tasks or a space of goals; see `rl.vector_env`."""

    METRIC: ClassVar[str] = "return"
    BETTER: ClassVar[Literal["lower", "higher"]] = "higher"
    STREAMS: ClassVar[tuple[str, ...]] = ("rollouts",)
    METHODS: ClassVar[Mapping[str, Any]] = METHODS
    TRAINING: ClassVar[Loop] = ControlTraining()

    environment: str = setting("", "its name for Gymnasium")
    rollouts: int = setting(20, "episodes a task for each step; where episodes end early, as many transitions")
    pooled_rollouts: int = setting(100, "episodes an iteration where nothing is adapted, each with its own goal")
    horizon: int = setting(200, "steps of an episode at most")
    hidden: tuple[int, ...] = setting((100, 100), "units of each hidden layer")
    activation: str = setting("relu", "nonlinearity between layers", ("relu", "tanh", "sigmoid", "softplus"))
    log_std: float = setting(0.0, "logarithm of the standard deviations of actions at the start", least=-20, most=20)
    min_std: float = setting(1e-6, "floor of the standard deviations of actions", positive=True)
    discount: float = setting(0.99, "of rewards", least=0, most=1)
    gae: float = setting(1.0, "lambda of the advantage estimates", least=0, most=1)
    eval_seed: int = setting(1, "seed of the goals evaluated", least=0, most=2**32 - 1, evaluation=True)
    eval_goals: int = setting(40, "goals evaluated", evaluation=True)
    eval_rollouts: int = setting(20, "episodes a goal for each step in an evaluation", evaluation=True)
    eval_steps: int = setting(3, "inner steps evaluated, on fresh episodes each", evaluation=True)
    eval_decay: float = setting(
        0.5, "of the step size after the first inner step, in an evaluation", positive=True, evaluation=True
    )

    @property
    def name(self) -> str:
        """As results call it."""
        return "control"

    @property
    def folder_name(self) -> str:
        """Of the environment."""
        return self.environment.replace("/", "-")

    @property
    def options(self) -> dict[str, Any]:
        """Of the environment."""
        return {}

    def check(self, training: Any) -> None:
        """Raises ValueError: no environment, or another device than the CPU."""
        if not self.environment:
            raise ValueError("environment: which one? Its name for Gymnasium is needed, as in --environment ID")
        if training.device != "cpu":
            raise ValueError("device must be cpu: reinforcement learning samples and learns on the CPU")

    def least_numbers(self, training: Any) -> int:
        """Parameters with the optimiser's state, and a layer's outputs for all transitions."""
        parameters = sum(a * b for a, b in itertools.pairwise(self.hidden))
        sampled, tested = training.meta_batch * self.rollouts, self.eval_goals * self.eval_rollouts
        return 4 * parameters + max(sampled, tested) * self.horizon * max(self.hidden)

    def trainer(self, method: Any, training: Any, experiment: str | None = None, name: str | None = None) -> Trainer:
        """See `Domain.trainer`."""
        from tinymaml.experiments.control.trainer import ControlTrainer

        if not isinstance(method, PolicyMethod):
            raise ValueError(
                f"{method.name} learns from support and query sets, {self.environment} has rollouts: "
                f"take one of its own methods, {', '.join(METHODS)}"
            )
        return ControlTrainer(self, method, training, experiment or self.name, name or method.name)


@dataclass(frozen=True)
class Navigation(Control):
    """2-D navigation."""

    environment: str = setting("tinymaml/Navigation-v0", "its name for Gymnasium")
    reward: str = setting(
        "distance",
        "minus the distance to the goal (the authors' code), or minus its square (the paper's text)",
        ("distance", "squared-distance"),
    )
    horizon: int = setting(100, "steps of an episode at most")
    eval_rollouts: int = setting(40, "episodes a goal for each step in an evaluation", evaluation=True)
    eval_steps: int = setting(4, "inner steps evaluated, on fresh episodes each", evaluation=True)

    @property
    def options(self) -> dict[str, Any]:
        """Of the environment."""
        return {"reward": self.reward}


@dataclass(frozen=True)
class Locomotion(Control):
    """Robots in MuJoCo."""

    flavour: str = setting(
        "rllab", "whose environment: rllab's, as in the paper, or Gymnasium's, of five physics steps", ("rllab", "gym")
    )

    @property
    def options(self) -> dict[str, Any]:
        """Of the environment."""
        return {"flavour": self.flavour}
