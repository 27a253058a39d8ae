"""Settings of the experiments in reinforcement learning (paper, section 5.3 and appendix A.2)."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from typing import Any, ClassVar

from tinymaml.train.settings import Settings, setting

OUTER = ("trpo", "vpg", "ppo")
CURVATURES = ("exact", "finite-difference")


@dataclass(frozen=True)
class RLSettings(Settings):
    """What every one of them has; the defaults are the paper's, where it says."""

    environment: str = setting("", "its name for Gymnasium", fixed=True)
    iterations: int = setting(500, "meta-iterations")
    log_every: int = setting(1, "iterations between two lines of metrics")
    checkpoint_every: int = setting(10, "iterations between two checkpoints")
    validate_every: int = setting(25, "iterations between two validations on held-out goals, of all steps")
    meta_batch: int = setting(40, "tasks a meta-iteration")
    rollouts: int = setting(20, "episodes a task for each step; where episodes end early, as many transitions")
    pooled_rollouts: int = setting(100, "episodes an iteration where nothing is adapted, each with its own goal")
    horizon: int = setting(200, "steps of an episode at most")
    steps: int = setting(1, "inner steps in meta-training")
    alpha: float = setting(0.1, "step size of the inner steps", positive=True)
    hidden: tuple[int, ...] = setting((100, 100), "units of each hidden layer")
    activation: str = setting("relu", "nonlinearity between layers", ("relu", "tanh", "sigmoid", "softplus"))
    log_std: float = setting(0.0, "logarithm of the standard deviations of actions at the start", least=-20, most=20)
    min_std: float = setting(1e-6, "floor of the standard deviations of actions", positive=True)
    discount: float = setting(0.99, "of rewards", least=0, most=1)
    gae: float = setting(1.0, "lambda of the advantage estimates", least=0, most=1)
    outer: str = setting("trpo", "outer update: trpo, vpg (Adam on the meta-gradient), ppo (Adam, clipped)", OUTER)
    max_kl: float = setting(0.01, "trust region of TRPO: mean KL between old and new adapted policies", positive=True)
    cg_iterations: int = setting(10, "iterations of conjugate gradient")
    damping: float = setting(1e-5, "added to the curvature", positive=True)
    curvature: str = setting("exact", "how the curvature's products are made", CURVATURES)
    curvature_share: float = setting(0.1, "of the transitions that the curvature is computed on", least=1e-6, most=1)
    learning_rate: float = setting(1e-3, "step size of Adam, for vpg and ppo", positive=True)
    ppo_steps: int = setting(5, "steps of Adam in an iteration of ppo")
    ppo_clip: float = setting(0.2, "of the ratio, for ppo", positive=True)
    eval_seed: int = setting(1, "seed of the goals evaluated", least=0, most=2**32 - 1)
    eval_goals: int = setting(40, "goals evaluated")
    eval_rollouts: int = setting(20, "episodes a goal for each step in an evaluation")
    eval_steps: int = setting(3, "inner steps evaluated, on fresh episodes each")
    eval_decay: float = setting(0.5, "of the step size after the first inner step, in an evaluation", positive=True)
    finetune_alphas: tuple[float, ...] = setting(
        (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
        "first step sizes among which the best one is found on validation goals, for pretrained and random",
        positive=True,
    )
    workers: int = setting(os.cpu_count() or 1, "threads that sample; results do not depend on how many", most=1024)
    dtype: str = setting("float32", "of parameters and data", ("float32", "float64"))

    FREE: ClassVar[tuple[str, ...]] = (*Settings.FREE, "workers", "finetune_alphas")
    EVALUATION: ClassVar[tuple[str, ...]] = (
        "eval_seed",
        "eval_goals",
        "eval_rollouts",
        "eval_steps",
        "eval_decay",
        "finetune_alphas",
        "workers",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.device != "cpu":
            raise ValueError("device must be cpu: reinforcement learning samples and learns on the CPU")

    def least_numbers(self) -> int:
        parameters = sum(a * b for a, b in itertools.pairwise(self.hidden))
        training, test = self.meta_batch * self.rollouts, self.eval_goals * self.eval_rollouts
        return 4 * parameters + max(training, test) * self.horizon * max(self.hidden)

    @property
    def options(self) -> dict[str, Any]:
        """Of the environment."""
        return {}


@dataclass(frozen=True)
class NavigationSettings(RLSettings):
    """2-D navigation."""

    environment: str = setting("tinymaml/Navigation-v0", "its name for Gymnasium", fixed=True)
    reward: str = setting(
        "distance",
        "minus the distance to the goal (the authors' code), or minus its square (the paper's text)",
        ("distance", "squared-distance"),
    )
    iterations: int = setting(150, "meta-iterations")
    validate_every: int = setting(10, "iterations between two validations on held-out goals, of all steps")
    meta_batch: int = setting(20, "tasks a meta-iteration")
    horizon: int = setting(100, "steps of an episode at most")
    eval_rollouts: int = setting(40, "episodes a goal for each step in an evaluation")
    eval_steps: int = setting(4, "inner steps evaluated, on fresh episodes each")

    @property
    def options(self) -> dict[str, Any]:
        return {"reward": self.reward}


@dataclass(frozen=True)
class LocomotionSettings(RLSettings):
    """Robots in MuJoCo."""

    flavour: str = setting(
        "rllab", "whose environment: rllab's, as in the paper, or Gymnasium's, of five physics steps", ("rllab", "gym")
    )

    @property
    def options(self) -> dict[str, Any]:
        return {"flavour": self.flavour}


EXPERIMENTS: dict[str, RLSettings] = {
    "navigation": NavigationSettings(),
    # KL .02 as in the authors' code; lambda .95, as with 1 adaptation is too noisy: docs/results/README.md.
    "cheetah-direction": LocomotionSettings(environment="tinymaml/HalfCheetahDirection-v0", max_kl=0.02, gae=0.95),
    # 10 episodes as in the authors' code; the larger trust region as with .01 it learns half as fast.
    "cheetah-velocity": LocomotionSettings(
        environment="tinymaml/HalfCheetahVelocity-v0", rollouts=10, max_kl=0.03, gae=0.95
    ),
    "ant-direction": LocomotionSettings(
        environment="tinymaml/AntDirection-v0", rollouts=40, eval_rollouts=40, eval_goals=2
    ),
    # With a quarter of the transitions an iteration, and what half cheetah needed, the authors' figures in an hour.
    "ant-velocity": LocomotionSettings(
        environment="tinymaml/AntVelocity-v0", meta_batch=20, rollouts=10, max_kl=0.02, gae=0.95
    ),
}
