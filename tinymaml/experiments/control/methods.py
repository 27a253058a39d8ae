"""Methods of meta reinforcement learning (paper, section 5.3, algorithm 3), by what they learn from and are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tinymaml.settings import Settings, setting

OUTER = ("trpo", "vpg", "ppo")
CURVATURES = ("exact", "finite-difference")


@dataclass(frozen=True)
class PolicyMethod(Settings):
    """What every one has: the outer update, and the inner steps."""

    ADAPTS: ClassVar[bool] = False  # whether training is through the inner steps
    INFORMED: ClassVar[bool] = False  # whether the policy is told the goal
    TRAINED: ClassVar[bool] = True
    FINE_TUNED: ClassVar[bool] = False  # whether an evaluation searches the step size

    steps: int = setting(1, "inner steps in meta-training")
    alpha: float = setting(0.1, "step size of the inner steps", positive=True)
    outer: str = setting("trpo", "outer update: trpo, vpg (Adam on the meta-gradient), ppo (Adam, clipped)", OUTER)
    max_kl: float = setting(0.01, "trust region of TRPO: mean KL between old and new adapted policies", positive=True)
    cg_iterations: int = setting(10, "iterations of conjugate gradient")
    damping: float = setting(1e-5, "added to the curvature", positive=True)
    curvature: str = setting("exact", "how the curvature's products are made", CURVATURES)
    curvature_share: float = setting(0.1, "of the transitions that the curvature is computed on", least=1e-6, most=1)
    learning_rate: float = setting(1e-3, "step size of Adam, for vpg and ppo", positive=True)
    ppo_steps: int = setting(5, "steps of Adam in an iteration of ppo")
    ppo_clip: float = setting(0.2, "of the ratio, for ppo", positive=True)
    finetune_alphas: tuple[float, ...] = setting(
        (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
        "first step sizes among which the best one is found on validation goals, for pretrained and random",
        positive=True,
        free=True,
        evaluation=True,
    )

    @property
    def name(self) -> str:
        """As folders, tables and the command line call it."""
        return type(self).__name__.removesuffix("Policy").lower()


class MAMLPolicy(PolicyMethod):
    """A start from which a few policy gradient steps suit the policy to a new task."""

    ADAPTS: ClassVar[bool] = True


class PretrainedPolicy(PolicyMethod):
    """One policy trained on all tasks at once, fine-tuned on a new one with the step size that suits it best."""

    FINE_TUNED: ClassVar[bool] = True


class OraclePolicy(PolicyMethod):
    """One policy that is told the goal; it does not adapt."""

    INFORMED: ClassVar[bool] = True


class RandomPolicy(PolicyMethod):
    """A policy that is not trained at all, fine-tuned as the pretrained one is."""

    TRAINED: ClassVar[bool] = False
    FINE_TUNED: ClassVar[bool] = True


METHODS = {method.name: method for method in (MAMLPolicy(), PretrainedPolicy(), OraclePolicy(), RandomPolicy())}
